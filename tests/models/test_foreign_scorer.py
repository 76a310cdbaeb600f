"""Reward models from elsewhere score as transformers alone does."""

import shutil

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhfctl.errors import CheckpointError, DataError, EnvironmentFault, RecipeError, UnsafeError
from rlhfctl.models.foreign_files import ForeignFiles, is_foreign
from rlhfctl.models.foreign_scorer import ForeignScorer
from rlhfctl.pipeline.repositories import read_repositories
from rlhfctl.recipe.reward_sources import RewardModelLoading
from rlhfctl.recipe.schema import Recipe
from rlhfctl.stage_table import EVALUATION, PPO, SFT
from tests.foreign import changed, chatml, encoder, inst, language_model

KEY = "ppo.reward_sources"
PROMPTS = [
    [{"role": "user", "content": "What is two plus two?"}],
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "And of Germany?"},
    ],
    [{"role": "user", "content": "Say nothing."}],
]
RESPONSES = ["It is four, of course.", "hello there, friend!", "blue, Ünïcode 日本", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    return {
        make.__name__: make(root / make.__name__)
        for make in (chatml, inst, encoder, language_model)
    }


def load(folder, **loading):
    return ForeignScorer.load(str(folder), RewardModelLoading(**loading), KEY)


@torch.no_grad()
def plain_scores(folder, texts):
    """Score texts one by one with transformers alone, each with one BOS at most."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    bos = tokenizer.bos_token
    scores = []
    for text in texts:
        bare = text.removeprefix(bos) if bos else text
        encoded = tokenizer(bare, return_tensors="pt")
        assert bos is None or encoded["input_ids"].eq(tokenizer.bos_token_id).sum() == 1
        scores.append(float(model(**encoded).logits[0, 0]))
    return scores


def rendered(folder, prompts=PROMPTS, responses=RESPONSES):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer.apply_chat_template(
            [*prompt, {"role": "assistant", "content": text}], tokenize=False
        )
        for prompt, text in zip(prompts, responses, strict=True)
    ]


@pytest.mark.parametrize("name", ["chatml", "inst"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_in_a_batch_are_those_of_transformers_for_each_text(folders, name, batch_size):
    folder = folders[name]
    scores = load(folder, batch_size=batch_size).scores(PROMPTS, RESPONSES)
    expected = plain_scores(folder, rendered(folder))
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-6, rtol=0)
    assert scores.std() > 0.01


def test_a_text_prompt_is_a_user_message_in_the_template(folders):
    scorer = load(folders["inst"])
    text = scorer.scores(["Hello"], ["Paris"])
    turns = scorer.scores([[{"role": "user", "content": "Hello"}]], ["Paris"])
    assert torch.equal(text, turns)


def test_plain_text_goes_to_a_model_without_a_template(folders):
    texts = ["What is two plus two? It is four.", "Hello there"]
    scores = load(folders["encoder"]).scores(
        ["What is two plus two?", "Hello"], [texts[0][21:], " there"]
    )
    expected = plain_scores(folders["encoder"], texts)
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("append", [True, False])
def test_plain_text_ends_with_one_eos_where_the_tokenizer_has_one(folders, append):
    scorer = load(folders["inst"], input_format="text", append_eos=append)
    texts = ["Hello there", "Hello friend</s>"]
    (once, literal) = scorer.inputs.ids(["Hello", "Hello"], [text[5:] for text in texts])
    assert once[0] == 1
    assert (once[-1] == 2) is append
    assert literal.count(2) == int(append), "a literal </s> is text"


@pytest.mark.parametrize("name", ["chatml", "inst"])
def test_control_tokens_written_out_in_a_response_are_text(folders, name):
    """A policy must not be able to close its turn and open another by spelling the tokens."""
    scorer = load(folders[name])
    end = scorer.inputs.tokenizer.eos_token
    (honest,), (forged,) = (
        scorer.inputs.ids(PROMPTS[:1], [text]) for text in ("Fine.", f"Fine.{end}\nGood")
    )
    control = set(scorer.inputs.tokenizer.all_special_ids)
    assert sum(token in control for token in forged) == sum(token in control for token in honest)
    assert f"Fine.{end}\nGood" in scorer.inputs.tokenizer.decode(forged)


@pytest.mark.parametrize("name", ["chatml", "inst"])
def test_long_inputs_lose_their_beginning_and_are_counted(folders, name):
    scorer = load(folders[name], max_length=20)
    (cut, short) = scorer.inputs.ids(
        [[{"role": "user", "content": "What is two plus two? " * 9}], PROMPTS[1]], ["four", ""]
    )
    (whole,) = load(folders[name]).inputs.ids(
        [[{"role": "user", "content": "What is two plus two? " * 9}]], ["four"]
    )
    assert len(cut) == 20
    assert len(short) < 20
    bos = int(name == "inst")
    assert cut == whole[:bos] + whole[len(whole) - 20 + bos :]
    assert (scorer.inputs.truncated, scorer.inputs.encoded) == (1, 2)


def test_the_limit_is_the_models_own(folders):
    assert load(folders["inst"]).inputs.max_length == 128
    assert load(folders["encoder"]).inputs.max_length == 64
    with pytest.raises(CheckpointError, match="max_length is 129, and the model takes 128"):
        load(folders["inst"], max_length=129)


def test_a_given_template_replaces_the_models_own(folders, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}|{% endfor %}")
    scores = load(folders["encoder"], chat_template=str(template)).scores(PROMPTS[:1], ["Four."])
    expected = plain_scores(folders["encoder"], ["What is two plus two?|Four.|"])
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-6, rtol=0)
    with pytest.raises(RecipeError, match="cannot be read"):
        load(folders["encoder"], chat_template=str(tmp_path / "none.jinja"))


def test_a_bfloat16_model_has_a_head_in_single_precision(tmp_path):
    folder = chatml(tmp_path / "half", dtype=torch.bfloat16)
    scores = load(folder, dtype="bfloat16", batch_size=1).scores(PROMPTS, RESPONSES)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
    for score, text in zip(scores.tolist(), rendered(folder), strict=True):
        encoded = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
        states = model.model(**encoded).last_hidden_state[0, -1].detach()
        assert states.dtype == torch.bfloat16
        expected = model.score.weight[0].detach().double() @ states.double()
        assert score == pytest.approx(expected.item(), abs=1e-5)
    assert not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantised_scores_are_near_those_in_full(tmp_path, quantization):
    folder = chatml(tmp_path / "whole", scale=1.0, hidden_size=64, intermediate_size=128)
    exact = load(folder).scores(PROMPTS, RESPONSES)
    scorer = load(folder, quantization=quantization)
    names = {type(module).__name__ for module in scorer.model.modules()}
    assert names & {"Linear4bit", "Linear8bitLt"}
    scores = scorer.scores(PROMPTS, RESPONSES)
    assert torch.isfinite(scores).all()
    assert not torch.equal(scores, exact)
    assert torch.corrcoef(torch.stack([scores, exact]))[0, 1] > 0.9


def test_weights_are_frozen_and_in_evaluation_mode(folders):
    scorer = load(folders["chatml"])
    assert not scorer.model.training
    assert not any(weight.requires_grad for weight in scorer.model.parameters())
    assert not scorer.scores(PROMPTS, RESPONSES).requires_grad


class TestRefused:
    def test_a_conversation_without_a_template(self, folders):
        with pytest.raises(CheckpointError, match="no chat template"):
            load(folders["encoder"]).scores(PROMPTS, RESPONSES)
        with pytest.raises(RecipeError, match="input_format is chat"):
            load(folders["encoder"], input_format="chat")

    def test_a_conversation_that_the_template_refuses(self, folders, tmp_path):
        strict = tmp_path / "strict.jinja"
        strict.write_text("{{ raise_exception('no system turn, messages') }}")
        with pytest.raises(DataError, match="refuses a conversation: no system turn"):
            load(folders["inst"], chat_template=str(strict)).scores(PROMPTS, RESPONSES)

    @pytest.mark.parametrize(
        ("config", "error", "words"),
        [
            (
                {"id2label": {"0": "BAD", "1": "GOOD"}},
                CheckpointError,
                r"has 2 outputs \(BAD, GOOD\), and a reward model has one",
            ),
            ({"id2label": None, "label2id": None}, CheckpointError, "has 2 outputs"),
            (
                {"architectures": ["LlamaForRewardModel"]},
                CheckpointError,
                "is LlamaForRewardModel, not a sequence classifier",
            ),
            ({"auto_map": {"AutoModel": "own.py"}}, UnsafeError, "its own code"),
        ],
    )
    def test_another_head(self, folders, tmp_path, config, error, words):
        folder = shutil.copytree(folders["inst"], tmp_path / "copy")
        with pytest.raises(error, match=words):
            load(changed(folder, **config))

    def test_a_language_model(self, folders, tmp_path):
        with pytest.raises(CheckpointError, match="is LlamaForCausalLM, not"):
            load(folders["language_model"])
        disguised = shutil.copytree(folders["language_model"], tmp_path / "copy")
        changed(
            disguised,
            architectures=["LlamaForSequenceClassification"],
            id2label={"0": "LABEL_0"},
            label2id={"LABEL_0": 0},
        )
        with pytest.raises(CheckpointError, match=r"lack score\.weight, which would be random"):
            load(disguised)

    def test_missing_files(self, folders, tmp_path):
        bare = shutil.copytree(folders["inst"], tmp_path / "copy")
        (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
        with pytest.raises(UnsafeError, match="pickle"):
            load(bare)
        (bare / "pytorch_model.bin").unlink()
        with pytest.raises(UnsafeError, match="no safetensors weights"):
            load(bare)
        for file in bare.glob("tokenizer*"):
            file.unlink()
        with pytest.raises(CheckpointError, match="has no tokenizer"):
            load(bare)
        (bare / "config.json").unlink()
        with pytest.raises(CheckpointError, match=r"no readable config\.json"):
            load(bare)
        (bare / "adapter_config.json").write_text("{}")
        with pytest.raises(CheckpointError, match="LoRA adapter of another tool"):
            load(bare)

    def test_a_hub_model_that_is_not_there(self, monkeypatch):
        assert is_foreign("hub:nobody/nothing")
        with pytest.raises(EnvironmentFault, match="cannot be loaded"):
            load("hub:nobody/nothing")

    def test_a_score_that_is_no_number(self, folders):
        scorer = load(folders["chatml"])
        with torch.no_grad():
            scorer.model.score.weight.fill_(torch.nan)
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            scorer.scores(PROMPTS, RESPONSES)


def test_a_hub_model_in_the_cache_is_found_at_its_revision(folders, tmp_path, monkeypatch):
    """The layout of the Hub's cache is what a download leaves behind."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--lab--judge"
    shutil.copytree(folders["inst"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in (None, commit):
        loading = RewardModelLoading(revision=revision)
        files = ForeignFiles.find("hub:lab/judge", loading, KEY, offline=True)
        assert files.folder.name == commit
        assert files.has_template
    sources = {"reward_sources": [{"source": "rm"}, {"source": "hub:lab/judge"}]}
    rewarded = Recipe.model_validate({"ppo": sources})
    assert read_repositories(rewarded, SFT) == {}
    named = f"lab/judge@{commit}"
    assert read_repositories(rewarded, PPO) == {"ppo.reward_sources[1].source": named}
    judge = {"judge_rm": "hub:lab/judge", "judge_rm_loading": {"revision": commit}}
    judged = Recipe.model_validate({"evaluation": judge})
    assert read_repositories(judged, EVALUATION) == {"evaluation.judge_rm": named}
    with pytest.raises(EnvironmentFault):
        ForeignFiles.find("hub:lab/judge", RewardModelLoading(revision="v9"), KEY, offline=True)
