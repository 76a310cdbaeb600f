"""DPO's log-probabilities, reference and loss against plain transformers and peft."""

import math
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from peft import PeftModel

from rlhfctl.recipe.dpo import DPOSection
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.dpo.implicit_rewards import implicit_rewards
from rlhfctl.stages.dpo.training import new_trainer, start_at_sft
from rlhfctl.stages.shared.hf_training import make_ready
from rlhfctl.stages.shared.stage_context import open_stage_context
from rlhfctl.world.model import embedded_path
from tests.reference import ppo_reference as reference

END = 1
ROWS = [
    ([300, 301, 302], [310, 311, END], [312, END]),
    ([303], [313, END], [314, 315, 316, 317, END]),
    ([304, 305], [END], [318, 319, END]),
    ([306, 307, 308], [320, 321, 322, END], [320, 323, END]),
]
SETTINGS: dict[str, Any] = {
    "learning_rate": 5e-3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 3,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "warmup_ratio": 0.0,
    "lr_scheduler_type": "constant",
    "save_minutes": None,
    "logging_steps": 1,
    "beta": 0.3,
}


def encoded() -> Dataset:
    return Dataset.from_list(
        [{"chosen_ids": p + c, "rejected_ids": p + r, "prompt_length": len(p)} for p, c, r in ROWS]
    )


class Recorder(NullMonitor):
    def __init__(self):
        self.metrics = []

    def step(self, done, metrics):
        self.metrics.append(dict(metrics))


def opened(run, folder, monitor=None, **changes):
    """The stage's trainer over a run's SFT checkpoint, before any step."""
    recipe = run.recipe.model_copy(update={"dpo": DPOSection(**SETTINGS | changes)})
    sft = run.stage("sft")
    trainer = new_trainer(open_stage_context(recipe), sft, encoded(), encoded(), folder)
    make_ready(trainer, "dpo", monitor or NullMonitor(), recipe.dpo, shard=False)
    start_at_sft(trainer, sft)
    return trainer


@torch.no_grad()
def log_probs(model, side):
    """Log-probability of each response, by a pass of its own through a whole model."""
    sums = []
    for row in ROWS:
        prompt, response = row[0], row[side]
        logits = model(torch.tensor([prompt + response])).logits[0].tolist()
        sums.append(
            math.fsum(
                reference.log_softmax(logits[len(prompt) + t - 1], 1.0)[token]
                for t, token in enumerate(response)
            )
        )
    return sums


def plain(run, trainer, folder):
    """The SFT model, and the trained one as it is saved, loaded without this package."""

    def load(path):
        if run.recipe.lora is None:
            return transformers.AutoModelForCausalLM.from_pretrained(path).eval()
        base = transformers.AutoModelForCausalLM.from_pretrained(embedded_path())
        return PeftModel.from_pretrained(base, path).eval()

    trainer.model.save_pretrained(folder, selected_adapters=["default"]) if (
        run.recipe.lora is not None
    ) else trainer.model.save_pretrained(folder)
    return load(run.stage("sft")), load(folder)


def loss(kind, beta, rewards):
    """The papers' losses on the difference of log-ratios; IPO's per token, as TRL has it."""
    losses = []
    for (chosen, rejected), (_, c, r) in zip(rewards, ROWS, strict=True):
        if kind == "sigmoid":
            losses.append(math.log1p(math.exp(-beta * (chosen - rejected))))
        elif kind == "hinge":
            losses.append(max(0.0, 1.0 - beta * (chosen - rejected)))
        else:
            losses.append((chosen / len(c) - rejected / len(r) - 1 / (2 * beta)) ** 2)
    return sum(losses) / len(losses)


@pytest.fixture(params=["tiny_run", "tiny_full_run"])
def run(request):
    return request.getfixturevalue(request.param)


def test_log_probs_reference_and_loss_are_those_of_plain_transformers(run, tmp_path):
    monitor = Recorder()
    rate = 5e-3 if run.recipe.lora is not None else 1e-4
    trainer = opened(run, tmp_path / "stage", monitor, learning_rate=rate)
    trainer.train()
    sft, trained = plain(run, trainer, tmp_path / "saved")
    ratios = [
        [p - q for p, q in zip(log_probs(trained, side), log_probs(sft, side), strict=True)]
        for side in (1, 2)
    ]
    found = implicit_rewards(trainer)
    assert max(map(abs, ratios[0])) > 0.01, "the policy has moved"
    assert found.chosen.tolist() == pytest.approx([0.3 * r for r in ratios[0]], abs=2e-4)
    assert found.rejected.tolist() == pytest.approx([0.3 * r for r in ratios[1]], abs=2e-4)
    rewards = list(zip(*ratios, strict=True))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss("sigmoid", 0.3, rewards), abs=1e-4)

    first, *_, last = monitor.metrics
    assert first["loss"] == pytest.approx(math.log(2.0), abs=1e-6)
    assert first["chosen_reward"] == pytest.approx(0.0, abs=1e-5)
    assert first["chosen_log_prob"] == pytest.approx(sum(log_probs(sft, 1)) / len(ROWS), abs=1e-4)
    assert last["loss"] < first["loss"]


@pytest.mark.parametrize("kind", ["hinge", "ipo"])
def test_other_losses_are_those_of_their_papers(tiny_run, tmp_path, kind):
    trainer = opened(tiny_run, tmp_path / "stage", loss_type=kind)
    with torch.no_grad():  # away from the reference, without training
        for name, weight in trainer.model.named_parameters():
            if "lora_B.default" in name:
                weight.mul_(1.5)
    sft, moved = plain(tiny_run, trainer, tmp_path / "saved")
    sides = [zip(log_probs(moved, side), log_probs(sft, side), strict=True) for side in (1, 2)]
    rewards = list(zip(*([p - q for p, q in side] for side in sides), strict=True))
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    with torch.no_grad():
        found = float(trainer.compute_loss(trainer.model, batch))
    assert found == pytest.approx(loss(kind, 0.3, rewards), rel=1e-4, abs=1e-4)


def test_on_a_4bit_base_policy_and_reference_start_as_sft_to_the_last_bit(tiny_4bit_run, tmp_path):
    trainer = opened(tiny_4bit_run, tmp_path)
    found = implicit_rewards(trainer)
    assert found.chosen.tolist() == found.rejected.tolist() == [0.0] * len(ROWS)
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all(".default." in name for name in trained), "the reference is frozen"


def test_the_best_state_is_loaded_into_the_policy_and_not_into_the_reference(tiny_run, tmp_path):
    monitor = Recorder()
    trainer = opened(
        *(tiny_run, tmp_path, monitor),
        # A rate far too high: the loss is lowest before the last step.
        learning_rate=0.3,
        num_train_epochs=2.0,
        eval_steps=1,
        load_best_model_at_end=True,
    )
    trainer.train()
    losses = [metrics["eval_loss"] for metrics in monitor.metrics if "eval_loss" in metrics]
    assert len(losses) == 2 and losses[1] > losses[0]
    assert trainer.state.best_global_step == 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[0], rel=1e-5)
