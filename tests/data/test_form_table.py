"""No column that holds a part of the prompt goes unread without a word."""

import json

import pytest

from rlhfctl.data.sources import preview
from rlhfctl.recipe.schema import DatasetSection
from tests.data.test_forms import read


def test_the_question_of_a_pair_is_read_even_where_its_answers_begin_alike():
    rows, report = read("comparisons", "question_pairs.jsonl")
    assert [row["prompt"] for row in rows] == ["Name a fruit.\n\n", "Name a nut.\n\n"]
    note = "1 rows have a system text, which plain text leaves out"
    assert any(remark.startswith(note) for remark in report.notes)


def test_columns_that_nothing_reads_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"id": n, "query": f"{n}?", "chosen": f"{n} is so.", "rejected": f"{n} is not."}
        for n in (1, 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, report = read("comparisons", "", source=str(path))
    assert report.notes == ("columns that are not read: id, query",)
    # Reward functions may read any column of a prompt; its own text may not go unread.
    _, report = read("prompts", "", source=str(path))
    assert report.notes == ("columns that are not read: query",)
    seen = preview(DatasetSection(source=str(path)), "comparisons")
    assert seen is not None
    assert seen.report.notes == ("columns that are not read: id, query",)


PAIR = {"prompt": "Human: 1?", "chosen": "Human: 1? Yes.", "rejected": "Human: 1? No."}
OTHER = {"prompt": "Human: 2?", "chosen": "Human: 2? Yes.", "rejected": "Human: 2? No."}


@pytest.mark.parametrize("keys", [{}, {"preset": "trl"}])
def test_responses_that_repeat_their_prompt_are_read_without_it(keys, tmp_path):
    path = tmp_path / "rows.jsonl"

    def rows_of(*rows, kind="comparisons"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read(kind, "", source=str(path), **keys)

    rows, report = rows_of(PAIR, OTHER)
    assert [row["chosen"] for row in rows] == [" Yes.", " Yes."]
    assert report.notes == ("responses repeat their prompt, which is read once",)
    # One that does not: then the others begin like their prompt by chance.
    rows, report = rows_of(PAIR, OTHER | {"rejected": "No."})
    assert [row["chosen"] for row in rows] == [PAIR["chosen"], OTHER["chosen"]]
    assert report.notes == ()
    answers = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in (PAIR, OTHER)]
    rows, _ = rows_of(*answers, kind="demonstrations")
    assert [row["completion"] for row in rows] == [" Yes.", " Yes."]


def test_a_system_column_is_the_system_message_and_a_number_in_it_is_none(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"system": text, "prompt": f"{n}?", "completion": "Yes."} for n, text in enumerate(("s", 3))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both, report = read("demonstrations", "", source=str(path), as_chat=True)
    assert sorted(len(row["prompt"]) for row in both) == [1, 2]
    assert report.dropped == {}
    note = "1 rows have a system text, which is the system message of their conversation"
    assert report.notes == (note,)
