"""The ppo section: combinations that make no sense are refused by name."""

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.reward_sources import source_file, source_kind

TWO = "reward_sources: [{source: rm}, {source: ./other}]"


@pytest.fixture
def load(tmp_path):
    def _load(section):
        path = tmp_path / "x.yaml"
        path.write_text(f"ppo: {{{section}}}")
        return load_recipe(path).recipe.ppo

    return _load


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("kl_estimator: k2", ("kl_estimator k2 in the reward", "kl_penalty: loss")),
        ("kl_estimator: k3", ("kl_estimator k3 in the reward",)),
        ("kl_penalty: loss", ("k1 in the loss", "k2 or k3")),
        ("kl_controller: {target: 6}, beta: 0", ("kl_controller", "beta must be above 0")),
        ("kl_stop: 10", ("kl_stop (10.0)", "kl_alarm (25.0)")),
        ("rollout_batch_size: 100", ("multiple of minibatch_size (32)",)),
        ("responses_per_prompt: 3", ("multiple of responses_per_prompt (3)",)),
        ("episodes: 64", ("episodes (64)", "rollout_batch_size (128)")),
        ("ema_decay: 0.999", ("ema_decay (0.999)", "1000 rollouts", "only 79")),
        (
            "advantage_estimator: batch_mean, critic_warmup_rollouts: 2",
            ("critic_warmup_rollouts (2) needs a critic", "batch_mean"),
        ),
        (
            "advantage_estimator: rloo",
            ("rloo compares the responses to one prompt", "responses_per_prompt is 1"),
        ),
        (
            "advantage_estimator: grpo, responses_per_prompt: 4, gamma: 0.9",
            ("grpo takes a response as one action", "set gamma to 1 (it is 0.9)"),
        ),
        ("episodes: 1280, critic_warmup_rollouts: 10", ("fewer than the 10 rollouts",)),
        (
            'reward_sources: [{source: "a:b"}], critic_init: reward_model',
            ("critic_init reward_model", "critic_init: sft"),
        ),
        ("reward_sources: [{source: rm, dtype: float32}]", ("dtype cannot be set", "is a rm")),
        ("reward_sources: [{source: rm, columns: [a]}]", ("columns cannot be set",)),
        (
            'reward_sources: [{source: "a:b", normalization: none}]',
            ("normalization cannot be set", "is a function"),
        ),
        ("reward_sources: [{source: rm}, {source: rm}]", ("rm twice",)),
        ("reward_sources: [{weight: 0}]", ("weight of 0",)),
        ("reward_rule: worst", ("reward_rule worst needs at least two",)),
        (
            "reward_rule: weight_average, reward_sources: [{source: rm}, {source: 'a:b'}]",
            ("averages reward models of train-rm",),
        ),
        ("on_alarm: rollback, beta: 0", ("on_alarm: rollback multiplies beta",)),
        ("on_alarm: stop, eval_rollouts: null", ("on_alarm: stop needs held-out evaluations",)),
        (
            "reward_rule: mean, reward_sources: [{source: rm, weight: 2}, {source: ./x}]",
            ("mean takes no weights",),
        ),
        ("min_response_length: 4, missing_eos_score: null", ("missing_eos_score, which is null",)),
        ("min_response_length: 129", ("min_response_length (129)", "max_new_tokens (128)")),
        ("dual_clip: 0.9", ("dual_clip",)),
        ("critic: shared", ("critic", "adapter", "head")),
        ("critic: head, vf_coef: 0", ("vf_coef",)),
        ("reward_sources: []", ("reward_sources",)),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(load, section, words):
    with pytest.raises(RecipeError) as caught:
        load(section)
    for word in words:
        assert word in str(caught.value)


def test_all_that_makes_no_sense_is_said_at_once(load):
    with pytest.raises(RecipeError) as caught:
        load("kl_estimator: k3, reward_rule: worst, episodes: 64")
    for word in ("kl_estimator k3", "reward_rule worst", "episodes (64)"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        "kl_penalty: loss, kl_estimator: k2, kl_controller: {target: 6}",
        "kl_penalty: loss, kl_estimator: k3, beta: 0",
        'reward_sources: [{source: "a:b", columns: [solution], timeout_seconds: 5}]',
        "reward_sources: [{source: hub:lab/judge, revision: v1, quantization: 4bit}]",
        'reward_sources: [{source: "a:b"}], advantage_estimator: batch_mean',
        f"{TWO}, reward_rule: uncertainty, uncertainty_penalty: 0.5",
        "min_response_length: 8, ema_decay: 0.9, dual_clip: 3, critic_warmup_rollouts: 5",
        "responses_per_prompt: 4, ptx_coefficient: 27.8",
    ],
)
def test_what_makes_sense_is_taken(load, section):
    load(section)


@pytest.mark.parametrize(
    ("section", "start"),
    [
        ("beta: 0.1", "reward_model"),
        (TWO, "reward_model"),
        ('reward_sources: [{source: "a:b"}]', "sft"),
        ("reward_sources: [{source: hub:lab/judge}]", "sft"),
        (f"{TWO}, critic_init: sft", "sft"),
    ],
)
def test_the_critic_starts_from_sft_where_no_reward_model_is_trained(load, section, start):
    assert load(section).critic_init == start


@pytest.mark.parametrize(
    ("section", "start", "own"),
    [
        ("critic: adapter", "reward_model", True),
        ("critic: head", "head", False),
        ('critic: head, reward_sources: [{source: "a:b"}]', "head", False),
        ("critic: head, critic_init: reward_model, critic_warmup_rollouts: 2", "head", False),
        ("critic: head, advantage_estimator: batch_mean", None, False),
    ],
)
def test_a_head_on_the_policy_starts_as_itself(load, section, start, own):
    assert (load(section).critic_start, load(section).has_own_critic) == (start, own)


@pytest.mark.parametrize(
    ("section", "whitens"),
    [
        ("advantage_estimator: batch_mean", True),
        ("advantage_estimator: rloo, responses_per_prompt: 2", False),
        ("advantage_estimator: grpo, responses_per_prompt: 4", False),
        ("advantage_estimator: rloo, responses_per_prompt: 2, whiten_advantages: true", True),
    ],
)
def test_advantages_of_a_group_are_whitened_on_request_alone(load, section, whitens):
    assert load(section).whiten_advantages is whitens


@pytest.mark.parametrize(
    ("source", "kind", "file"),
    [
        ("rm", "rm", None),
        ("./rm", "folder", "./rm"),
        ("runs/base/rm", "folder", "runs/base/rm"),
        ("C:/models/rm", "folder", "C:/models/rm"),
        ("hub:lab/judge", "hub", None),
        ("hub:judge", "hub", None),
        ("scores:gold", "function", "scores.py"),
        ("package.module:gold", "function", "package/module.py"),
        ("http://localhost:8000/score", "server", None),
        ("https://example.org/score", "server", None),
    ],
)
def test_a_source_is_told_by_how_it_is_written(source, kind, file):
    assert source_kind(source) == kind
    assert source_file(source) == file
