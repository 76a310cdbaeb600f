"""The gate before PPO: it passes what is sound, and names what is not."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rlhfctl.errors import GateError
from rlhfctl.run.directory import METRICS_FILE, PROBE_FILE
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.ppo.start_checks import (
    check_accuracy,
    check_ending,
    check_reload,
    check_start,
)
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

PROMPTS = [[300, 301, 302], [310, 311]]


@pytest.fixture
def rm(tiny_run, tmp_path):
    folder = tmp_path / "rm"
    shutil.copytree(tiny_run.stage("rm"), folder)
    return folder


@pytest.fixture
def roles(tiny_run):
    folders = {"sft": tiny_run.stage("sft"), "rm": tiny_run.stage("rm")}
    return open_roles(open_stage_context(tiny_run.recipe), folders, critic="reward_model")


def metrics(folder, **changes):
    path = folder / METRICS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_accuracy_above_chance_and_length_passes(rm):
    metrics(rm, accuracy=0.8, accuracy_low=0.75, length_accuracy=0.6)
    assert all(check.passed for check in check_accuracy(rm))


@pytest.mark.parametrize(
    ("low", "length", "failed"),
    [
        (0.49, 0.51, ["reward model above chance", "reward model above the length"]),
        (0.6, 0.7, ["reward model above the length"]),
        (0.6, 0.3, ["reward model above the length"]),
    ],
)
def test_an_interval_that_holds_chance_or_the_length_baseline_fails(rm, low, length, failed):
    metrics(rm, accuracy=low + 0.05, accuracy_low=low, length_accuracy=length)
    names = [check.name for check in check_accuracy(rm) if not check.passed]
    assert [name[: len(part)] for name, part in zip(names, failed, strict=True)] == failed


def test_a_model_that_only_prefers_shorter_responses_is_refused(rm):
    """Data whose shorter response is always chosen: 1.0 is what length alone reaches."""
    metrics(rm, accuracy=0.99, accuracy_low=0.97, length_accuracy=0.0)
    (failed,) = (check for check in check_accuracy(rm) if not check.passed)
    assert failed.detail.endswith("always prefer the shorter response: 1.000")


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "was not evaluated"),
        ("{}", "accuracy: missing field"),
        ("not json", "cannot be read"),
    ],
)
def test_a_reward_model_without_metrics_fails(rm, content, detail):
    (rm / METRICS_FILE).unlink()
    if content is not None:
        (rm / METRICS_FILE).write_text(content)
    (check,) = check_accuracy(rm)
    assert not check.passed
    assert METRICS_FILE in check.detail
    assert detail in check.detail


def test_a_reloaded_reward_model_scores_as_in_training_and_a_changed_one_does_not(rm, roles):
    assert check_reload(rm, roles, exact=True).passed
    probe = json.loads((rm / PROBE_FILE).read_text())
    probe["scores"][0] += 0.01
    (rm / PROBE_FILE).write_text(json.dumps(probe))
    assert not check_reload(rm, roles, exact=True).passed


def test_a_damaged_probe_fails_rather_than_pass_unseen(rm, roles):
    (rm / PROBE_FILE).write_text('{"ids": [], "scores": []}')
    check = check_reload(rm, roles, exact=True)
    assert not check.passed
    assert "damaged" in check.detail


def test_roles_fresh_from_disk_start_at_kl_zero_and_can_learn(roles):
    assert [check.passed for check in check_start(roles, PROMPTS, 0)] == [True] * 5
    for role in ("policy", "critic"):
        assert all(weight.grad is None for weight in roles.trainable(role).values())


def test_a_policy_that_is_not_its_reference_fails(roles):
    with torch.no_grad():
        for weight in roles.trainable("policy").values():
            weight.add_(0.01)
    failed = [check.name for check in check_start(roles, PROMPTS, 0) if not check.passed]
    assert failed == ["KL is 0 at step 0"]


def test_a_failed_preflight_refuses_to_start_and_names_the_override(tiny_run, rm, tmp_path):
    metrics(rm, accuracy=0.5, accuracy_low=0.4)
    section = tiny_run.recipe.ppo.model_copy(update={"gate": "refuse"})
    recipe = tiny_run.recipe.model_copy(update={"ppo": section})
    inputs = {"sft": tiny_run.stage("sft"), "rm": rm}
    with pytest.raises(GateError, match="above chance") as caught:
        ppo.run(recipe, inputs, tmp_path, NullMonitor())
    assert "ppo.gate=warn" in str(caught.value)


def test_an_sft_that_seldom_ends_is_a_caution_that_refuses_nothing(roles, rm):
    metrics(rm, sft_eos_share=0.4)
    check = check_ending(roles, PROMPTS, 0, rm)
    assert check.caution
    assert not check.passed
    assert "SFT seldom ends its responses, 40.0%" in check.detail
    assert "generation.max_new_tokens" in check.detail
    metrics(rm, sft_eos_share=0.5)
    assert check_ending(roles, PROMPTS, 0, rm).passed


def test_without_a_reward_model_the_share_that_ends_is_sampled(roles):
    prompts = PROMPTS * 4
    responses = roles.generate(prompts, [(0, row) for row in range(8)], "reference")
    share = sum(response[-1] in roles.stop_token_ids for response in responses) / 8
    check = check_ending(roles, prompts, 0, None)
    assert f"{share:.1%} within" in check.detail
    assert check.passed == (share >= 0.5)
    never = replace(roles, stop_token_ids=(-1,))
    assert not check_ending(never, prompts, 0, None).passed


def test_a_caution_is_warned_of_even_where_the_gate_refuses(tiny_run, roles, rm):
    metrics(rm, accuracy=0.8, accuracy_low=0.75, length_accuracy=0.6, sft_eos_share=0.1)
    section = tiny_run.recipe.ppo.model_copy(update={"gate": "refuse"})
    recipe = tiny_run.recipe.model_copy(update={"ppo": section})
    warnings: list[str] = []
    monitor = SimpleNamespace(warn=warnings.append)
    inputs = {"sft": tiny_run.stage("sft"), "rm": rm}
    checks = ppo._preflight(recipe, inputs, roles, PROMPTS, ppo.ppo_settings(recipe), monitor)
    assert [check.name for check in checks if not check.passed] == ["end of SFT's responses"]
    assert len(warnings) == 1
    assert "SFT seldom ends" in warnings[0]
