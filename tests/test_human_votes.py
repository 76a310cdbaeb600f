"""Pairs for people, written blinded, and their votes put among a run's judges."""

import csv
import json
from dataclasses import replace

import pytest

from rlhfctl.errors import CheckpointError, DataError, UsageError
from rlhfctl.human_votes import check_votes_file, export_pairs, import_votes, read_votes
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from rlhfctl.run.staleness import output_changes

ANSWERS = [
    {"prompt": "What is 1 plus 1?", "ppo": "=HYPERLINK(1)", "opponent": "Two."},
    {"prompt": "Hello?", "ppo": 'Hi, "you"\nthere <script>', "opponent": "-1"},
    {"prompt": "Why?", "ppo": "Because.", "opponent": "@SUM(A1)"},
]


ENDPOINT = {
    "kind": "endpoint",
    "opponent": "sft",
    "refusals": 0,
    "unparsable": 0,
    "wins": 1,
    "ties": 1,
    "losses": 1,
    "prompts": 3,
    "warnings": [],
    "win_rate": 0.5,
}
RECORD = StageRecord(
    stage="eval",
    recipe_part={"evaluation": {"opponent": "sft"}},
    inputs={},
    outputs={},
    metrics={"prompts": 3, "policies": {}, "judges": {"endpoint": ENDPOINT}, "version": 1},
    versions={},
    seed=0,
    started="2026-01-01T00:00:00+00:00",
    seconds=1.0,
)


@pytest.mark.parametrize(
    "votes",
    ["[" * 9000 + "]" * 9000, '{"id": ["a"], "annotator": 1, "vote": {}}', '"\ud800"'],
    ids=len,
)
def test_votes_that_are_no_votes_are_refused_by_line(tmp_path, votes):
    file = tmp_path / "votes.jsonl"
    file.write_text(votes, errors="surrogatepass")
    with pytest.raises(DataError, match=r"votes\.jsonl"):
        read_votes(file, {"a": {}})


def test_a_cell_beyond_csvs_limit_is_refused(tmp_path):
    file = tmp_path / "votes.csv"
    file.write_text("id,annotator,vote\n" + "a" * 200_000 + ",b,c\n")
    with pytest.raises(DataError, match="no CSV"):
        read_votes(file, {"a": {}})


@pytest.mark.parametrize("line", ["[]", "{}", '{"prompt": 1}', "[" * 9000], ids=len)
@pytest.mark.parametrize("name", ["eval/answers.jsonl", "human_votes.jsonl"])
def test_a_damaged_line_of_the_runs_own_files_is_named(run, name, line):
    export_pairs(run, run.root / "pairs.csv")
    path = run.root / name
    path.write_text(f"{line}\n")
    with (run.root / "pairs.csv").open() as pairs:
        ids = [row["id"] for row in csv.DictReader(pairs)]
    (run.root / "votes.csv").write_text(f"id,annotator,vote\n{ids[0]},ann,a\n")
    with pytest.raises(CheckpointError, match=f"{name}:1"):
        import_votes(run, run.root / "votes.csv", 0)


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose evaluation wrote answers."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    folder = directory.stage("eval")
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(RECORD.metrics))
    (folder / "samples.jsonl").write_text("")
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ANSWERS))
    (directory.root / "recipe.yaml").write_text("name: run\n")
    outputs = {"eval": Artifact.of(folder, directory.root)}
    Manifest().with_stage(replace(RECORD, outputs=outputs)).save(directory.manifest)
    return directory


