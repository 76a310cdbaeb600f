"""Files of LLaMA-Factory as recipes: values, data, merging, and what is refused."""

from pathlib import Path

import pytest

from rlhfctl.errors import DataError, RecipeError, UsageError
from rlhfctl.migration import migrate
from rlhfctl.recipe.schema import Recipe
from tests.migration.examples import BASE, LLAMAFACTORY, changed, write_llamafactory

ALL = ("sft", "reward", "ppo")


@pytest.fixture
def migrated(tmp_path, monkeypatch):
    """Return a function that migrates example files with other values of some keys."""
    monkeypatch.chdir(tmp_path)

    def run(*stages, **changes):
        write_llamafactory(tmp_path, *stages, **changes)
        return migrate([tmp_path.relative_to(tmp_path) / f"{stage}.yaml" for stage in stages], "x")

    return run


def outcome(migration, key, file=None):
    (one,) = {
        (outcome.kind, outcome.reason)
        for source in migration.sources
        for outcome in source.outcomes
        if outcome.key == key and file in (None, source.name)
    }
    return one


def test_three_files_become_one_recipe(migrated):
    recipe = migrated(*ALL).recipe
    assert recipe.model.name_or_path == BASE
    assert recipe.model.dtype == "bfloat16"
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (8, 16, 0.0)
    assert recipe.lora.target_modules == "all-linear"
    assert recipe.seed == 42
    for section in (recipe.sft, recipe.reward_model):
        rows = section.per_device_train_batch_size * section.gradient_accumulation_steps
        assert (rows, section.learning_rate, section.num_train_epochs) == (8, 1e-4, 3.0)
        assert (section.max_length, section.lr_scheduler_type) == (2048, "cosine")
        assert (section.warmup_ratio, section.gradient_checkpointing) == (0.1, True)
        assert (section.logging_steps, section.save_steps) == (10, 500)
    assert recipe.sft.assistant_turns == "all"


def test_ppo_has_the_batches_controller_and_lengths_of_its_trainer(migrated):
    recipe = migrated(*ALL, ppo={"ppo_buffer_size": 4, "ppo_target": 3.0, "ppo_epochs": 2}).recipe
    ppo = recipe.ppo
    assert (ppo.forward_batch_size, ppo.minibatch_size, ppo.rollout_batch_size) == (1, 8, 32)
    assert (ppo.learning_rate, ppo.value_learning_rate) == (1e-5, 1e-5)
    # Three passes over at most 1,000 rows of each of two data sets; a tenth of the rollouts.
    assert (ppo.episodes, ppo.warmup_rollouts) == (6000, round(0.1 * 188))
    # TRL 0.9: init_kl_coef 0.2, target 6 or ppo_target, horizon 10000.
    assert (ppo.beta, ppo.kl_controller.target, ppo.kl_controller.horizon) == (0.2, 3.0, 10_000)
    assert (ppo.epochs, ppo.adam_beta2, ppo.save_rollouts) == (2, 0.999, 500)
    # AutoModelForCausalLMWithValueHead; TRL 0.9: vf_coef 0.1.
    assert (ppo.critic, ppo.vf_coef) == ("head", 0.1)
    generation = recipe.generation
    assert (generation.max_prompt_length, generation.max_new_tokens) == (2048, 512)
    assert generation.temperature == 0.95


def test_the_data_are_those_of_dataset_info(migrated):
    data = migrated(*ALL).recipe.data
    form = {"preset": "alpaca", "as_chat": True, "max_rows": 1000}
    for section in (data.demonstrations, data.prompts):
        assert [part.source for part in section.sources] == [
            *("data/identity.json", "data/alpaca_en_demo.json")
        ]
        for part in section.sources:
            assert part.model_dump(include={*form}) == form
            assert part.weight is None
    assert data.comparisons.source == "data/dpo_en_demo.json"
    assert (data.comparisons.preset, data.comparisons.columns) == ("sharegpt", {})


