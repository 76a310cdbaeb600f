"""Sampling follows the softmax at the temperature and ends at the recipe's stop tokens."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.tiny_models import VOCABULARY, tiny_model, write_tokenizer
from rlhfctl.errors import DivergedError, EnvironmentFault, ExitCode
from rlhfctl.maths.sampling import uniform_numbers
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models import generation
from rlhfctl.models.provenance import FILE
from rlhfctl.models.roles import _vocabulary
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from rlhfctl.world.model import embedded_path

PROMPT = [300, 301, 302, 303]
DRAWS = 2000
ROLES = ("policy", "reference")


def opened(run, section="generation", **changes):
    part = getattr(run.recipe, section).model_copy(update=changes)
    recipe = run.recipe.model_copy(update={section: part})
    return open_roles(open_stage_context(recipe), {name: run.stage(name) for name in ("sft", "rm")})


def draws(roles, prompt=PROMPT, count=DRAWS):
    return roles.generate([prompt] * count, [(3, at) for at in range(count)])


def test_log_probs_are_those_of_the_temperature_that_sampling_divides_by(tiny_run):
    warm, plain = opened(tiny_run, temperature=0.6), opened(tiny_run)
    batch = Sequences.from_lists([PROMPT], [[310, 311, 312]], 0)
    with torch.no_grad():
        plain.models.activate("policy", training=False)
        logits = plain.models.language_model("policy")(batch.ids).logits[0, 3:-1].double()
    for roles, temperature in ((warm, 0.6), (plain, 1.0)):
        table = (logits / temperature).log_softmax(-1)
        expected = table.gather(1, batch.ids[0, 4:, None])[:, 0]
        for role in ("policy", "reference"):
            found = roles.log_probs(role, batch).log_probs[0].double()
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        for row, length in zip(table.unbind(), range(1, 4), strict=True):
            entropy = roles.log_probs("policy", batch).entropy[0, length - 1].item()
            # A figure to watch alone: in fp32 its two parts, as large as logits, nearly cancel.
            assert entropy == pytest.approx(-float((row.exp() * row).sum()), abs=1e-4)


def test_frequencies_follow_the_temperature(tiny_run):
    """Of first tokens, within four standard deviations of what the log-probabilities say."""
    roles = opened(tiny_run, temperature=0.6, max_new_tokens=1)
    first = torch.tensor([response[0] for response in draws(roles)])
    tokens, counts = first.unique(return_counts=True)
    common = tokens[counts >= 100]
    assert len(common) >= 2
    batch = Sequences.from_lists([PROMPT] * len(common), [[int(token)] for token in common], 0)
    expected = roles.log_probs("policy", batch).log_probs[:, 0].exp()
    observed = counts[counts >= 100] / DRAWS
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert bool(((observed - expected).abs() < 4 * deviation).all())


def test_the_models_own_sampling_defaults_do_not_come_in(tiny_run, tmp_path):
    """Chat models ship top_k, top_p and a repetition penalty, under which k1 would be biased."""
    base = tmp_path / "base"
    shutil.copytree(embedded_path(), base)
    (base / "generation_config.json").write_text(
        json.dumps({"top_k": 1, "repetition_penalty": 9.0, "do_sample": True, "min_length": 9})
    )
    changed = opened(tiny_run, "model", name_or_path=str(base))
    assert draws(changed, count=64) == draws(opened(tiny_run), count=64)
    assert len({response[0] for response in draws(changed, count=64)}) > 1


def test_a_stop_token_of_the_recipe_ends_a_response_and_is_its_last_token(tiny_run):
    plain = opened(tiny_run)
    everyday = torch.tensor([token for response in draws(plain, count=64) for token in response])
    token = int(everyday[~torch.isin(everyday, torch.tensor(plain.stop_token_ids))].mode().values)
    session = open_stage_context(tiny_run.recipe)
    text = session.tokenizer.convert_ids_to_tokens(token)
    section = tiny_run.recipe.generation.model_copy(update={"stop_tokens": [text]})
    named = open_stage_context(tiny_run.recipe.model_copy(update={"generation": section}))
    assert set(named.stop_token_ids) == {*plain.stop_token_ids, token}
    roles = replace(opened(tiny_run), stop_token_ids=named.stop_token_ids)
    responses = draws(roles, count=64)
    assert any(response[-1] == token for response in responses)
    for response in responses:
        assert not set(response[:-1]) & set(roles.stop_token_ids)
        assert roles.ended(response) is (response[-1] in roles.stop_token_ids)


def test_a_stop_token_in_the_last_slot_counts_as_ended_and_nothing_is_forced_there(tiny_run):
    roles = opened(tiny_run, max_new_tokens=5)
    eos = roles.stop_token_ids[0]
    assert roles.ended([310, 311, 312, 313, eos])
    assert not roles.ended([310, 311, 312, 313, 314])
    full = [response for response in draws(roles, count=128) if len(response) == 5]
    cut = [response for response in full if not roles.ended(response)]
    assert cut, "a response that reaches the limit keeps the token that was sampled"
    longer = opened(tiny_run, max_new_tokens=6)
    alike = [response[:5] for response in draws(longer, count=128) if len(response) > 5]
    assert set(map(tuple, cut)) & set(map(tuple, alike))


def test_an_episode_depends_on_its_own_seed_and_prompt_alone(tiny_run):
    """Neither on its company nor on its place in the batch nor on torch's own generator."""
    roles = opened(tiny_run)
    prompts = [PROMPT, [310], [320, 321, 322, 323, 324, 325, 326]]
    seeds = [(5, 0, at) for at in range(3)]
    together = roles.generate(prompts, seeds)
    torch.manual_seed(99)
    turned = roles.generate(prompts[::-1], seeds[::-1])
    assert turned[::-1] == together
    for prompt, seed, response in zip(prompts, seeds, together, strict=True):
        assert roles.generate([prompt], [seed]) == [response]
    assert roles.generate(prompts, [(6, 0, at) for at in range(3)]) != together


