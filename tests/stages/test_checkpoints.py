"""Every checkpoint is an ordinary folder: plain transformers and peft get rlhfctl's outputs."""

import re

import pytest
import torch
import transformers
from peft import PeftModel

from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from rlhfctl.world.model import embedded_path
from tests.finished_run import code_of_card

PROMPT, RESPONSE = [300, 301, 302], [310, 311, 312, 313]
BATCH = Sequences.from_lists([PROMPT], [RESPONSE], pad_token_id=0)
IDS = torch.tensor([PROMPT + RESPONSE])


@pytest.fixture(params=["tiny_run", "tiny_full_run"])
def run(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def roles(run):
    folders = {name: run.stage(name) for name in ("sft", "rm", "ppo")}
    return open_roles(open_stage_context(run.recipe), folders, critic="reward_model")


def plainly(run, auto_class, folder, **extra):
    auto = getattr(transformers, auto_class)
    if run.recipe.lora is None:
        return auto.from_pretrained(folder, **extra).eval()
    base = auto.from_pretrained(embedded_path(), **extra)
    return PeftModel.from_pretrained(base, folder).eval()


@torch.no_grad()
@pytest.mark.parametrize(("stage", "role"), [("sft", "reference"), ("ppo", "policy")])
def test_language_models(run, roles, stage, role):
    model = plainly(run, "AutoModelForCausalLM", run.stage(stage))
    table = model(IDS).logits.log_softmax(-1)[0, len(PROMPT) - 1 : -1]
    expected = table.gather(1, torch.tensor(RESPONSE)[:, None])[:, 0]
    found = roles.log_probs(role, BATCH).log_probs[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_reward_model(run, roles):
    model = plainly(
        run,
        "AutoModelForSequenceClassification",
        run.stage("rm"),
        num_labels=1,
        pad_token_id=0,
    )
    expected = model(IDS).logits[0]
    torch.testing.assert_close(roles.raw_scores(BATCH), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_critic_is_kept_and_gives_a_value_a_token(run):
    model = plainly(
        run, "AutoModelForTokenClassification", run.stage("ppo") / "critic", num_labels=1
    )
    values = model(IDS).logits[0, :, 0]
    assert values.shape == (IDS.shape[1],)
    start = plainly(
        run,
        "AutoModelForSequenceClassification",
        run.stage("rm"),
        num_labels=1,
        pad_token_id=0,
    )
    before = ScoreNormalization.load(run.stage("rm")).apply(start(IDS).logits[0, 0])
    assert values[-1] != before, "PPO trains the critic"


def test_the_policy_was_trained(run):
    name = "adapter_model.safetensors" if run.recipe.lora else "model.safetensors"
    assert (run.stage("sft") / name).read_bytes() != (run.stage("ppo") / name).read_bytes()


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_each_carries_its_tokenizer_and_a_card(run, stage):
    folder = run.stage(stage)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    card = (folder / "README.md").read_text()
    assert "library_name" in card
    assert "| metric | value |" in card
    assert not re.search(r"_seconds|_per_second|_bytes", card), "equal runs have equal cards"


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_the_code_of_its_card_runs_as_it_is(run, stage, monkeypatch, capsys):
    monkeypatch.chdir(run.stage(stage))
    names: dict[str, object] = {}
    exec(code_of_card(run.stage(stage)), names)
    assert capsys.readouterr().out.strip() or stage == "sft", "an empty response is possible"
    assert "model" in names
