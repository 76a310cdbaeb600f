"""Invariants of the real roles in every precision of the base: a policy that starts as its
reference, ratios that start at 1, padding and company that change nothing, dropout that is off."""

import json
import math
import shutil
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from rlhfctl.maths.sequences import Sequences
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from tests.loaded_roles import loaded

PROMPTS = [[300 + 7 * i + j for j in range(1 + i % 6)] for i in range(16)]


def opened(run, dtype=None, **folders):
    if dtype is None and not folders:
        return loaded(run)
    recipe = run.recipe
    if dtype is not None:
        recipe = recipe.model_copy(
            update={"model": recipe.model.model_copy(update={"dtype": dtype})}
        )
    stages = {name: run.stage(name) for name in ("sft", "rm")}
    return open_roles(open_stage_context(recipe), stages | folders, critic="reward_model")


@pytest.fixture(params=["tiny_run", "tiny_4bit_run", "tiny_full_run"])
def roles(request):
    return opened(request.getfixturevalue(request.param))


def sampled(roles, prompts=PROMPTS):
    responses = roles.generate(prompts, [(0, at) for at in range(len(prompts))])
    return Sequences.from_lists(prompts, responses, roles.pad_token_id)


def log_probs(roles, batch, order, size, role="policy", *, training=False):
    """Of each token, [B, R], asked `size` episodes at a time in the order given."""
    found = torch.zeros(batch.mask.shape)
    for rows in order.split(size):
        part = batch.select(rows)
        found[rows, : part.response_width] = roles.log_probs(
            role, part, training=training
        ).log_probs.detach()
    return found


class Bounds(NamedTuple):
    """Bounds on |ratio - 1| per token where two passes differ in the order of their sums only.

    Rounding has a relative error that is uniform within the unit roundoff u = epsilon / 2, with
    standard deviation u / sqrt(3). N independent roundings in series add up to u sqrt(N / 3) (Higham
    and Mary, 2019), and the difference of two passes to u sqrt(2 N / 3), times the size of a logit.

    - fp32 rounds each addition of a sum of n products: N is the number of additions in series.
    - bfloat16 accumulates in fp32 and rounds the results: N is the number of results in series.
      Most results round alike in both passes: two fp32 sums that differ by u32 sqrt(2 n / 3) round
      to different neighbours with the probability of that over epsilon. The mean follows from the
      expected number of such flips among a token's elements, twice (a flip at an attended token
      comes through attention, whose weights sum to 1); each moves one of the `hidden_size` elements
      by epsilon.

    The largest of m errors stays below sqrt(2 ln(2 m / 0.01)) deviations with probability 0.99.
    """

    largest: float
    mean: float


def rounding_bounds(roles, batch):
    model = roles.models.language_model("policy")
    config = model.config
    roles.models.activate("policy", training=False)
    with torch.no_grad(), roles.models.autocast():
        logits = model(batch.ids).logits
    size = float(logits.float().square().mean().sqrt()) / roles.temperature
    layers, hidden, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    unit, single = torch.finfo(logits.dtype).eps / 2, torch.finfo(torch.float32).eps / 2
    if logits.dtype == torch.float32:
        # Per layer: two norms, q/k/v, attention scores, attention, output, gate/up, down.
        products = 5 * hidden + config.head_dim + batch.ids.shape[1] + inner
        # After the layers: the last norm, the LM head, the sum over the vocabulary.
        roundings = layers * products + 2 * hidden + config.vocab_size
    else:
        # Per layer: two norms, q/k/v, attention, output, gate/up, down, two residual sums.
        roundings = 9 * layers + 2
    deviation = unit * math.sqrt(2 * roundings / 3) * size
    count = 2 * int(batch.mask.sum())
    largest = math.sqrt(2 * math.log(2 * count / 0.01)) * deviation
    if logits.dtype == torch.float32:
        return Bounds(largest, deviation)
    # Per layer and token: 10 results of `hidden_size` elements (q, k and v count apart), and gate, up,
    # activation and their product of `intermediate_size` elements.
    elements = layers * (10 * hidden + 4 * inner)
    flips = 2 * elements * single * math.sqrt(2 * inner / 3) / (2 * unit)
    return Bounds(largest, 2 * unit * math.sqrt(flips / hidden) * size)


def ratio_errors(new, old, batch):
    return ((new - old).exp() - 1.0).abs()[batch.mask]


def is_within(errors, bounds):
    return float(errors.max()) < bounds.largest and float(errors.mean()) < bounds.mean


PRECISIONS = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("tiny_run", None),
        ("tiny_4bit_run", None),
        ("tiny_full_run", None),
        ("tiny_run", "bfloat16"),
        ("tiny_4bit_run", "bfloat16"),
        ("tiny_full_run", "bfloat16"),
    ],
)