@pytest.mark.parametrize(
    ("changes", "section"),
    [
        # A column named input would be read beside the instruction of the alpaca form.
        (
            {"dataset": "webqa", "max_samples": None},
            {
                "source": "suolyer/webqa",
                "preset": "trl",
                "as_chat": True,
                "columns": {"prompt": "input", "completion": "output"},
            },
        ),
        (
            {"dataset": "chat", "val_size": 0.2},
            {
                "source": "org/chat",
                "config": "en",
                "split": "train_sft",
                "preset": "sharegpt",
                "columns": {"conversations": "messages"},
                "max_rows": 1000,
                "held_out": 0.2,
            },
        ),
        ({"dataset_dir": "ONLINE", "dataset": "org/rows"}, {"source": "org/rows"}),
        ({"dataset": "identity", "template": "alpaca"}, {"as_chat": False, "preset": "alpaca"}),
    ],
)
def test_a_data_set_keeps_its_columns_part_and_share(migrated, changes, section):
    read = migrated("sft", sft=changes).recipe.data.demonstrations.model_dump()
    assert {key: read[key] for key in section} == section


def test_rank_stabilised_adapters_and_noise_are_read(migrated):
    recipe = migrated("sft", sft={"use_rslora": True, "neftune_noise_alpha": 5}).recipe
    assert recipe.lora.use_rslora
    assert recipe.sft.neftune_noise_alpha == 5.0


def test_shares_of_data_sets_become_weights(migrated):
    changes = {"mix_strategy": "interleave_over", "interleave_probs": "0.3,0.7"}
    section = migrated("sft", sft=changes).recipe.data.demonstrations
    assert [part.weight for part in section.sources] == [0.3, 0.7]
    assert section.oversample


def test_columns_tags_and_keys_without_a_counterpart_are_named(migrated):
    migration = migrated("sft", sft={"dataset": "chat", "use_dora": True})
    kind = "unsupported"
    assert outcome(migration, "dataset_info.json: chat.columns.images")[0] == kind
    assert outcome(migration, "dataset_info.json: chat.tags.user_tag")[0] == kind
    assert outcome(migration, "use_dora")[0] == kind


def test_every_key_has_one_outcome(migrated):
    changes = {"lora_rnk": 4, "use_dora": False, "swanlab_api_key": "secret", "val_size": 100}
    migration = migrated(*ALL, sft=changes)
    for source in migration.sources:
        keys = [one.key for one in source.outcomes if one.kind != "default"]
        assert sorted(keys) == sorted(source.values)
    assert outcome(migration, "lora_rnk") == ("unknown", "did you mean lora_rank?")
    assert outcome(migration, "use_dora") == ("left_out", "off, as in rlhfctl")
    assert outcome(migration, "val_size")[0] == "unsupported"
    assert "pinned" not in outcome(migration, "trust_remote_code")[1]


def test_the_reward_model_of_another_file_is_the_runs_own(migrated):
    assert outcome(migrated(*ALL), "reward_model") == ("mapped", "the run's own, of train-rm")


def test_a_reward_model_from_elsewhere_is_named_as_left_out(migrated):
    migration = migrated("sft", "ppo", ppo={"reward_model_type": "api"})
    assert outcome(migration, "reward_model")[0] == "unsupported"
    assert "protocol" in outcome(migration, "reward_model_type")[1]
    assert migration.missing == ("comparisons",)
    assert migration.recipe.data.comparisons.is_embedded


def test_prompts_are_those_of_the_demonstrations_where_no_file_names_any(migrated):
    migration = migrated("sft", sft={"dataset": "webqa"})
    assert migration.recipe.data.prompts.source == "suolyer/webqa"
    assert migration.recipe.data.prompts.columns == {"prompt": "input"}


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"quantization_bit": 4}, lambda recipe: recipe.model.quantization == "4bit"),
        ({"finetuning_type": "full"}, lambda recipe: recipe.lora is None),
        ({"lora_alpha": 64}, lambda recipe: recipe.lora.alpha == 64),
        ({"lora_target": "q_proj,v_proj"}, lambda recipe: len(recipe.lora.target_modules) == 2),
        ({"mask_history": True}, lambda recipe: recipe.sft.assistant_turns == "last"),
        ({"packing": True}, lambda recipe: recipe.sft.packing),
        ({"flash_attn": "sdpa"}, lambda recipe: recipe.model.attn_implementation == "sdpa"),
        ({"report_to": "wandb"}, lambda recipe: recipe.tracking.report_to == ["wandb"]),
        (
            {"disable_gradient_checkpointing": True},
            lambda recipe: not recipe.sft.gradient_checkpointing,
        ),
        ({"learning_rate": None}, lambda recipe: recipe.sft.learning_rate == 5e-5),
        ({"adapter_name_or_path": "a"}, lambda recipe: recipe.sft.init_from == "a"),
        (
            {"trust_remote_code": True, "model_revision": "0" * 40},
            lambda recipe: recipe.model.trust_remote_code,
        ),
    ],
)
def test_a_key_sets_what_it_means(migrated, changes, read):
    assert read(migrated("sft", sft=changes).recipe)


