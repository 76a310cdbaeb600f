import hashlib
import json
import os
import subprocess
import sys

import pytest

from rlhfctl.errors import DataError
from rlhfctl.world import corpora
from rlhfctl.world.annotator_panel import PANEL
from rlhfctl.world.gold import gold_features, gold_reward
from rlhfctl.world.tasks import EVERYDAY, STEPS

TASKS = (EVERYDAY, STEPS)
MAKERS = ("demonstrations", "comparisons", "gold_comparisons", "prompts")


def digest(name: str, seed: int) -> str:
    rows = getattr(corpora, name)(150, seed)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_alone_decides_the_rows(name):
    assert digest(name, 5) == digest(name, 5)
    assert digest(name, 5) != digest(name, 6)


def test_another_process_with_another_hash_seed_makes_the_same_bytes():
    code = (
        "import hashlib, json\n"
        "from rlhfctl.world import corpora\n"
        f"for name in {MAKERS!r}:\n"
        "    rows = getattr(corpora, name)(150, 5)\n"
        "    print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [digest(name, 5) for name in MAKERS]


@pytest.mark.parametrize("name", MAKERS)
def test_no_prompt_comes_twice_and_the_count_is_kept(name):
    rows = getattr(corpora, name)(1_500, 1)
    prompts = {" ".join(row["prompt"][0]["content"].lower().split()) for row in rows}
    assert len(rows) == len(prompts) == 1_500


def test_a_longer_set_begins_with_the_shorter_one():
    assert corpora.comparisons(40, 2)[:20] == corpora.comparisons(20, 2)


def test_there_are_twenty_thousand_distinct_texts():
    rows = corpora.demonstrations(21_000, 0)
    texts = {(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows}
    assert len(texts) >= 20_000


@pytest.mark.parametrize("task", TASKS, ids=["everyday", "steps"])
def test_demonstrations_are_mixed(task):
    seen = [
        gold_features(row["prompt"][0]["content"], row["completion"][0]["content"])
        for row in corpora.demonstrations(2_000, 3, task)
    ]
    right = sum(features.correctness == 1.0 for features in seen) / len(seen)
    assert 0.65 <= right <= 0.76
    assert sum(features.excess_words > 0 for features in seen) / len(seen) > 0.3


@pytest.mark.parametrize("task", TASKS, ids=["everyday", "steps"])
def test_comparisons_are_conversations_labelled_by_the_panel(task):
    rows = corpora.comparisons(600, 3, task=task)
    assert {row["annotator"] for row in rows} == {annotator.name for annotator in PANEL}
    for row in rows:
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert [message["role"] for message in row["chosen"]] == ["assistant"]
        assert row["chosen"] != row["rejected"]


def test_several_labels_a_pair_come_from_different_annotators():
    rows = corpora.comparisons(200, 3, labels_per_pair=3)
    assert len(rows) == 600
    for at in range(0, 600, 3):
        same = rows[at : at + 3]
        assert len({row["annotator"] for row in same}) == 3
        texts = [{row["chosen"][0]["content"], row["rejected"][0]["content"]} for row in same]
        assert texts[0] == texts[1] == texts[2]
        assert same[0]["prompt"] == same[1]["prompt"] == same[2]["prompt"]


def test_one_label_a_pair_stays_what_it_was_byte_for_byte():
    whole = hashlib.sha256(json.dumps(corpora.comparisons(150, 5)).encode()).hexdigest()
    assert whole == "1d859281190d1c36d856cddffac7a3e03e01e1eba247c084060f224c8e4da489"


@pytest.mark.parametrize("labels", [0, len(PANEL) + 1])
def test_more_labels_than_annotators_are_refused(labels):
    with pytest.raises(DataError, match="6 annotators"):
        corpora.comparisons(10, 0, labels)


@pytest.mark.parametrize("task", TASKS, ids=["everyday", "steps"])
def test_gold_comparisons_are_ordered_by_a_clear_margin_and_carry_no_annotator(task):
    for row in corpora.gold_comparisons(600, 3, task):
        assert "annotator" not in row
        prompt = row["prompt"][0]["content"]
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert gold_reward(prompt, chosen) - gold_reward(prompt, rejected) >= 0.25


@pytest.mark.parametrize("task", TASKS, ids=["everyday", "steps"])
def test_an_impossible_number_of_rows_is_refused(task):
    for count in (-1, task.most_rows + 1):
        with pytest.raises(DataError, match="embedded world makes"):
            corpora.prompts(count, 0, task)