@PRECISIONS
def test_at_the_first_minibatch_kl_is_0_and_ratios_are_1(request, name, dtype):
    """Rows of another batch shape are summed in another order."""
    roles = opened(request.getfixturevalue(name), dtype)
    batch = sampled(roles)
    straight = torch.arange(len(batch))
    old = log_probs(roles, batch, straight, 8)
    reference = log_probs(roles, batch, straight, 8, "reference")
    assert torch.equal(old, reference), "KL must be 0 to the last bit"
    same = log_probs(roles, batch, straight, 8, training=True)
    torch.testing.assert_close(same, old, atol=1e-6, rtol=0)
    bounds = rounding_bounds(roles, batch)
    torch.manual_seed(1)
    for size in (5, 1):
        new = log_probs(roles, batch, torch.randperm(len(batch)), size, training=True)
        errors = ratio_errors(new, old, batch)
        assert float(errors.max()) < bounds.largest
        assert float(errors.mean()) < bounds.mean


@PRECISIONS
def test_the_bounds_of_rounding_refuse_real_faults(request, name, dtype):
    roles = opened(request.getfixturevalue(name), dtype)
    batch = sampled(roles)
    old = log_probs(roles, batch, torch.arange(len(batch)), 8)
    bounds = rounding_bounds(roles, batch)
    off_by_one = old.roll(1, dims=1)
    assert not is_within(ratio_errors(off_by_one, old, batch), bounds)
    colder = old * 1.1
    assert not is_within(ratio_errors(colder, old, batch), bounds)
    if dtype is None:  # half-precision log-probabilities are lost in the noise of a bfloat16 base
        for low in (torch.bfloat16, torch.float16):
            assert not is_within(ratio_errors(old.to(low).float(), old, batch), bounds)


def test_left_padding_of_generation_samples_what_the_training_pass_scores(roles):
    """Nearly greedy: behind 0, 3 or 17 pads each token must be the one that an unpadded pass finds
    most likely (at this temperature, a token one nat behind would have log-probability -1,000)."""
    prompt = [300, 301, 302, 303]
    longer = [[310 + at for at in range(len(prompt) + pads)] for pads in (3, 17)]
    roles = roles.with_sampling(temperature=1e-3, max_new_tokens=roles.max_new_tokens)
    responses = []
    for company in ([], longer[:1], longer):
        prompts = [prompt, *company]
        responses.append(roles.generate(prompts, [(2, at) for at in range(len(prompts))])[0])
    for response in responses:
        alone = Sequences.from_lists([prompt], [response], roles.pad_token_id)
        assert float(roles.log_probs("policy", alone).log_probs.min()) > -1.0
    assert responses[0] == responses[1] == responses[2]


def test_special_tokens_inside_a_prompt_are_tokens_like_any_other(roles):
    """Pad and EOS ids in the middle, as chat templates have them: masks come from lengths."""
    pad, eos = roles.pad_token_id, roles.stop_token_ids[0]
    pairs = [([300, pad, eos, 301, pad], [310, 311, eos]), ([300], [312, pad, 313, 314, 315])]
    prompts, responses = zip(*pairs, strict=True)
    together = Sequences.from_lists(prompts, responses, pad)
    scores = roles.raw_scores(together)
    for row, (prompt, response) in enumerate(pairs):
        alone = Sequences.from_lists([prompt], [response], pad)
        width = len(response)
        for figure in (lambda b: roles.log_probs("policy", b).log_probs, roles.values):
            torch.testing.assert_close(
                figure(together)[row, :width], figure(alone)[0], atol=1e-5, rtol=1e-5
            )
        torch.testing.assert_close(scores[row], roles.raw_scores(alone)[0], atol=1e-5, rtol=1e-5)
        without = Sequences.from_lists([[400, *prompt[1:]]], [response], pad)
        assert (roles.raw_scores(without)[0] - scores[row]).abs() > 1e-6


def test_what_stands_in_the_padding_reaches_no_figure_and_masked_slots_are_0(roles):
    batch = Sequences.from_lists([[300, 301], [302]], [[310, 311, 312, 313], [320]], 0)
    ids = batch.ids.clone()
    ids[1, 2:] = torch.tensor([399, 1, 355, 77])
    dirty = Sequences(ids, batch.prompt_lengths, batch.response_lengths)
    metrics = {
        "log_probs": lambda b: roles.log_probs("policy", b).log_probs,
        "entropy": lambda b: roles.log_probs("policy", b).entropy,
        "reference": lambda b: roles.log_probs("reference", b).log_probs,
        "values": roles.values,
    }
    for name, figure in metrics.items():
        assert torch.equal(figure(batch), figure(dirty)), name
        assert bool((figure(batch)[~batch.mask] == 0).all()), name
    assert torch.equal(roles.raw_scores(batch), roles.raw_scores(dirty))


