"""Four roles on one base: the same as four models loaded on their own, for the memory of one."""

import pytest
import torch

from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.role_models import AdapterRoleModels
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from tests.loaded_roles import loaded

PROMPT_A, PROMPT_B = [300, 301, 302, 303], [310, 311]
RESPONSE_A, RESPONSE_B = [320, 321, 322], [330, 331, 332, 333, 334, 335]


@pytest.fixture(params=["tiny_run", "tiny_4bit_run", "tiny_full_run"])
def run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def roles(run):
    return loaded(run)


def batch_of(*pairs):
    prompts, responses = zip(*pairs, strict=True)
    return Sequences.from_lists(prompts, responses, pad_token_id=0)


BOTH = batch_of((PROMPT_A, RESPONSE_A), (PROMPT_B, RESPONSE_B))


def separately(run, auto_class, folder, **extra):
    """Load a checkpoint as anyone would: transformers and peft, without rlhfctl."""
    import transformers
    from peft import PeftModel

    auto = getattr(transformers, auto_class)
    if run.recipe.lora is None:
        return auto.from_pretrained(folder, dtype=torch.float32, **extra).eval()
    from rlhfctl.models.base import quantization_config
    from rlhfctl.world.model import embedded_path

    base = auto.from_pretrained(
        embedded_path(),
        dtype=torch.float32,
        quantization_config=quantization_config(run.recipe.model),
        **extra,
    )
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # Its inference format on some CPUs rounds to bfloat16.
            module.support_avx512bf16_for_cpu = False
    return PeftModel.from_pretrained(base, folder).eval()


