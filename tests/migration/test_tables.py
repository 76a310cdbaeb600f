"""The tables of keys: every documented key of both tools, each once, and all targets exist."""

from pathlib import Path

import pytest

from rlhfctl.migration.conversions import CONVERSIONS
from rlhfctl.migration.tables import BY_TOOL, TOOLS, by_key, key_table
from rlhfctl.recipe.keys import all_keys
from rlhfctl.stage_table import DPO, PPO, REWARD_MODEL, SFT

RECIPE_KEYS = {".".join(path) for path in all_keys()}
STAGES = {"llamafactory": (SFT, REWARD_MODEL, PPO, DPO), "axolotl": (SFT, REWARD_MODEL)}


def listed(name):
    lines = (Path(__file__).with_name(f"{name}_keys.txt")).read_text().splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_documented_key_is_mapped_or_left_out(tool):
    assert len(listed(tool)) > 300
    assert set(listed(tool)) - key_table(tool).keys == set()


def test_every_key_of_an_axolotl_data_set_is_in_its_table():
    table = key_table("axolotl").extra["datasets"]
    keys = {*table["mapped"], *by_key(table["left_out"]), *by_key(table["unsupported"])}
    assert set(listed("axolotl_dataset")) == keys


@pytest.mark.parametrize("tool", TOOLS)
def test_a_key_is_in_one_part_of_the_table(tool):
    table = key_table(tool)
    parts = [*table.mapped, *table.left_out, *table.unsupported]
    assert len(parts) == len(set(parts))
    assert set(table.off) <= {*table.unsupported, *table.left_out}
    assert set(table.marks) <= table.keys


@pytest.mark.parametrize("tool", TOOLS)
def test_targets_and_conversions_exist(tool):
    table = key_table(tool)
    for key, rule in table.mapped.items():
        assert rule.convert in {"", BY_TOOL, *CONVERSIONS}, key
        for stage in STAGES[tool]:
            targets = rule.targets_in(stage)
            assert targets or rule.reason, key
            assert {target for target in targets if target} <= RECIPE_KEYS, key


@pytest.mark.parametrize("tool", TOOLS)
def test_defaults_and_replacements_are_of_known_keys(tool):
    table = key_table(tool)
    defaults = {key for stage in STAGES[tool] for key in table.default_values(stage.name)}
    assert defaults <= table.keys
    assert {*table.replaced, *table.replaced.values()} <= table.keys
