"""Labels of several annotators, in every form that is documented; and what is none of them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhfctl.data.annotations import comparison_votes, read_votes
from rlhfctl.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    def save(rows, name="x.jsonl"):
        path = tmp_path / name
        if isinstance(rows, str):
            path.write_text(rows)
        elif name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return save


def told(source, **columns):
    """Return each item's labels by annotator's name."""
    votes, _ = read_votes(source, columns)
    found: dict[int, dict[str | int, str]] = {}
    for item, who, label in zip(votes.item, votes.annotator, votes.label, strict=True):
        name = votes.annotators[who] if votes.annotators else len(found.get(item, {}))
        found.setdefault(item, {})[name] = votes.classes[label]
    return list(found.values())


WANTED = [{"ada": "a", "ben": "b"}, {"ada": "a", "cleo": "a"}]
FORMS = {
    "mapping": [{"votes": WANTED[0]}, {"votes": WANTED[1]}],
    "entries": [
        {"labels": [{"annotator": name, "label": label} for name, label in row.items()]}
        for row in WANTED
    ],
    "wide": [
        {"label_ada": "a", "label_ben": "b", "label_cleo": None},
        {"label_ada": "a", "label_ben": "", "label_cleo": "a"},
    ],
    "long": [
        {"item": number, "annotator": name, "label": label}
        for number, row in enumerate(WANTED)
        for name, label in row.items()
    ],
    "long by responses": [
        {"prompt": "p", "response_a": "x", "response_b": f"{n}", "annotator": who, "label": label}
        for n, row in enumerate(WANTED)
        for who, label in row.items()
    ],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_form_says_the_same(write, form, suffix):
    if suffix == "parquet" and form == "mapping":
        pytest.skip("parquet gives every mapping the same keys")
    assert told(write(FORMS[form], f"x.{suffix}")) == WANTED


def test_csv_has_votes_as_json_and_annotators_in_columns(write):
    assert told(write('votes\n"{""ada"": ""a"", ""ben"": ""b""}"\n', "x.csv")) == WANTED[:1]
    wide = write("who1,who2,note\na,b,x\na,,y\n", "y.csv")
    assert told(wide, annotators="who1,who2") == [{"who1": "a", "who2": "b"}, {"who1": "a"}]


def test_columns_are_renamed(write):
    rows = [{"task": 1, "worker": "w", "answer": 3.0}, {"task": 1, "worker": "v", "answer": True}]
    found = told(write(rows), item="task", annotator="worker", label="answer")
    assert found == [{"w": "3", "v": "true"}]


def test_a_plain_list_names_nobody(write):
    votes, _ = read_votes(write([{"votes": ["a", "b", "b"]}, {"votes": [None, "a"]}]), {})
    assert votes.annotators == []
    assert votes.item == [0, 0, 0, 1]
    assert [votes.classes[label] for label in votes.label] == ["a", "b", "b", "a"]


def choice(chosen, rejected, who, prompt="Q"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "annotator": who}


def test_choices_between_the_same_two_responses_are_labels_of_one_item(write):
    rows = [choice("x", "y", "ada"), choice("y", "x", "ben"), choice("x", "z", "ada")]
    votes, _ = read_votes(write(rows), {})
    assert votes.item == [0, 0, 1]
    assert votes.cluster == [0, 0]
    assert votes.label[0] != votes.label[1]
    for (prompt, first, second), (item, label) in zip(
        [votes.pairs[0]], [(votes.item[0], votes.label[0])], strict=True
    ):
        assert item == 0
        assert (prompt, (first, second)[label]) == ("Q", "x")


def test_who_won_does_not_decide_which_response_is_the_first():
    rows = [choice(f"good {n}", f"bad {n}", "ada", f"Q{n}") for n in range(400)]
    votes = comparison_votes(rows, "x")
    assert 150 < sum(votes.label) < 250


def test_conversations_are_told_apart_too(write):
    def say(text):
        return [{"role": "user", "content": "Q"}, {"role": "assistant", "content": text}]

    rows = [
        {"chosen": say("x"), "rejected": say("y"), "annotator": "ada"},
        {"chosen": say("y"), "rejected": say("x"), "annotator": "ben"},
    ]
    votes, _ = read_votes(write(rows), {})
    assert votes.item == [0, 0]
    assert sorted(votes.label) == [0, 1]


def test_an_annotators_second_label_of_an_item_is_left_out_and_counted(write):
    rows = [choice("x", "y", "ada"), choice("y", "x", "ada"), choice("y", "x", "ben")]
    votes, _ = read_votes(write(rows), {})
    assert (votes.repeated, len(votes.label)) == (1, 2)


def test_rows_that_cannot_be_used_are_counted_with_their_place(write):
    rows = [choice("x", "y", "ada"), choice("x", "x", "ben"), choice("x", "y", "")]
    _, report = read_votes(write(rows), {})
    assert report.dropped == {"chosen equals rejected": 1, "annotator is missing": 1}
    assert report.first["annotator is missing"].endswith("x.jsonl:3")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"text": "x"}], "need a column votes"),
        ([{"annotator": "a", "label": "x"}], "identifies the item"),
        ([{"votes": "not json"}], "votes is not JSON"),
        ([{"votes": 3}], "neither a mapping nor a list"),
        ([{"votes": ["a", {"annotator": "b", "label": "c"}]}], "mixes labels"),
        ([{"votes": [{"annotator": "b"}]}], "without annotator and label"),
        ([{"item": 1, "annotator": None, "label": "a"}], "annotator is missing"),
        ([{"item": None, "annotator": "b", "label": "a"}], "item is missing"),
        ([{"votes": {}}], "no row has a label"),
        ([{"label_ada": None}], "no row has a label"),
    ],
)
def test_what_is_no_set_of_labels_is_refused_by_name(write, rows, complaint):
    with pytest.raises(DataError, match=complaint):
        read_votes(write(rows), {})


def test_unknown_columns_are_refused(write):
    source = write([{"votes": ["a"]}])
    with pytest.raises(UsageError, match="voter is not a label column"):
        read_votes(source, {"voter": "votes"})
    with pytest.raises(DataError, match="there is no column voters"):
        read_votes(source, {"votes": "voters"})
