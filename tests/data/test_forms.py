"""Forms of public data sets: each file of the corpus in forms/ gives the rows that it stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from rlhfctl.data.files import read_local
from rlhfctl.data.form_table import DATA_FORMS, choose_form
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts, preview
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.recipe.schema import DatasetSection, Preset, Recipe

CORPUS = Path(__file__).parent / "forms"
LOADERS = {
    "demonstrations": load_demonstrations,
    "comparisons": load_comparisons,
    "prompts": load_prompts,
}


def read(kind, name, **section):
    """Return all rows of a file of the corpus, sorted by their text, and the row counts."""
    source = {"source": str(CORPUS / name), "held_out": 0.5, **section}
    split = LOADERS[kind](Recipe.model_validate({"data": {kind: source, "max_bad_fraction": 1.0}}))
    rows = [*split.train.to_list(), *split.held_out.to_list()]
    return sorted(rows, key=str), split.report


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def alpaca(instruction, more=""):
    """Stanford Alpaca's template, as in the column `text` of its data."""
    context = f"### Input:\n{more}\n\n" if more else ""
    pairing = ", paired with an input that provides further context" if more else ""
    return (
        f"Below is an instruction that describes a task{pairing}. Write a response that "
        f"appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n{context}"
        "### Response:\n"
    )


HH = "\n\nHuman: Name a fruit.\n\nAssistant: Apple.\n\nHuman: And a red one?\n\nAssistant:"
HH_CHAT = [user("Name a fruit."), assistant("Apple."), user("And a red one?")]
POST = "SUBREDDIT: r/advice\n\nTITLE: Bike gone\n\nPOST: My bike was stolen.\n\nTL;DR:"

NUT_CHAT = [user("Name a nut."), assistant("Hazel."), user("Another?")]
SUMMARY = " Bike stolen, what now?"

PRESETS: dict[tuple[str, str, str], list[dict[str, object]]] = {
    ("hh_rlhf", "demonstrations", "hh_rlhf.jsonl"): [{"prompt": HH, "completion": " Cherry."}],
    ("hh_rlhf", "comparisons", "hh_rlhf.jsonl"): [
        {"prompt": HH, "chosen": " Cherry.", "rejected": " Lemon."}
    ],
    ("hh_rlhf", "prompts", "hh_rlhf.jsonl"): [{"prompt": HH}],
    ("ultrafeedback_binarized", "demonstrations", "ultrafeedback_binarized.jsonl"): [
        {"prompt": [user("Name a fruit.")], "completion": [assistant("Apple.")]}
    ],
    ("ultrafeedback_binarized", "comparisons", "ultrafeedback_binarized.jsonl"): [
        {
            "prompt": [user("Name a fruit.")],
            "chosen": [assistant("Apple.")],
            "rejected": [assistant("Nail.")],
            "margin": 6.0,
        }
    ],
    ("ultrafeedback_binarized", "prompts", "ultrafeedback_binarized.jsonl"): [
        {"prompt": [user("Name a fruit.")]}
    ],
    ("tldr", "demonstrations", "tldr.jsonl"): [{"prompt": POST, "completion": SUMMARY}],
    ("tldr", "comparisons", "tldr_preference.jsonl"): [
        {"prompt": POST, "chosen": SUMMARY, "rejected": " Bike lost."}
    ],
    ("tldr", "prompts", "tldr.jsonl"): [{"prompt": POST}],
    ("reward_bench", "comparisons", "reward_bench.jsonl"): [
        {
            "prompt": "Name a fruit.",
            "chosen": "Apple.",
            "rejected": "Nail.",
            "source": "alpacaeval-easy",
        }
    ],
    ("reward_bench", "comparisons", "reward_bench_2.jsonl"): [
        {
            "prompt": "Name a berry.",
            "chosen": berry,
            "rejected": "Rail.",
            "source": "Ties",
            "weight": 0.5,
        }
        for berry in ("Currant.", "Acai.")
    ],
    ("reward_bench", "prompts", "reward_bench_2.jsonl"): [{"prompt": "Name a berry."}],
}
FOUND: dict[tuple[str, str], list[dict[str, object]]] = {
    ("helpsteer2", "comparisons"): [
        {
            "prompt": [user("Name a fruit.")],
            "chosen": [assistant("Apple.")],
            "rejected": [assistant("Nail.")],
            "margin": 2.0,
        },
        {
            "prompt": NUT_CHAT,
            "chosen": [assistant("Pecan.")],
            "rejected": [assistant("Rock.")],
            "margin": 3.0,
        },
    ],
    ("helpsteer2", "prompts"): [{"prompt": NUT_CHAT}],
    ("helpsteer3", "comparisons"): [
        {
            "prompt": [user("Name a fruit.")],
            "chosen": [assistant("Apple.")],
            "rejected": [assistant("Nail.")],
            "margin": 1.0,
        },
        {
            "prompt": NUT_CHAT,
            "chosen": [assistant("Pecan.")],
            "rejected": [assistant("Rock.")],
            "margin": 2.0,
        },
    ],
    ("helpsteer3", "prompts"): [{"prompt": NUT_CHAT}],
}


