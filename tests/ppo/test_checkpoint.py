"""A run that was cut short ends as one that was not, to the last bit."""

import pytest
import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.ppo.checkpoint import NUMBERS, TENSORS
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.sealed import SEAL
from tests.pipeline.small_stages import Listener
from tests.ppo.toy import Bandit, Cut, Dying, bandit_settings

PROMPTS = [[1], [2], [3]]
SETTINGS = {
    "episodes": 256 * 6,
    "save_rollouts": 1,
    "minibatch_size": 64,
    "kl_target": 0.3,
    "kl_horizon": 2_000.0,
    "score_normalization": "running",
    "ema_decay": 0.6,
    "critic_warmup_rollouts": 2,
    "ptx_coefficient": 0.1,
    "ptx_batch_size": 2,
}
DEMONSTRATIONS = [([1], [0]), ([1], [4]), ([1], [2])]


def train(folder, monitor=None):
    bandit = Bandit()
    trainer = PPOTrainer(
        bandit,
        PROMPTS,
        bandit_settings(**SETTINGS),
        monitor or NullMonitor(),
        checkpoints=folder,
        demonstrations=DEMONSTRATIONS,
    )
    trainer.train()
    return bandit, trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"))


def cut_short(folder, after):
    with pytest.raises(Cut):
        train(folder, Dying(after))


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_weights_and_beta(tmp_path, uninterrupted, after):
    whole, reference = uninterrupted
    cut_short(tmp_path, after)
    resumed, trainer = train(tmp_path)
    assert torch.equal(resumed.logits, whole.logits)
    assert torch.equal(resumed.value, whole.value)
    assert trainer.progress == reference.progress
    for mean, other in zip(trainer.hooks.average.means, reference.hooks.average.means, strict=True):
        assert torch.equal(mean, other)


@pytest.mark.parametrize("file", [TENSORS, NUMBERS, SEAL])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path, uninterrupted, file, damage
):
    cut_short(tmp_path, 4)
    path = max(tmp_path.iterdir()) / file
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    listener = Listener()
    resumed, _ = train(tmp_path, listener)
    assert torch.equal(resumed.logits, uninterrupted[0].logits)
    (warning,) = listener.warnings
    assert f"rollout-00000004: {file}" in warning
    assert "resuming from rollout-00000003, so 1 rollouts are lost" in warning


def test_no_sound_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path):
    cut_short(tmp_path, 2)
    for checkpoint in tmp_path.iterdir():
        (checkpoint / TENSORS).write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint .* rollout-00000002: .* rollout-00000001: "
    ):
        train(tmp_path)


@pytest.mark.parametrize("count", [2, 3])
def test_only_the_newest_are_kept(tmp_path, count):
    settings = bandit_settings(**SETTINGS, keep_last=count)
    with pytest.raises(Cut):
        PPOTrainer(Bandit(), PROMPTS, settings, Dying(5), checkpoints=tmp_path).train()
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"rollout-{number:08d}" for number in (3, 4, 5)[-count:]]
