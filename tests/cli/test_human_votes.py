"""`eval --export-pairs` and `--import-votes` by real processes."""

import csv
import json


def test_pairs_go_out_and_votes_come_back(tiny, folder):
    run = folder / "runs" / "small"
    done = tiny("run", "small.yaml", act="eval:answers")
    assert done.returncode == 0, done.stderr
    done = tiny("eval", "small.yaml", "--export-pairs", "pairs.csv")
    assert "3 pairs written to pairs.csv" in done.stderr
    with (folder / "pairs.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    votes = [json.dumps({"id": id_, "annotator": "ann", "vote": "tie"}) for id_ in ids]
    (folder / "votes.jsonl").write_text("\n".join(votes))
    done = tiny("eval", "small.yaml", "--import-votes", "votes.jsonl", "--json")
    assert "votes on this evaluation: 3" in done.stderr
    shown = json.loads(done.stdout)["stages"][-1]["metrics"]
    assert shown == json.loads((run / "eval" / "metrics.json").read_text())
    assert shown["judges"]["humans"]["ties"] == 3
    again = tiny("eval", "small.yaml", "--import-votes", "votes.xlsx")
    assert again.returncode == 2
    assert "up to date" in tiny("eval", "small.yaml").stderr