@pytest.mark.parametrize(("preset", "kind", "name"), PRESETS)
def test_a_preset_of_a_public_set(preset, kind, name):
    rows, report = read(kind, name, preset=preset)
    for row in rows:
        row.pop("source_row", None)
    assert all(row in rows for row in PRESETS[preset, kind, name])
    assert report.dropped == {}


@pytest.mark.parametrize(("preset", "kind"), FOUND)
def test_helpsteer_is_found_by_its_columns(preset, kind):
    rows, report = read(kind, f"{preset}.jsonl")
    for row in rows:
        row.pop("source_row", None)
    assert all(row in rows for row in FOUND[preset, kind])
    assert (report.dropped, report.left_out) == (
        {},
        {"tied vote": 1} if kind == "comparisons" else {},
    )


def test_the_preset_of_transcripts_refuses_other_text(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"chosen": "a b", "rejected": "a c"}\n')
    with pytest.raises(DataError, match="chosen is no transcript of Human: and Assistant: turns"):
        read("comparisons", "", source=str(tmp_path / "x.jsonl"), preset="hh_rlhf")


DEMONSTRATIONS = {
    ("sharegpt.jsonl", False): (
        [user("Name a berry.")],
        [assistant("Currant.")],
        {"messages has a function_call that is not JSON with a name and arguments": 1},
        {},
    ),
    ("alpaca.jsonl", False): (alpaca("Name a fruit."), "Apple.", {}, {}),
    ("alpaca.jsonl", True): ([user("Name a fruit.")], [assistant("Apple.")], {}, {}),
    ("dolly.jsonl", False): (
        alpaca("When was it built?", "The tower was built in 1889."),
        "In 1889.",
        {},
        {},
    ),
    ("dolly.jsonl", True): (
        [user("When was it built?\n\nThe tower was built in 1889.")],
        [assistant("In 1889.")],
        {},
        {},
    ),
    ("question.jsonl", False): ("Name a fruit.\n\n", "Apple.", {}, {}),
    ("question.jsonl", True): (
        [{"role": "system", "content": "Be brief."}, user("Name a fruit.")],
        [assistant("Apple.")],
        {},
        {},
    ),
    ("content_parts.jsonl", False): (
        [user("Name a fruit.")],
        [assistant("Apple.")],
        {"messages has a content part of type image_url; only text is read": 1},
        {},
    ),
    ("kto.jsonl", False): (
        "Name a fruit.",
        " Pear.",
        {},
        {"undesirable response (label false)": 1},
    ),
    ("ultrafeedback_binarized.jsonl", False): (
        [user("Name a fruit.")],
        [assistant("Apple.")],
        {},
        {},
    ),
    ("ultrachat_200k.jsonl", False): (
        [user("Name a fruit."), assistant("Apple."), user("Another?")],
        [assistant("Pear.")],
        {},
        {},
    ),
    ("ultrachat.jsonl", False): (
        [user("Name a fruit."), assistant("Apple."), user("Another?")],
        [assistant("Pear.")],
        {},
        {},
    ),
    ("oasst.jsonl", False): (
        [user("Name a fruit."), assistant("Apple."), user("Another?")],
        [assistant("Pear.")],
        {"the message that parent_id names is not in the data": 1},
        {"reply that is not ranked first": 2},
    ),
    ("conversations.csv", False): (
        [user("Name a berry.")],
        [assistant("It's a currant.")],
        {"messages looks like a conversation as text, but is neither JSON nor a Python list": 1},
        {},
    ),
}


