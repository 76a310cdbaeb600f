"""Data sets as a recipe names them: checked, counted, and in two parts that share no prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from pydantic import ValidationError

from rlhfctl.data.sources import (
    evaluation_prompts,
    gold_comparisons,
    load_comparisons,
    load_demonstrations,
    load_prompts,
)
from rlhfctl.data.split import position, prompt_key
from rlhfctl.errors import DataError, EnvironmentFault, RecipeError, UnsafeError
from rlhfctl.recipe.schema import Recipe
from rlhfctl.world.steps import parse_steps


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recipe_of(seed=0, bad_rows="drop", **sections):
    return Recipe.model_validate(
        {"seed": seed, "data": {"bad_rows": bad_rows, "max_bad_fraction": 1.0, **sections}}
    )


def write(rows, name="x.jsonl"):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def keys(part: Dataset) -> set[str]:
    return {prompt_key(prompt) for prompt in part["prompt"]}


PAIRS = [{"prompt": f"Question {n}?", "completion": f" Answer {n}."} for n in range(40)]


class TestEmbedded:
    SMALL = {  # noqa: RUF012
        "demonstrations": {"max_rows": 300},
        "comparisons": {"max_rows": 300, "held_out": 0.2},
        "prompts": {"max_rows": 300},
    }

    def test_the_same_seed_gives_the_same_rows(self):
        one, two = (load_demonstrations(recipe_of(1, **self.SMALL)) for _ in range(2))
        other = load_demonstrations(recipe_of(2, **self.SMALL))
        assert one.train.to_list() == two.train.to_list() != other.train.to_list()

    def test_as_many_rows_as_asked_for_in_two_parts(self):
        split = load_comparisons(recipe_of(**self.SMALL))
        assert len(split.train) + len(split.held_out) == split.report.usable == 300
        columns = {"prompt", "chosen", "rejected", "annotator", "source"}
        assert set(split.train.column_names) == columns
        assert "unknown" in split.train["source"]

    def test_several_labels_a_pair_stay_on_one_side(self):
        comparisons = {"max_rows": 300, "held_out": 0.2, "labels_per_pair": 3}
        split = load_comparisons(recipe_of(**{**self.SMALL, "comparisons": comparisons}))
        assert len(split.train) + len(split.held_out) == 300
        assert len(keys(split.train)) * 3 == len(split.train)
        assert not keys(split.train) & keys(split.held_out)

    def test_no_stage_trains_on_what_the_policy_is_judged_by(self):
        recipe = recipe_of(**self.SMALL)
        judged = keys(evaluation_prompts(recipe)) | keys(gold_comparisons(recipe, 300))
        assert judged
        for load in (load_demonstrations, load_comparisons, load_prompts):
            split = load(recipe)
            assert not keys(split.train) & keys(split.held_out)
            assert not keys(split.train) & judged

    def test_the_source_names_the_task(self):
        section = {"source": "embedded:steps", "max_rows": 300}
        recipe = recipe_of(demonstrations=section, comparisons=section, prompts=section)
        loaded = [load(recipe) for load in (load_demonstrations, load_comparisons, load_prompts)]
        prompts = [prompt for split in loaded for prompt in split.train["prompt"]]
        prompts += gold_comparisons(recipe, 300)["prompt"]
        assert all(parse_steps(prompt[0]["content"]) for prompt in prompts)

    def test_an_unknown_task_is_refused(self):
        with pytest.raises(ValidationError, match="no task 'leaps'; choose from embedded,"):
            recipe_of(prompts={"source": "embedded:leaps"})


class TestJudging:
    def test_prompts_lie_below_the_smallest_share(self):
        source = write(PAIRS)
        recipe = recipe_of(
            demonstrations={"source": source, "held_out": 0.3},
            comparisons={"held_out": 0.4},
            prompts={"source": source, "held_out": 0.8},
        )
        judged = evaluation_prompts(recipe)
        assert len(judged)
        assert all(position(key) < 0.3 for key in keys(judged))

    def test_a_tiny_set_still_has_prompts_that_nobody_trains_on(self):
        demonstrations = write(PAIRS[:2], "d.jsonl")
        pairs = [
            {"prompt": row["prompt"], "chosen": " Yes.", "rejected": " No."} for row in PAIRS[:2]
        ]
        recipe = recipe_of(
            demonstrations={"source": demonstrations, "held_out": 0.001},
            comparisons={"source": write(pairs, "c.jsonl"), "held_out": 0.001},
            prompts={"source": demonstrations, "held_out": 0.001},
        )
        judged = keys(evaluation_prompts(recipe))
        assert len(judged) == 1
        assert not judged & keys(load_demonstrations(recipe).train)

    def test_none_left_is_an_error(self):
        pair = {"chosen": " Yes.", "rejected": " No."}
        both = [row["prompt"] for row in PAIRS[:2]]
        outside = min(both, key=lambda prompt: position(prompt_key(prompt)))
        other = min(
            (f"Else {n}?" for n in range(1000)), key=lambda prompt: position(prompt_key(prompt))
        )
        recipe = recipe_of(
            demonstrations={"source": write(PAIRS[:2], "d.jsonl"), "held_out": 1e-9},
            comparisons={
                "source": write([{"prompt": p, **pair} for p in (outside, other)], "c.jsonl"),
                "held_out": 1e-9,
            },
            prompts={"source": "d.jsonl", "held_out": 1e-9},
        )
        with pytest.raises(DataError, match="every prompt is trained on by some stage"):
            evaluation_prompts(recipe)


class TestRows:
    def test_bad_rows_are_counted_by_cause_with_the_first_place(self):
        bad = [{"prompt": "a", "completion": ""}] * 2 + [{"prompt": "a"}]
        split = load_demonstrations(recipe_of(demonstrations={"source": write(PAIRS + bad)}))
        assert split.report.dropped == {"empty response": 2, "completion is missing": 1}
        assert split.report.first["completion is missing"] == "x.jsonl:43"
        assert (split.report.read, split.report.usable) == (43, 40)

    @pytest.mark.parametrize(
        ("limit", "bad", "ends"), [(0.05, 1, False), (0.05, 2, True), (0, 1, True)]
    )
    def test_more_bad_rows_than_the_recipe_allows_end_it_with_the_counts(self, limit, bad, ends):
        rows = [{"prompt": f"{n}?", "completion": "Yes."} for n in range(20 - bad)]
        source = write(rows + [{"prompt": "a", "completion": ""}] * bad)
        recipe = recipe_of(demonstrations={"source": source}, max_bad_fraction=limit)
        if ends:
            with pytest.raises(DataError, match=f"{bad} of 20 rows cannot be used") as caught:
                load_demonstrations(recipe)
            assert caught.value.exit_code == 3
            assert "data.max_bad_fraction" in caught.value.hint
        else:
            summary = load_demonstrations(recipe).report.summary()
            assert summary.startswith("1 of 20 rows cannot be used (allowed: 5 %)")

    def test_bad_rows_end_it_where_the_recipe_says_so(self):
        source = write([*PAIRS, {"prompt": "a", "completion": ""}])
        with pytest.raises(DataError) as caught:
            load_demonstrations(recipe_of(bad_rows="refuse", demonstrations={"source": source}))
        said = "x.jsonl: 1 of 41 rows cannot be used: 1 empty response (first: x.jsonl:41)"
        assert str(caught.value).startswith(said)

    def test_a_set_of_which_nothing_is_left_is_an_error(self):
        source = write([{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3)
        with pytest.raises(DataError, match=r"no row is left; 3 of 3.*3 chosen equals rejected"):
            load_comparisons(recipe_of(comparisons={"source": source}))

    def test_text_and_messages_do_not_mix(self):
        talk = {
            "prompt": [{"role": "user", "content": "Q?"}],
            "completion": [{"role": "assistant", "content": "A."}],
        }
        split = load_demonstrations(recipe_of(demonstrations={"source": write([*PAIRS, talk])}))
        assert split.report.dropped == {"messages beside text": 1}

    def test_repeated_prompts_are_asked_once_and_are_no_fault(self):
        split = load_prompts(recipe_of(bad_rows="refuse", prompts={"source": write(PAIRS + PAIRS)}))
        assert (split.report.usable, split.report.duplicates) == (40, 40)

    def test_prompts_that_only_look_alike_are_all_kept(self):
        rows = [
            {"prompt": text} for n in range(6) for text in (f"Solve x{n}² = 9", f"Solve x{n}2 = 9")
        ]
        report = load_prompts(recipe_of(prompts={"source": write(rows)})).report
        assert (report.usable, report.duplicates) == (12, 0)

    def test_a_missing_margin_costs_no_row_unless_margins_are_used(self):
        pairs = [
            {"prompt": f"{n}?", "chosen": "a", "rejected": "b", "margin": 1.5 if n > 1100 else None}
            for n in range(1200)
        ]
        recipe = recipe_of(comparisons={"source": write(pairs)})
        assert load_comparisons(recipe).report.usable == 1200
        used = load_comparisons(recipe, margins=True).report
        assert used.dropped == {"margin is missing or not a number": 1101}

    def test_a_pair_without_a_common_beginning_is_counted(self):
        pairs = [{"chosen": f"Q{n}? Yes", "rejected": f"Q{n}? No"} for n in range(9)]
        source = write([*pairs, {"chosen": "It is.", "rejected": "No."}])
        report = load_comparisons(recipe_of(comparisons={"source": source})).report
        assert report.dropped == {"empty prompt: the two texts have no common beginning": 1}

    def test_chat_turns_text_beside_messages_into_one_format(self):
        talk = {"prompt": [{"role": "user", "content": "Q?"}], "completion": "A."}
        source = {"source": write([*PAIRS, talk]), "as_chat": True}
        split = load_demonstrations(recipe_of(demonstrations=source))
        assert split.report.usable == 41
        assert split.train[0]["prompt"][0]["role"] == "user"

    def test_plain_text_without_prompts_is_split_by_its_text(self):
        source = write([{"text": f"Line {n}"} for n in range(50)])
        split = load_demonstrations(recipe_of(demonstrations={"source": source, "held_out": 0.5}))
        assert set(split.train["prompt"]) == {""}
        assert not set(split.train["completion"]) & set(split.held_out["completion"])

    def test_transcripts_serve_all_three_stages(self):
        text = "\n\nHuman: Question {0}?\n\nAssistant: {1} {0}"
        source = write(
            [{"chosen": text.format(n, "Yes"), "rejected": text.format(n, "No")} for n in range(30)]
        )
        recipe = recipe_of(
            demonstrations={"source": source, "columns": {"text": "chosen"}},
            comparisons={"source": source},
            prompts={"source": source},
        )
        prompt = load_prompts(recipe).train[0]["prompt"]
        assert prompt.endswith("\n\nAssistant:")
        assert load_demonstrations(recipe).train[0]["completion"].startswith(" Yes")
        assert load_comparisons(recipe).train[0]["rejected"].startswith(" No")
        assert evaluation_prompts(recipe)["prompt"]

    def test_max_rows_are_drawn_by_the_seed(self):
        source = {"source": write(PAIRS), "max_rows": 10}
        drawn = [
            load_prompts(recipe_of(seed, prompts=source)).train.to_list() for seed in (1, 1, 2)
        ]
        assert drawn[0] == drawn[1] != drawn[2]
        assert load_prompts(recipe_of(prompts=source)).report.read == 10

    def test_max_rows_of_a_saved_set_keep_their_places(self):
        Dataset.from_list(PAIRS + [{"prompt": "a", "completion": ""}] * 40).save_to_disk("saved")
        report = load_demonstrations(
            recipe_of(demonstrations={"source": "saved", "max_rows": 40})
        ).report
        row = int(report.first["empty response"].removeprefix("saved:row "))
        assert 41 <= row <= 80


class TestColumns:
    def test_a_mapping_gives_our_name_for_the_source_s(self):
        source = write([{"question": row["prompt"], "prompt": "other"} for row in PAIRS])
        recipe = recipe_of(prompts={"source": source, "columns": {"prompt": "question"}})
        assert load_prompts(recipe).train[0]["prompt"].startswith("Question")

    def test_absent_columns_say_what_was_found_and_how_to_map(self):
        source = write([{"prompt": "a", "completions": "b"}])
        with pytest.raises(DataError) as caught:
            load_demonstrations(recipe_of(demonstrations={"source": source}))
        assert str(caught.value) == (
            "x.jsonl: demonstrations need the columns prompt + completion; or messages; or text; "
            "or those of alpaca, dolly, hh_rlhf, kto, oasst, question, sharegpt, ultrachat, "
            "ultrafeedback_binarized; found: prompt, "
            "completions\n"
            "for example data.demonstrations.columns: {completion: completions}"
        )

    def test_a_mapping_to_a_column_that_is_not_there_has_a_suggestion(self):
        recipe = recipe_of(
            prompts={"source": write([{"question": "a"}]), "columns": {"prompt": "questoin"}}
        )
        with pytest.raises(DataError, match="did you mean question"):
            load_prompts(recipe)

    def test_a_mapping_of_a_column_that_is_not_ours_is_a_recipe_error(self):
        recipe = recipe_of(prompts={"source": write(PAIRS), "columns": {"query": "prompt"}})
        with pytest.raises(RecipeError, match=r"data\.prompts\.columns: query is not a column"):
            load_prompts(recipe)


class TestHub:
    def test_an_offline_hub_is_an_environment_fault(self, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(EnvironmentFault) as caught:
            load_prompts(recipe_of(prompts={"source": "nobody/nothing-at-all"}))
        assert str(caught.value).startswith("nobody/nothing-at-all: HF_HUB_OFFLINE is set")
        assert "name a local file" in str(caught.value)

    def test_a_script_is_refused(self):
        with pytest.raises(UnsafeError):
            load_prompts(recipe_of(prompts={"source": "nobody/script.py"}))

    def test_what_is_neither_path_nor_id_is_a_data_error(self):
        with pytest.raises(DataError, match="neither a file"):
            load_prompts(recipe_of(prompts={"source": "two words"}))