@torch.no_grad()
def test_outputs_equal_those_of_four_models_loaded_on_their_own(run, roles):
    language = separately(run, "AutoModelForCausalLM", run.stage("sft"))
    scorer = separately(
        run, "AutoModelForSequenceClassification", run.stage("rm"), num_labels=1, pad_token_id=0
    )
    normalization = ScoreNormalization.load(run.stage("rm"))
    for role in ("policy", "reference"):
        found = roles.log_probs(role, BOTH).log_probs
        for row, (prompt, response) in enumerate(((PROMPT_A, RESPONSE_A), (PROMPT_B, RESPONSE_B))):
            ids = torch.tensor([prompt + response])
            table = language(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            expected = table.gather(1, torch.tensor(response)[:, None])[:, 0]
            torch.testing.assert_close(found[row, : len(response)], expected, atol=1e-5, rtol=1e-5)
    scores, values = roles.raw_scores(BOTH), roles.values(BOTH)
    for row, sequence in enumerate((PROMPT_A + RESPONSE_A, PROMPT_B + RESPONSE_B)):
        expected = scorer(torch.tensor([sequence])).logits[0, 0]
        torch.testing.assert_close(scores[row], expected, atol=1e-5, rtol=1e-5)
    first = scorer(torch.tensor([PROMPT_A])).logits[0, 0]
    torch.testing.assert_close(values[0, 0], normalization.apply(first), atol=1e-4, rtol=1e-4)


def test_the_policy_starts_as_the_reference_to_the_last_bit(roles):
    policy = roles.log_probs("policy", BOTH).log_probs
    assert torch.equal(policy, roles.log_probs("reference", BOTH).log_probs)


def test_training_and_sampling_passes_give_the_same_numbers(roles):
    quiet = roles.log_probs("policy", BOTH).log_probs
    training = roles.log_probs("policy", BOTH, training=True).log_probs
    torch.testing.assert_close(training.detach(), quiet, atol=1e-6, rtol=1e-6)
    again = roles.log_probs("policy", BOTH, training=True).log_probs
    assert torch.equal(training, again), "dropout must be off"


def test_padding_and_company_change_no_figure(roles):
    for row, pair in enumerate(((PROMPT_A, RESPONSE_A), (PROMPT_B, RESPONSE_B))):
        alone = batch_of(pair)
        width = len(pair[1])
        for figure in (
            lambda batch: roles.log_probs("policy", batch).log_probs,
            lambda batch: roles.log_probs("policy", batch).entropy,
            roles.values,
        ):
            torch.testing.assert_close(
                figure(BOTH)[row, :width], figure(alone)[0], atol=1e-5, rtol=1e-5
            )
        torch.testing.assert_close(
            roles.raw_scores(BOTH)[row], roles.raw_scores(alone)[0], atol=1e-5, rtol=1e-5
        )


def test_a_value_is_read_before_its_token(roles):
    other = batch_of((PROMPT_B, [*RESPONSE_B[:3], 340, *RESPONSE_B[4:]]))
    values, changed = roles.values(batch_of((PROMPT_B, RESPONSE_B))), roles.values(other)
    torch.testing.assert_close(values[0, :4], changed[0, :4], atol=1e-6, rtol=1e-6)
    assert (values[0, 4:] - changed[0, 4:]).abs().max() > 1e-5


@pytest.mark.parametrize(("trained", "figure"), [("policy", "log_probs"), ("critic", "values")])
def test_a_step_of_one_role_moves_no_other_by_a_bit(roles, trained, figure):
    def metrics():
        return {
            "policy": roles.log_probs("policy", BOTH).log_probs,
            "reference": roles.log_probs("reference", BOTH).log_probs,
            "reward": roles.raw_scores(BOTH),
            "critic": roles.values(BOTH),
        }

    before = metrics()
    weights = list(roles.trainable(trained).values())
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    if figure == "log_probs":
        roles.log_probs("policy", BOTH, training=True).log_probs.sum().backward()
    else:
        roles.values(BOTH, training=True).sum().backward()
    assert all(weight.grad is not None for weight in weights)
    optimizer.step()
    after = metrics()
    for role, value in before.items():
        assert torch.equal(value, after[role]) is (role != trained), role


def test_what_is_trained_is_in_single_precision(roles):
    for role in ("policy", "critic"):
        assert {weight.dtype for weight in roles.trainable(role).values()} == {torch.float32}


def share_moved(weights, gradients, rate=1e-6):
    """Share of the weights with a gradient that one step of AdamW changes."""
    before = [weight.detach().clone() for weight in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.to(weight.dtype)
    torch.optim.AdamW(weights, lr=rate, weight_decay=0.0).step()
    moved = total = 0
    for weight, old, gradient in zip(weights, before, gradients, strict=True):
        moved += int(((weight != old) & (gradient != 0)).sum())
        total += int((gradient != 0).sum())
    return moved / total


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_rate_moves_nearly_every_weight_of_a_whole_model(tiny_full_run, dtype):
    """A step of 1e-6 is lost on most weights that are kept in bfloat16."""
    model = tiny_full_run.recipe.model.model_copy(update={"dtype": dtype})
    recipe = tiny_full_run.recipe.model_copy(update={"model": model})
    folders = {"sft": tiny_full_run.stage("sft"), "rm": tiny_full_run.stage("rm")}
    roles = open_roles(open_stage_context(recipe), folders, critic="reward_model")
    roles.log_probs("policy", BOTH, training=True).log_probs.sum().backward()
    roles.values(BOTH, training=True).sum().backward()
    for role in ("policy", "critic"):
        weights = list(roles.trainable(role).values())
        assert {weight.dtype for weight in weights} == {torch.float32}
        gradients = [weight.grad.clone() for weight in weights if weight.grad is not None]
        rounded = [weight.detach().bfloat16().requires_grad_() for weight in weights]
        assert share_moved(weights, gradients) > 0.9
        assert share_moved(rounded, gradients) < 0.2


def base_storage_bytes(module):
    storages = {
        weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes()
        for name, weight in module.named_parameters()
        if "lora_" not in name
    }
    return sum(storages.values())


@pytest.mark.parametrize("name", ["tiny_run", "tiny_4bit_run"])
def test_the_base_exists_once_in_memory(request, name):
    from rlhfctl.models.base import load_causal_lm

    run = request.getfixturevalue(name)
    roles = loaded(run)
    assert isinstance(roles.models, AdapterRoleModels)
    models = {
        id(module): module
        for role in ("policy", "reference")
        for module in (roles.models.language_model(role), roles.models.model)
    }
    decoders = {
        id(roles.models.activate(role, training=False))
        for role in ("policy", "reference", "reward", "critic")
    }
    assert len(decoders) == 1
    alone = base_storage_bytes(load_causal_lm(run.recipe.model))
    assert [base_storage_bytes(model) for model in models.values()] == [alone] * len(models)
    heads = sum(
        weight.nbytes
        for head in (roles.models.score_heads["reward"], roles.models.value_head)
        for weight in head.parameters()
    )
    assert heads < 0.01 * alone


def test_sampling_is_a_function_of_the_seed_and_stops_at_a_stop_token(roles):
    def sample():
        return roles.generate([PROMPT_A, PROMPT_B] * 4, [(11, at) for at in range(8)])

    responses = sample()
    assert responses == sample()
    for response in responses:
        assert 1 <= len(response) <= roles.max_new_tokens
        assert not set(response[:-1]) & set(roles.stop_token_ids)
        assert roles.ended(response) or len(response) == roles.max_new_tokens


def test_sampled_tokens_follow_the_log_probs(roles):
    """Frequencies of the first sampled token against the probabilities PPO would use."""
    seeds = [(5, at) for at in range(4000)]
    draws = torch.tensor([row[0] for row in roles.generate([PROMPT_A] * 4000, seeds)])
    tokens, counts = draws.unique(return_counts=True)
    common = tokens[counts >= 100]
    assert len(common) >= 2
    batch = batch_of(*((PROMPT_A, [int(token)]) for token in common))
    expected = roles.log_probs("policy", batch).log_probs[:, 0].exp()
    observed = counts[counts >= 100] / 4000
    assert (observed - expected).abs().max() < 0.03


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny_run", "tiny_4bit_run"])
def test_the_base_is_the_base_loaded_on_its_own_and_leaves_no_trace(request, name):
    from rlhfctl.models.base import load_causal_lm

    run = request.getfixturevalue(name)
    roles = loaded(run)
    before = {role: roles.log_probs(role, BOTH).log_probs for role in ("policy", "reference")}
    base = roles.log_probs("base", BOTH, temperature=1.0).log_probs
    alone = load_causal_lm(run.recipe.model).eval()
    for row, (prompt, response) in enumerate(((PROMPT_A, RESPONSE_A), (PROMPT_B, RESPONSE_B))):
        table = alone(torch.tensor([prompt + response])).logits.log_softmax(-1)
        table = table[0, len(prompt) - 1 : -1]
        expected = table.gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(base[row, : len(response)], expected, atol=1e-5, rtol=1e-5)
    assert (base - before["reference"]).abs().max() > 1e-3, "SFT changed nothing"
    for role, value in before.items():
        assert torch.equal(roles.log_probs(role, BOTH).log_probs, value), role


@pytest.mark.parametrize("name", ["tiny_run", "tiny_4bit_run"])
def test_after_the_base_spoke_training_goes_on_as_before(request, name):
    def gradients(base_first):
        roles = loaded(request.getfixturevalue(name))
        roles.log_probs("policy", BOTH, training=True)
        if base_first:
            roles.log_probs("base", BOTH)
        roles.log_probs("policy", BOTH, training=True).log_probs.sum().backward()
        frozen = roles.models.body_parameters("reference").values()
        assert not any(weight.requires_grad for weight in frozen)
        return [weight.grad for weight in roles.models.body_parameters("policy").values()]

    for one, two in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(one, two)


def test_entropy_is_worked_out_for_whom_it_is_asked(roles):
    assert roles.log_probs("reference", BOTH).entropy.abs().max() == 0
    asked = roles.log_probs("reference", BOTH, entropy=True).entropy
    torch.testing.assert_close(asked, roles.log_probs("policy", BOTH).entropy, atol=1e-6, rtol=1e-6)
