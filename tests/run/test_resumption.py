"""An interrupted stage is resumed with other settings only where the user names them."""

import pytest

from rlhfctl.errors import ExitCode, UsageError
from rlhfctl.run.manifest import Artifact
from rlhfctl.run.resumption import Resumption
from rlhfctl.run.sealed import seal

PART = {"seed": 0, "lora": {"r": 8}, "sft": {"learning_rate": 0.1, "weight_decay": 0.0}}
BEFORE = {"recipe_part": PART, "inputs": {"sft": Artifact("sft", "aa")}}


def changes(part, *allowed, sft="aa"):
    resumption = Resumption(allow_change=allowed)
    return resumption.changes("ppo", BEFORE, PART | part, {"sft": Artifact("sft", sft)})


def test_every_change_is_named_with_its_option():
    part = {"seed": 1, "sft": {"learning_rate": 0.2, "weight_decay": 0.0}}
    with pytest.raises(UsageError) as caught:
        changes(part, sft="bb")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "seed changed from 0 to 1; sft.learning_rate changed from 0.1 to 0.2" in str(
        caught.value
    )
    for key in ("seed", "sft.learning_rate", "sft"):
        assert f"--allow-change {key}" in caught.value.hint
    with pytest.raises(
        UsageError, match=r"settings have changed since: seed changed from 0 to 1\n"
    ):
        changes(part, "sft.learning_rate", "sft", sft="bb")


@pytest.mark.parametrize("key", ["sft.learning_rate", "sft"])
def test_a_key_or_its_section_is_allowed(key):
    part = {"sft": {"learning_rate": 0.2, "weight_decay": 0.0}}
    assert changes(part, key) == ["sft.learning_rate changed from 0.1 to 0.2"]
    with pytest.raises(UsageError):
        changes(part, "sft.learning")


def test_what_gives_a_checkpoint_its_shape_cannot_change():
    with pytest.raises(UsageError, match=r"cannot be resumed .* lora.r changed from 8 to 4"):
        changes({"lora": {"r": 4}}, "lora.r")


def test_the_number_of_processes(tmp_path):
    (tmp_path / "judge" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "judge" / "checkpoint-1" / "weights").write_text("1")
    seal(tmp_path / "judge" / "checkpoint-1", processes=2)
    assert Resumption().processes_change("sft", tmp_path, 2) == []
    with pytest.raises(UsageError, match="processes changed from 2 to 1") as caught:
        Resumption(allow_change=("sft",)).processes_change("sft", tmp_path, 1)
    assert "--allow-world-size-change (not bit-exact)" in caught.value.hint
    allowed = Resumption(allow_world_size_change=True)
    (change,) = allowed.processes_change("sft", tmp_path, 1)
    assert "not bit-exact" in change
