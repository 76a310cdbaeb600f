"""Pad tokens: every tokenizer serves, and the score is read at the end token in any batch."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from rlhfctl.errors import RecipeError
from rlhfctl.models.heads import initialise_score_head
from rlhfctl.models.padding import add_unused_row, choose_padding
from rlhfctl.models.scorer import load_scorer
from rlhfctl.models.tokenizer import read_tokenizer
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.results.training import SFTResult
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.shared.model_card import write_model_card
from rlhfctl.stages.shared.stage_context import open_stage_context

EOS = "<|endoftext|>"


def byte_level(*specials, **named):
    """Return a byte-level tokenizer like GPT-2's: special tokens, then the bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([EOS, *specials, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([EOS, *specials])
    return PreTrainedTokenizerFast(tokenizer_object=core, **({"eos_token": EOS} | named))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Return a folder with a tiny GPT-2 whose vocabulary has no token to spare."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = byte_level(bos_token=EOS, unk_token=EOS)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_without_a_spare_token_eos_is_exported_and_batches_hold_an_id_of_no_text(gpt2):
    tokenizer = read_tokenizer(ModelSection(name_or_path=str(gpt2)))
    padding = choose_padding(tokenizer, {0})
    assert (padding.exported, padding.is_shared) == (EOS, True)
    assert tokenizer.decode([padding.token_id]) == "\ufffd"
    assert padding.token_id not in tokenizer("ÿ À <0xFF> \ufffd þ")["input_ids"]


@torch.no_grad()
def test_an_unused_embedding_row_becomes_the_pad_as_in_phi(gpt2, tmp_path):
    """More rows than tokens: the exported tokenizer pads with the first row that none has."""
    byte_level(bos_token=EOS, unk_token=EOS).save_pretrained(tmp_path)
    size = len(AutoTokenizer.from_pretrained(tmp_path))
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=size + 40, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    ).save_pretrained(tmp_path)
    context = open_stage_context(Recipe(model=ModelSection(name_or_path=str(tmp_path))))
    padding = context.padding
    assert (padding.exported, padding.is_shared) == ("<|pad|>", False)
    assert padding.token_id == context.tokenizer.pad_token_id == size
    # A text that spells it is a text.
    assert size not in context.formatter.prompt_ids("a <|pad|> b")
    context.save_tokenizer(tmp_path / "out")
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (exported.pad_token, exported.pad_token_id, len(exported)) == ("<|pad|>", size, size + 1)
    # Again from what was exported: nothing is added twice.
    exported.save_pretrained(tmp_path)
    assert len(read_tokenizer(ModelSection(name_or_path=str(tmp_path)))) == size + 1
    # transformers' classifier with that pad scores a batch as it scores each row.
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    plain.config.pad_token_id = size
    rows = [[40, 41, 42, 0], [50, 0]]
    alone = [float(plain(torch.tensor([row])).logits) for row in rows]
    ids = torch.tensor([row + [size] * (4 - len(row)) for row in rows])
    mask = (ids != size).long()
    assert plain(ids, attention_mask=mask).logits[:, 0].tolist() == pytest.approx(alone, abs=1e-6)
    # A vocabulary that fills the rows, and one that has a token to spare, are unchanged.
    assert read_tokenizer(ModelSection(name_or_path=str(gpt2))).pad_token is None
    spare = byte_level("<pad>")
    add_unused_row(spare, 5000)
    assert len(spare) == len(byte_level("<pad>"))


@pytest.mark.parametrize(
    ("specials", "named", "expected"),
    [
        (("<pad>", "<|fim_pad|>"), {"pad_token": "<|fim_pad|>"}, "<|fim_pad|>"),
        (("<repo>", "<|extra_0|>"), {"pad_token": EOS}, "<|extra_0|>"),
        (("<im_start>", "<repo>"), {"chat_template": "<im_start>{{ messages }}"}, "<repo>"),
        (("<unknown>",), {"unk_token": "<unknown>"}, "<unknown>"),
    ],
)
def test_a_spare_token_is_exported(specials, named, expected):
    padding = choose_padding(byte_level(*specials, **named), {0})
    assert (padding.exported, padding.is_shared) == (expected, False)


def test_a_pad_that_ends_responses_is_replaced():
    tokenizer = byte_level("<pad>", "<turn>", pad_token="<turn>")
    assert choose_padding(tokenizer, {0, 2}).exported == "<pad>"


def test_the_recipe_names_the_pad(gpt2):
    section = ModelSection(name_or_path=str(gpt2), pad_token="<nobody>")
    with pytest.raises(RecipeError, match=r"'<nobody>' is not a token of"):
        read_tokenizer(section)
    named = read_tokenizer(section.model_copy(update={"pad_token": "!"}))
    assert choose_padding(named, {0}).exported == "!"


@torch.no_grad()
def test_scores_are_read_at_eos_as_by_plain_transformers(gpt2):
    """transformers reads at the last token that is not the pad; rows end with EOS."""
    padding = choose_padding(read_tokenizer(ModelSection(name_or_path=str(gpt2))), {0})
    model = load_scorer(ModelSection(name_or_path=str(gpt2)), padding.token_id)
    initialise_score_head(model.score, seed=1)
    rows = [[40, 41, 42, 43, 44, 0], [50, 51, 0], [60, 0]]
    ours = score_ids(model, rows, padding.token_id, batch_size=3)

    plain = AutoModelForSequenceClassification.from_pretrained(gpt2, num_labels=1).eval()
    plain.load_state_dict(model.state_dict())
    assert plain.config.pad_token_id is None
    alone = [float(plain(torch.tensor([row])).logits) for row in rows]
    assert ours == pytest.approx(alone, abs=1e-6)

    def padded(token):
        plain.config.pad_token_id = token
        ids = torch.tensor([row + [token] * (6 - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (6 - len(row)) for row in rows])
        return plain(ids, attention_mask=mask).logits[:, 0].tolist()

    assert padded(padding.token_id) == pytest.approx(alone, abs=1e-6)
    assert padded(0) != pytest.approx(alone, abs=1e-3), "with EOS as pad it reads one early"


def test_a_shared_pad_is_exported_as_eos_and_the_card_says_so(gpt2, tmp_path):
    context = open_stage_context(Recipe(model=ModelSection(name_or_path=str(gpt2))))
    assert context.tokenizer.pad_token_id == context.padding.token_id
    context.save_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == EOS
    assert context.tokenizer.pad_token_id == context.padding.token_id
    write_model_card(
        tmp_path, "rm", context, "SEQ_CLS", SFTResult(3.0, 1.5, 0.5, 0.7, 2.0, 8, 2, 2, 100, 1.0)
    )
    card = (tmp_path / "README.md").read_text()
    assert "also ends responses" in card
    assert f"pad_token_id={context.padding.token_id}" in card