@pytest.mark.parametrize(("name", "as_chat"), DEMONSTRATIONS)
def test_demonstrations(name, as_chat):
    prompt, completion, dropped, left_out = DEMONSTRATIONS[name, as_chat]
    rows, report = read("demonstrations", name, as_chat=as_chat)
    assert {"prompt": prompt, "completion": completion} in rows
    assert (report.dropped, report.left_out) == (dropped, left_out)
    assert report.usable == len(rows)


COMPARISONS = {
    ("hh_rlhf.jsonl", False): (HH, " Cherry.", " Lemon.", {}),
    ("hh_rlhf.jsonl", True): (HH_CHAT, [assistant("Cherry.")], [assistant("Lemon.")], {}),
    ("sharegpt_pairs.jsonl", False): (
        [user("Name a fruit.")],
        [assistant("Apple.")],
        [assistant("Nail.")],
        {},
    ),
    ("kto.jsonl", False): (
        "Name a fruit.",
        " Apple.",
        " Nail.",
        {"response without one of the other label to its prompt": 1},
    ),
    ("pandalm.jsonl", False): (
        alpaca("Translate.", "apple"),
        "Apfel",
        "Apple",
        {"tied vote": 1},
    ),
    ("ranking.jsonl", False): ("Name a fruit.", " Apple.", " Fruit.", {"pair of equal rank": 1}),
    ("ranking.csv", False): ("Name a nut.", " Pecan.", " Rock.", {}),
    ("nectar.jsonl", True): (
        [user("Name a nut.")],
        [assistant("Pecan.")],
        [assistant("Rock.")],
        {},
    ),
    ("ultrafeedback.jsonl", False): (
        alpaca("Name a nut."),
        "Hazel.",
        "Rock.",
        {"pair of equal rank": 1},
    ),
    ("ultrafeedback_binarized.jsonl", False): (
        [user("Name a fruit.")],
        [assistant("Apple.")],
        [assistant("Nail.")],
        {},
    ),
    ("summarize_from_feedback.jsonl", False): (
        POST,
        " Bike stolen, what now?",
        " Bike lost.",
        {},
    ),
    ("question_pairs.jsonl", True): (
        [{"role": "system", "content": "Be brief."}, user("Name a fruit.")],
        [assistant("The answer is apple.")],
        [assistant("The answer is nail.")],
        {},
    ),
    ("shp.jsonl", False): ("Is rice gluten free?\n\n", "Yes.", "Eh.", {}),
    ("shp.jsonl", True): (
        [user("How long do eggs take?")],
        [assistant("Eight minutes.")],
        [assistant("No idea.")],
        {},
    ),
    ("arena.jsonl", False): (
        [user("Name a berry.")],
        [assistant("Currant.")],
        [assistant("Rail.")],
        {"tied vote": 1},
    ),
}


@pytest.mark.parametrize(("name", "as_chat"), COMPARISONS)
def test_comparisons(name, as_chat, tmp_path):
    prompt, chosen, rejected, left_out = COMPARISONS[name, as_chat]
    if name == "kto.jsonl":  # pairs are of one prompt, which cannot be split
        other = "".join(
            json.dumps({"prompt": "Else?", "completion": " " + label, "label": label}) + "\n"
            for label in ("True", "False")
        )
        text = (CORPUS / name).read_text() + other
        (tmp_path / name).write_text(text)
        rows, report = read("comparisons", name, source=str(tmp_path / name))
    else:
        rows, report = read("comparisons", name, as_chat=as_chat)
    core = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
    assert {"prompt": prompt, "chosen": chosen, "rejected": rejected} in core
    assert (report.dropped, report.left_out) == ({}, left_out)


def test_oasst_compares_ranked_replies():
    section = DatasetSection(source=str(CORPUS / "oasst.jsonl"))
    seen = preview(section, "comparisons")
    assert seen is not None
    assert (seen.form, seen.messages, seen.report.usable) == ("oasst", True, 3)