def rows(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def exported(run, name="pairs.jsonl"):
    export_pairs(run, run.root.parent / name)
    return rows(run.root.parent / name)


def voted(run, pairs, annotator, vote):
    lines = ["id,annotator,vote", *(f"{row['id']},{annotator},{vote(row)}" for row in pairs)]
    file = run.root.parent / "votes.csv"
    file.write_text("\n".join(lines))
    return import_votes(run, file, 0)


def for_ppo(run):
    sides = json.loads((run.root / "human_pairs_key.json").read_text())["ppo"]
    return lambda row: sides[row["id"]]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_pairs_are_written_whole_and_name_nobody(run, suffix):
    pairs = exported(run, f"pairs.{suffix}")
    assert [set(row) for row in pairs] == [{"id", "prompt", "response_a", "response_b"}] * 3
    known = {answer["prompt"]: {answer["ppo"], answer["opponent"]} for answer in ANSWERS}
    for row in pairs:
        shown = {row["response_a"], row["response_b"]}
        if suffix == "csv":
            assert not [text for text in shown if text[0] in "=+-@"]
            shown = {text.removeprefix("'") for text in shown}
        assert shown == known[row["prompt"]]
    text = (run.root.parent / f"pairs.{suffix}").read_text()
    assert "ppo" not in text
    assert "sft" not in text
    assert exported(run, f"pairs.{suffix}") == pairs


def test_votes_come_back_into_metrics_record_and_report(run):
    record = voted(run, exported(run), "ann", for_ppo(run))
    metrics = json.loads((run.stage("eval") / "metrics.json").read_text())
    humans = metrics["judges"]["humans"]
    assert (humans["wins"], humans["prompts"], humans["win_rate"]) == (3, 3, 1.0)
    assert metrics["judges"]["endpoint"] == ENDPOINT, "other judges stay"
    assert Manifest.load(run.manifest).stages["eval"] == record
    assert record.metrics == metrics
    assert output_changes(record, run) == []
    assert "humans" in run.report.read_text()


def test_a_second_voter_is_added_and_a_changed_mind_replaces(run):
    pairs = exported(run)
    voted(run, pairs, "ann", for_ppo(run))
    voted(run, pairs, "bob", lambda _: "tie")
    humans = voted(run, pairs[:1], "ann", lambda _: "Tie").metrics["judges"]["humans"]
    assert humans["annotators"]["labels"] == 6
    assert (humans["wins"], humans["ties"]) == (2, 1)
    assert humans["win_rate"] == pytest.approx((0.75 + 0.75 + 0.5) / 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,annotator,vote\npnot,ann,a\n", "'pnot'"),
        ("id,annotator,vote\nID,ann,maybe\n", "'maybe'"),
        ("id,annotator,vote\nID,,a\n", "annotator"),
        ("id,annotator,vote\nID,ann,\n", "no vote"),
        ("", "no vote"),
        ("\xff", "cannot be read"),
    ],
)
def test_what_is_no_vote_is_named_and_changes_nothing(run, content, words):
    first = exported(run)[0]["id"]
    before = run.manifest.read_bytes()
    file = run.root.parent / "votes.csv"
    file.write_bytes(content.replace("ID", first).encode("latin-1"))
    with pytest.raises(DataError, match=words) as raised:
        import_votes(run, file, 0)
    assert str(file) in raised.value.where
    assert run.manifest.read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_a_line_that_is_no_json_object_is_named(run, line):
    exported(run)
    file = run.root.parent / "votes.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(DataError) as raised:
        import_votes(run, file, 0)
    assert raised.value.where.endswith("votes.jsonl:2")


def test_votes_on_answers_that_are_no_longer_there_do_not_count(run):
    pairs = exported(run)
    voted(run, pairs, "ann", for_ppo(run))
    changed = [{**ANSWERS[0], "ppo": "Another."}, *ANSWERS[1:]]
    answers = run.stage("eval") / "answers.jsonl"
    answers.write_text("".join(f"{json.dumps(row)}\n" for row in changed))
    with pytest.raises(CheckpointError, match="no pairs were exported"):
        voted(run, pairs, "bob", for_ppo(run))
    again = exported(run)
    known = {row["id"]: row for row in pairs}
    assert sum(known.get(row["id"]) == row for row in again) == 2, "a pair keeps its sides"
    humans = voted(run, again[:1], "bob", for_ppo(run)).metrics["judges"]["humans"]
    assert humans["annotators"]["per_annotator"]["ann"]["labels"] == 2


def test_votes_before_any_pairs_a_damaged_key_and_other_files_are_refused(run):
    with pytest.raises(CheckpointError, match="no pairs were exported"):
        voted(run, [], "ann", None)
    with pytest.raises(UsageError):
        export_pairs(run, run.root / "absent" / "pairs.csv")
    (run.root / "human_pairs_key.json").write_text("{}")
    with pytest.raises(DataError, match="key"):
        exported(run)
    for name in ("pairs.xlsx", "pairs"):
        with pytest.raises(UsageError):
            check_votes_file(run.root / name, "--export-pairs")


def test_without_a_policy_there_is_nothing_to_vote_on(run):
    (run.stage("eval") / "answers.jsonl").unlink()
    with pytest.raises(CheckpointError, match="no pairs to vote on"):
        exported(run)