def test_rows_that_have_ended_are_computed_no_longer_and_no_response_changes(tiny_run, monkeypatch):
    """Stop tokens are made likely, so that some rows end at once and some go on to the limit."""
    roles = opened(tiny_run, max_new_tokens=24, temperature=1.3)
    common = {token for response in draws(roles, count=64) for token in response}
    stops = (*roles.stop_token_ids, *sorted(common)[:20])
    roles = replace(roles, stop_token_ids=stops)
    prompts = [PROMPT[: 1 + at % 4] for at in range(64)]
    seeds = [(7, at) for at in range(64)]
    rows = []

    def count(module, args, kwargs):
        rows.append(int(kwargs["input_ids"].shape[0]))

    decoder = roles.models.activate("policy", training=False)
    with monkeypatch.context() as patch:
        patch.setattr(generation, "ENOUGH", 2.0)
        whole = roles.generate(prompts, seeds)
    hook = decoder.register_forward_pre_hook(count, with_kwargs=True)
    shrunk = roles.generate(prompts, seeds)
    hook.remove()
    assert shrunk == whole
    assert len({len(response) for response in whole}) > 4
    assert len(rows) == max(map(len, whole))
    assert rows == sorted(rows, reverse=True)
    for step, present in enumerate(rows):
        going_on = sum(len(response) > step for response in whole)
        assert going_on <= present <= max(2 * going_on, 1)


def test_an_architecture_whose_cache_cannot_shrink_is_sampled_all_the_same(tiny_run, monkeypatch):
    roles = opened(tiny_run)
    usual = draws(roles, count=16)
    monkeypatch.setattr(generation, "_shrinkable_cache", lambda model: None)
    assert draws(roles, count=16) == usual


def static_and_dynamic(run):
    """Return the responses of policy and reference by either cache, of lengths that differ."""
    settings = {"max_new_tokens": 24, "temperature": 1.3}
    prompts = [PROMPT[: 1 + at % 4] for at in range(16)]
    seeds = [(7, at) for at in range(16)]
    return [
        [opened(run, **settings, **cache).generate(prompts, seeds, role) for role in ROLES]
        for cache in ({"cache_implementation": "static"}, {})
    ]


