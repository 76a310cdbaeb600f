"""Files of axolotl as recipes: values, data, special tokens, and what is refused."""

import pytest

from rlhfctl.errors import DataError, RecipeError, UsageError
from rlhfctl.migration import migrate
from tests.migration.examples import AXOLOTL, changed
from tests.migration.test_llamafactory import outcome


@pytest.fixture
def migrated(tmp_path, monkeypatch):
    """Return a function that migrates an example file with other values of some keys."""
    monkeypatch.chdir(tmp_path)

    def run(*names, **changes):
        paths = []
        for name in names:
            paths.append(tmp_path / f"{name}.yml")
            paths[-1].write_text(changed(AXOLOTL[name], changes))
        return migrate(paths, "x")

    return run


def test_qlora(migrated):
    migration = migrated("qlora")
    recipe = migration.recipe
    assert (recipe.model.name_or_path, recipe.model.quantization) == (
        *("NousResearch/Meta-Llama-3-8B", "4bit"),
    )
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (32, 16, 0.05)
    assert recipe.lora.target_modules == "all-linear"
    assert recipe.model.pad_token == "<|end_of_text|>"
    sft = recipe.sft
    assert sft.per_device_train_batch_size * sft.gradient_accumulation_steps == 8
    assert (sft.learning_rate, sft.num_train_epochs, sft.max_length) == (2e-4, 4.0, 4096)
    assert (sft.packing, sft.optim, sft.gradient_checkpointing) == (
        *(True, "paged_adamw_32bit", True),
    )
    section = recipe.data.demonstrations
    assert (section.source, section.preset, section.as_chat) == (
        *("tatsu-lab/alpaca", "alpaca", False),
    )
    assert outcome(migration, "warmup_steps")[0] == "unsupported"
    assert migration.missing == ("comparisons",)


def test_instruct_lora(migrated):
    recipe = migrated("instruct").recipe
    assert recipe.model.quantization == "8bit"
    assert recipe.lora.target_modules == ["q_proj", "v_proj"]
    assert (recipe.sft.warmup_ratio, recipe.sft.assistant_turns) == (0.1, "all")
    section = recipe.data.demonstrations
    assert (section.columns, section.held_out) == ({"messages": "dialogue"}, 0.05)


def test_reward_model_without_an_adapter(migrated):
    migration = migrated("reward")
    recipe = migration.recipe
    assert recipe.lora is None
    assert (recipe.reward_model.num_train_epochs, recipe.reward_model.max_length) == (4.0, 2048)
    section = recipe.data.comparisons
    assert (section.source, section.columns, section.as_chat) == (
        *("org/pairs", {"prompt": "input"}, True),
    )
    assert migration.missing == ("demonstrations", "prompts")


def test_a_model_of_sft_and_one_of_rewards_become_one_recipe(migrated):
    migration = migrated("instruct", "reward", base_model="org/base", adapter="lora", lora_r=8)
    assert migration.missing == ()
    assert migration.recipe.reward_model.num_train_epochs == 4.0
    assert migration.conflicts == ()


@pytest.mark.parametrize("name", AXOLOTL)
def test_every_key_has_one_outcome(migrated, name):
    migration = migrated(name, lora_rr=4, peft_use_dora=True)
    (source,) = migration.sources
    keys = [one.key.partition(".")[0] for one in source.outcomes if one.kind != "default"]
    assert {*keys} == {*source.values}
    assert outcome(migration, "lora_rr")[0] == "unknown"
    assert outcome(migration, "peft_use_dora")[0] == "unsupported"
    assert outcome(migration, "wandb_entity") == ("empty", "")


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"batch_size": 32, "gradient_accumulation_steps": None}, ("sft", 16)),
        ({"optimizer": None}, ("optim", "adamw_torch_fused")),
        ({"sequence_len": None, "sample_packing": False}, ("length", 512)),
        ({"wandb_project": "p"}, ("tracking", (["wandb"], "p"))),
        ({"sdp_attention": True}, ("attention", "sdpa")),
        ({"learning_rate": "1e-5"}, ("rate", 1e-5)),
        ({"bf16": True}, ("dtype", "bfloat16")),
        ({"cosine_min_lr_ratio": 0.1, "lr_scheduler": None}, ("schedule", "cosine_with_min_lr")),
    ],
)
def test_a_key_sets_what_it_means(migrated, changes, read):
    recipe = migrated("qlora", **changes).recipe
    name, value = read
    values = {
        "sft": recipe.sft.gradient_accumulation_steps,
        "optim": recipe.sft.optim,
        "length": recipe.sft.max_length,
        "tracking": (recipe.tracking.report_to, recipe.tracking.project),
        "attention": recipe.model.attn_implementation,
        "rate": recipe.sft.learning_rate,
        "dtype": recipe.model.dtype,
        "schedule": recipe.sft.lr_scheduler_type,
    }
    assert values[name] == value


@pytest.mark.parametrize(
    ("entry", "section"),
    [
        (
            {"path": "json", "data_files": "rows.jsonl", "type": "alpaca"},
            {"source": "rows.jsonl", "preset": "alpaca"},
        ),
        (
            {"path": "org/a", "name": "en", "revision": "v1", "split": "train[:10%]"},
            {"source": "org/a", "config": "en", "revision": "v1", "split": "train"},
        ),
        (
            {"path": "org/a", "type": {"field_instruction": "q", "field_output": "a"}},
            {"preset": "alpaca", "columns": {"instruction": "q", "output": "a"}},
        ),
        (
            {"path": "org/a", "type": "sharegpt", "conversation": "chatml"},
            {"preset": "sharegpt", "columns": {}},
        ),
    ],
)
def test_an_entry_of_datasets_is_a_source(migrated, entry, section):
    migration = migrated("qlora", datasets=[entry])
    read = migration.recipe.data.demonstrations.model_dump()
    assert {key: read[key] for key in section} == section


def test_several_entries_are_a_mixture(migrated):
    entries = [
        {"path": "org/a", "type": "chat_template", "roles_to_train": ["assistant"]},
        {"path": "org/b", "type": "unheard_of", "message_field_role": "speaker", "pathh": 1},
    ]
    migration = migrated("instruct", datasets=entries)
    sources = migration.recipe.data.demonstrations.sources
    assert [part.source for part in sources] == ["org/a", "org/b"]
    assert outcome(migration, "datasets.0.roles_to_train")[0] == "left_out"
    assert outcome(migration, "datasets.1.type")[0] == "unsupported"
    assert outcome(migration, "datasets.1.message_field_role")[0] == "unsupported"
    assert outcome(migration, "datasets.1.pathh")[0] == "unknown"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"rl": "dpo"}, RecipeError, "rl: dpo is not migrated"),
        ({"adapter": "llama-adapter"}, RecipeError, "llama-adapter has no counterpart"),
        ({"pretraining_dataset": [{"path": "org/c4"}]}, RecipeError, "pretraining is none"),
        ({"datasets": None}, DataError, "datasets is missing"),
        ({"micro_batch_size": -1}, RecipeError, "micro_batch_size"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(migrated, changes, error, said):
    with pytest.raises(error, match=said):
        migrated("qlora", **changes)


def test_keys_of_no_tool_do_not_tell_the_tool(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("model: gpt\n")
    with pytest.raises(UsageError, match="do not tell which tool"):
        migrate([file], "x")
    with pytest.raises(UsageError, match="no tool unsloth"):
        migrate([file], "x", "unsloth")