def test_the_score_is_read_at_the_stop_token_itself(roles):
    eos = roles.stop_token_ids[0]
    ended = Sequences.from_lists([[300, 301]], [[310, 311, eos]], roles.pad_token_id)
    cut = Sequences.from_lists([[300, 301]], [[310, 311]], roles.pad_token_id)
    assert ended.last_positions.tolist() == [4]
    assert (roles.raw_scores(ended) - roles.raw_scores(cut)).abs() > 1e-6


def test_the_critic_starts_as_the_reward_model_on_the_scale_of_rewards(roles):
    """Its value before a token is the normalised score of what stands before that token."""
    prompt, response = [300, 301, 302], [310, 311, 312, 313]
    batch = Sequences.from_lists([prompt], [response], roles.pad_token_id)
    values = roles.values(batch)[0]
    for at in range(len(response)):
        before = [*prompt, *response[:at]]
        seen = Sequences.from_lists([before[:-1]], [before[-1:]], roles.pad_token_id)
        torch.testing.assert_close(values[at], roles.scores(seen)[0], atol=1e-4, rtol=1e-4)


def test_scores_are_normalised_once(roles):
    batch = sampled(roles)
    raw, normalization = roles.raw_scores(batch), roles.normalizations[0]
    expected = (raw.double() - normalization.mean) / normalization.deviation
    torch.testing.assert_close(roles.scores(batch).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("figure", ["log_probs", "values"])
def test_dropout_is_off_even_if_the_adapters_were_trained_with_it(tiny_run, tmp_path, figure):
    """With gradient checkpointing, under which the trained roles run in training mode."""
    folders = {}
    for name in ("sft", "rm"):
        folders[name] = tmp_path / name
        shutil.copytree(tiny_run.stage(name), folders[name])
        config = folders[name] / "adapter_config.json"
        values = json.loads(config.read_text()) | {"lora_dropout": 0.5}
        config.write_text(json.dumps(values))
    roles, plain = opened(tiny_run, **folders), opened(tiny_run)
    roles = replace(roles, gradient_checkpointing=True)
    batch = Sequences.from_lists([[300, 301]], [[310, 311, 312]], 0)

    def asked(of):
        if figure == "values":
            return of.values(batch, training=True)
        return of.log_probs("policy", batch, training=True).log_probs

    first = asked(roles)
    assert roles.models.model.get_base_model().model.training
    assert torch.equal(first, asked(roles))
    assert torch.equal(first, asked(plain))
    probabilities = {
        module.p for module in roles.models.model.modules() if isinstance(module, torch.nn.Dropout)
    }
    assert probabilities <= {0.0}


@pytest.mark.parametrize("name", ["tiny_run", "tiny_full_run"])
def test_log_probs_are_in_single_precision_and_near_double_whatever_the_base_is(request, name):
    """The vocabulary is summed over in fp32: a log-probability of bfloat16 logits is within 1e-5 of
    their own float64 log-softmax, where bfloat16 itself is good to 1e-2."""
    roles = opened(request.getfixturevalue(name), "bfloat16")
    batch = Sequences.from_lists([[300, 301, 302]], [[310, 311, 312]], 0)
    found = roles.log_probs("policy", batch).log_probs
    assert found.dtype == torch.float32
    assert roles.values(batch).dtype == torch.float32
    assert roles.raw_scores(batch).dtype == torch.float32
    with torch.no_grad(), roles.models.autocast():
        roles.models.activate("policy", training=False)
        logits = roles.models.language_model("policy")(batch.ids).logits
    assert logits.dtype == torch.bfloat16
    logits = logits[0, 2:-1].double()
    expected = logits.log_softmax(-1).gather(1, batch.ids[0, 3:, None])[:, 0]
    torch.testing.assert_close(found[0].double(), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_scores_and_values_are_products_in_fp32_under_autocast(roles):
    """As training under autocast computes them; in bfloat16 they would be wrong by 1e-3."""
    prompt, response = [300, 301, 302], [310, 311, 312]
    batch = Sequences.from_lists([prompt], [response], roles.pad_token_id)
    models = roles.models
    heads = {"reward": models.score_heads["reward"], "critic": models.value_head}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = {"reward": roles.raw_scores(batch), "critic": roles.values(batch)[0, -1:]}
        with models.autocast():
            states = {
                role: models.activate(role, training=False)(batch.ids)[0][0, at]
                for role, at in (("reward", -1), ("critic", -2))
            }
    for role, head in heads.items():
        expected = states[role].double() @ head.weight[0].double()
        expected = expected + (0.0 if head.bias is None else head.bias[0].double())
        assert found[role].dtype == torch.float32
        torch.testing.assert_close(found[role][0].double(), expected, atol=1e-5, rtol=1e-5)