def test_pairs_of_a_ranking_share_a_weight_of_one():
    rows, _ = read("comparisons", "ranking.jsonl")
    weights: dict[str, list[float]] = {}
    for row in rows:
        weights.setdefault(row["prompt"], []).append(row["weight"])
    assert weights == {
        "Name a fruit.": [pytest.approx(1 / 3)] * 3,
        "Name a berry.": [1.0],
        "Name a nut.": [0.5] * 2,
    }


def test_votes_of_one_item_are_labels_of_one_pair():
    rows, report = read("comparisons", "pandalm.jsonl")
    votes = [(row["annotator"], row["chosen"]) for row in rows if "Translate" in row["prompt"]]
    assert sorted(votes) == [
        ("annotator1", "Apfel"),
        ("annotator2", "Apfel"),
        ("annotator3", "Apple"),
    ]
    assert (report.read, report.usable) == (6, 5)


PROMPTS = {
    "hh_rlhf.jsonl": HH,
    "sharegpt.jsonl": [user("Name a berry."), assistant("Currant."), user("Thanks!")],
    "alpaca.jsonl": alpaca("Name a fruit."),
    "dolly.jsonl": alpaca("When was it built?", "The tower was built in 1889."),
    "kto.jsonl": "Name a fruit.",
    "pandalm.jsonl": alpaca("Translate.", "apple"),
    "ranking.jsonl": "Name a fruit.",
    "ultrafeedback.jsonl": alpaca("Name a nut."),
    "ultrafeedback_binarized.jsonl": [user("Name a fruit.")],
    "ultrachat.jsonl": [user("Name a fruit."), assistant("Apple."), user("Another?")],
    "summarize_from_feedback.jsonl": POST,
    "shp.jsonl": "Is rice gluten free?\n\n",
    "arena.jsonl": [user("Name a berry.")],
    "oasst.jsonl": [user("Name a fruit."), assistant("Apple."), user("Another?")],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name):
    rows, _ = read("prompts", name)
    assert PROMPTS[name] in [row["prompt"] for row in rows]


def test_the_recipe_names_every_form():
    names = {form.name for forms in DATA_FORMS.values() for form in forms}
    assert set(get_args(Preset)) == names


def test_a_preset_forces_a_form():
    rows, report = read("demonstrations", "kto.jsonl", preset="trl")
    assert (len(rows), report.left_out) == (4, {})
    with pytest.raises(
        DataError, match="demonstrations of preset dolly need the columns instruction"
    ):
        read("demonstrations", "kto.jsonl", preset="dolly")


def test_a_preset_of_another_kind_is_a_recipe_error():
    with pytest.raises(RecipeError, match="preset pandalm has no demonstrations"):
        read("demonstrations", "pandalm.jsonl", preset="pandalm")


def test_a_class_label_is_not_a_verdict(tmp_path):
    lines = [f'{{"prompt": "{n}?", "completion": "a", "label": "science"}}\n' for n in range(4)]
    (tmp_path / "x.jsonl").write_text("".join(lines))
    _, report = read("demonstrations", "x.jsonl", source=str(tmp_path / "x.jsonl"))
    assert (report.usable, report.left_out) == (4, {})


def test_columns_are_found_in_any_case_and_with_spaces(tmp_path):
    (tmp_path / "x.csv").write_text(" Prompt ,COMPLETION\na,b\nc,d\n")
    raw = read_local(str(tmp_path / "x.csv"), "train")
    chosen = choose_form("demonstrations", raw, {})
    assert chosen.columns == {"prompt": "Prompt", "completion": "COMPLETION"}


def test_rows_that_depend_on_each_other_are_limited_after_pairing(tmp_path):
    lines = []
    for tree in range(9):
        root = {"message_id": f"{tree}", "parent_id": "", "role": "prompter", "text": f"{tree}?"}
        reply = {"message_id": f"{tree}a", "parent_id": f"{tree}", "role": "assistant", "text": "a"}
        lines += [json.dumps(root) + "\n", json.dumps(reply) + "\n"]
    (tmp_path / "x.jsonl").write_text("".join(lines))
    _, report = read("demonstrations", "", source=str(tmp_path / "x.jsonl"), max_rows=6)
    assert (report.read, report.usable) == (6, 6)