def test_a_file_of_dpo_sets_the_stage_dpo(migrated):
    changes = {"stage": "dpo", "pref_beta": 0.3, "pref_loss": "ipo", "output_dir": None}
    migration = migrated("reward", reward=changes)
    dpo = migration.recipe.dpo
    assert (dpo.beta, dpo.loss_type, dpo.learning_rate) == (0.3, "ipo", 1e-4)
    assert dpo.per_device_train_batch_size * dpo.gradient_accumulation_steps == 8
    assert migration.recipe.data.comparisons.source == "data/dpo_en_demo.json"
    assert migration.recipe.ppo == Recipe().ppo
    named = outcome(migration, "pref_loss")
    assert named == ("mapped", "")
    odd = migrate_text(changes | {"pref_loss": "simpo"})
    assert outcome(odd, "pref_loss")[0] == "unsupported"


def migrate_text(changes):
    """Migrate the reward model's example file in the working folder with other values."""
    path = Path("odd.yaml")
    path.write_text(changed(LLAMAFACTORY["reward"], changes))
    return migrate([path], "x")


def test_conflicts_are_named_and_the_earlier_stage_wins(migrated):
    migration = migrated(*ALL, ppo={"lora_rank": 64})
    assert migration.recipe.lora.r == 8
    assert migration.conflicts == (
        "lora.r: 8 (sft.yaml: lora_rank) and 64 (ppo.yaml: lora_rank); 8 is used",
    )


def test_a_value_of_a_file_wins_over_another_files_default(migrated):
    migration = migrated("sft", "ppo", sft={"lora_rank": None, "seed": None}, ppo={"lora_rank": 64})
    assert (migration.recipe.lora.r, migration.conflicts) == (64, ())


def test_steps_of_ppo_are_rollouts(migrated):
    ppo = migrated("ppo", ppo={"max_steps": 50, "max_samples": None, "warmup_steps": 7}).recipe.ppo
    assert (ppo.episodes, ppo.rollouts, ppo.warmup_rollouts) == (400, 50, 7)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"stage": "kto"}, RecipeError, "stage: kto is none of rlhfctl's stages"),
        ({"stage": "pt"}, RecipeError, "pt is none of rlhfctl's stages"),
        ({"finetuning_type": "freeze"}, RecipeError, r"training a few layers \(freeze\)"),
        ({"lora_rank": 0}, RecipeError, r"sft.yaml: lora_rank \(lora.r\): is 0"),
        ({"dataset": "none"}, DataError, "has no data set none"),
        (
            {"dataset": "dpo_en_demo"},
            DataError,
            "comparisons .* and stage sft reads demonstrations",
        ),
        ({"dataset": "elsewhere"}, DataError, "ms_hub_url"),
        ({"dataset": None}, DataError, "dataset is missing"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(migrated, changes, error, said):
    with pytest.raises(error, match=said):
        migrated("sft", sft=changes)


def test_files_that_do_not_belong_in_one_run_are_refused(migrated, tmp_path):
    with pytest.raises(UsageError, match="different bases"):
        migrated("sft", "ppo", ppo={"model_name_or_path": "org/other"})
    (tmp_path / "again.yaml").write_text(LLAMAFACTORY["sft"])
    with pytest.raises(UsageError, match="both configure SFT"):
        migrate([tmp_path / "sft.yaml", tmp_path / "again.yaml"], "x")


def test_a_missing_description_of_data_says_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.yaml").write_text(LLAMAFACTORY["sft"])
    with pytest.raises(DataError, match=r"tried data/dataset_info\.json, ") as caught:
        migrate([tmp_path / "sft.yaml"], "x")
    assert "dataset_dir" in caught.value.hint