def test_a_static_cache_gives_the_same_responses(tiny_run, monkeypatch):
    """Without compiling, which takes seconds; transformers asks for it once per model."""
    modes = []

    def not_compiled(function, *, mode, **_):
        modes.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", not_compiled)
    static, dynamic = static_and_dynamic(tiny_run)
    assert static == dynamic
    assert len({len(response) for response in dynamic[0]}) > 4
    assert modes == ["default"] * len(ROLES)


@pytest.mark.slow
def test_a_compiled_pass_gives_the_same_responses(tiny_run):
    """Compiled are the modules of transformers and peft, without the layers for CPUs."""
    static, dynamic = static_and_dynamic(tiny_run)
    assert static == dynamic


def test_a_static_cache_without_a_compiler_is_refused(tiny_run, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(EnvironmentFault, match="no C\\+\\+ compiler: g\\+\\+, ") as raised:
        opened(tiny_run, cache_implementation="static")
    assert raised.value.where == "generation.cache_implementation"


def test_rows_of_the_head_beyond_the_tokenizer_are_neither_sampled_nor_scored(tiny_run, tmp_path):
    """Many models pad their vocabulary to a round number. Here such rows would win every draw."""
    base = tmp_path / "base"
    shutil.copytree(embedded_path(), base)
    weights = load_file(base / "model.safetensors")
    config = json.loads((base / "config.json").read_text())
    size = config["vocab_size"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            more = torch.full((32, weights[name].shape[1]), 1e3)
            weights[name] = torch.cat([weights[name], more, -more])
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": size + 64}))
    adapter = tmp_path / "sft"
    shutil.copytree(tiny_run.stage("sft"), adapter)
    (adapter / FILE).unlink()
    recipe = tiny_run.recipe.model_copy(
        update={"model": tiny_run.recipe.model.model_copy(update={"name_or_path": str(base)})}
    )
    padded, plain = open_roles(open_stage_context(recipe), {"sft": adapter}), opened(tiny_run)
    batch = Sequences.from_lists([PROMPT], [[310, 311, 312]], 0)
    with torch.no_grad():
        padded.models.activate("policy", training=False)
        logits = padded.models.language_model("policy")(batch.ids).logits
    assert bool((logits[..., size:].amax(-1) > logits[..., :size].amax(-1)).all())
    for found, expected in zip(
        padded.log_probs("policy", batch), plain.log_probs("policy", batch), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    responses = draws(padded, count=64)
    assert responses == draws(plain, count=64)
    assert max(map(max, responses)) < size


def sampled(model, vocabulary=VOCABULARY, stops=(2,), count=320):
    numbers = uniform_numbers([(3, at) for at in range(count)], 12)
    return generation.generate(
        model,
        [[5, 6]] * count,
        numbers,
        temperature=1.0,
        vocabulary=vocabulary,
        stop_token_ids=stops,
        pad_token_id=0,
    )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_numbers_end_the_stage_as_diverged(bad):
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = bad
    with pytest.raises(DivergedError, match="logits are not finite") as raised:
        sampled(model, count=4)
    assert raised.value.exit_code == ExitCode.DIVERGED


def test_a_stop_token_above_holes_in_the_ids_is_sampled(tmp_path):
    """60 tokens, the largest id 63: counting them would leave the stop token out."""
    tokenizer = write_tokenizer(tmp_path)
    ids = {token: at for token, at in tokenizer.get_vocab().items() if at not in range(40, 44)}
    holed = SimpleNamespace(get_vocab=lambda: ids)
    assert (len(ids), _vocabulary(holed, 64), _vocabulary(holed, 62)) == (60, 64, 62)
    responses = sampled(tiny_model("llama"), _vocabulary(holed, 64), stops=(63,))
    ended = sum(response[-1] == 63 for response in responses)
    assert ended > 10
