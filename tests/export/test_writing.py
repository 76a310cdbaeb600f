"""Exports, loaded by the libraries that others use, give the outputs of the checkpoint."""

import json
import shutil
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file

from rlhfctl.errors import DivergedError, UsageError
from rlhfctl.export.comparison import LARGEST, SHARES, compare, require_close
from rlhfctl.export.options import CardOptions, ExportOptions
from rlhfctl.export.writing import export
from rlhfctl.pipeline.finished import FinishedRun
from tests.finished_run import DEVIATION, MAX_NEW_TOKENS, MEAN, code_of_card, write_run

IDS = torch.tensor([[2, 7, 300, 41, 1]])
SECRET_FILES = {"training_args.bin", "optimizer.pt", "rlhfctl.json"}


@pytest.fixture(scope="module")
def run(finished_run):
    return FinishedRun.open(finished_run)


@pytest.fixture(scope="module")
def exports(run, tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    forms = {
        "merged": ExportOptions("ppo", merge=True, card=CardOptions("mit", "org/base")),
        "half": ExportOptions("ppo", merge=True, dtype="bfloat16"),
        "adapter": ExportOptions("ppo"),
        "classifier": ExportOptions("rm", merge=True),
    }
    return {name: export(run, options, root / name) for name, options in forms.items()}


@torch.no_grad()
def peft_logits(base, folder, kind=transformers.AutoModelForCausalLM, **options):
    plain = kind.from_pretrained(base, **options)
    return PeftModel.from_pretrained(plain, folder).eval()(IDS).logits


@torch.no_grad()
def test_a_merged_model_has_the_logits_of_base_and_adapter(exports, finished_run, finished_base):
    result = exports["merged"]
    model = transformers.AutoModelForCausalLM.from_pretrained(result.folder).eval()
    expected = peft_logits(finished_base, finished_run / "ppo")
    torch.testing.assert_close(model(IDS).logits, expected, atol=LARGEST, rtol=0)
    assert result.comparison.largest < LARGEST < result.comparison.training
    assert result.comparison.same_first == 1


def test_it_ends_and_samples_as_in_training(exports):
    folder = exports["merged"].folder
    settings = transformers.GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.pad_token_id) == ([1], 0)
    assert (settings.temperature, settings.top_k, settings.top_p) == (1.0, 0, 1.0)
    assert settings.max_new_tokens == MAX_NEW_TOKENS
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "red"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>red<|end|><|assistant|>"


def test_half_precision_is_within_its_bound_and_the_weights_are_in_it(exports):
    result = exports["half"]
    assert {t.dtype for t in load_file(result.folder / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert 0 < result.comparison.largest <= SHARES["bfloat16"] * result.comparison.span


@torch.no_grad()
def test_an_adapter_is_copied_and_names_its_base(exports, finished_run, finished_base):
    result = exports["adapter"]
    config = json.loads((result.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(finished_base)
    expected = peft_logits(finished_base, finished_run / "ppo")
    torch.testing.assert_close(peft_logits(finished_base, result.folder), expected, atol=0, rtol=0)
    assert result.commands["vLLM"] == (
        f"vllm serve {finished_base} --enable-lora --max-lora-rank 8 --lora-modules "
        f"ppo={result.folder} --chat-template {result.folder}/chat_template.jinja"
    )


@torch.no_grad()
def test_a_reward_model_is_a_plain_classifier_with_one_raw_score(
    exports, finished_run, finished_base
):
    result = exports["classifier"]
    automatic = transformers.AutoModelForSequenceClassification
    model = automatic.from_pretrained(result.folder).eval()
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    expected = peft_logits(
        finished_base, finished_run / "rm", automatic, num_labels=1, pad_token_id=0
    )
    torch.testing.assert_close(model(IDS).logits, expected, atol=LARGEST, rtol=0)
    padded = torch.nn.functional.pad(IDS, (0, 3), value=0)
    torch.testing.assert_close(model(padded).logits, expected, atol=LARGEST, rtol=0)
    scale = json.loads((result.folder / "score_normalization.json").read_text())
    assert (scale["mean"], scale["deviation"]) == (MEAN, DEVIATION)
    assert any("scores are raw" in note for note in result.notes)


def test_nothing_of_the_run_itself_is_in_an_export(exports):
    for result in exports.values():
        assert not SECRET_FILES & set(result.files)
        assert set(result.files) == {path.name for path in result.folder.iterdir()}


def test_a_4_bit_run_is_merged_into_the_unquantised_base(
    exports, finished_base, tmp_path, finished_run
):
    """Its adapter is the same, so its merged weights must be the same too."""
    root = write_run(tmp_path / "small", finished_base, "model.quantization=4bit")
    result = export(FinishedRun.open(root), ExportOptions("ppo", merge=True), tmp_path / "export")
    assert "trained with model.quantization: 4bit" in result.notes[0]
    ours, theirs = (
        load_file(one.folder / "model.safetensors") for one in (result, exports["merged"])
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_export_of_another_model_is_refused():
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0))
    require_close(compare(logits, logits + 9e-4, "float32"), "float32")
    with pytest.raises(
        DivergedError, match=r"not the model that was trained.*bound in float32 is 0\.001"
    ):
        require_close(compare(logits, logits + 2e-3, "float32"), "float32")
    with pytest.raises(DivergedError):
        require_close(compare(logits, logits * torch.nan, "float32"), "float32")
    half = compare(logits, logits + 0.5 * (logits.max() - logits.min()), "bfloat16")
    with pytest.raises(DivergedError, match="bfloat16"):
        require_close(half, "bfloat16")


def test_a_folder_with_files_is_refused_and_a_failure_leaves_none(run, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(run, ExportOptions("ppo"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "options", [ExportOptions("rm", gguf="f16"), ExportOptions("ppo", dtype="float32")]
)
def test_options_that_contradict_one_another_are_refused(run, tmp_path, options):
    with pytest.raises(UsageError):
        export(run, options, tmp_path / "export")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["merged", "adapter", "classifier"])
def test_the_code_of_a_card_runs_as_it_is(exports, form, monkeypatch, capsys):
    monkeypatch.chdir(exports[form].folder)
    names: dict[str, Any] = {}
    exec(code_of_card(exports[form].folder), names)
    printed = capsys.readouterr().out.strip()
    if form == "classifier":
        assert float(printed) == pytest.approx(names["model"](**names["inputs"]).logits.item())
    else:
        assert names["output"].shape[1] <= names["inputs"]["input_ids"].shape[1] + MAX_NEW_TOKENS


def test_a_card_states_evaluation_weaknesses_and_what_the_user_said(exports):
    card = ModelCard.load(exports["merged"].folder / "README.md")
    assert (card.data.license, card.data.base_model) == ("mit", "org/base")
    rates = {result.metric_type: result for result in card.data.eval_results}
    assert rates["gold_win_rate"].metric_value == 0.75
    assert rates["gold_win_rate"].metric_name.endswith("by gold (95 % CI 0.62 to 0.88)")
    weaknesses = card.text.partition("## Known weaknesses")[2]
    assert "- High KL to the reference: 40.0 nats" in weaknesses.partition("##")[0]
    assert str(exports["merged"].folder.parent.parent) not in card.content, (
        "no path of this machine"
    )


def test_a_licence_that_nobody_stated_is_not_invented(exports, run, tmp_path, finished_base):
    card = ModelCard.load(exports["adapter"].folder / "README.md")
    assert card.data.license is None
    assert card.data.base_model is None, "a folder is no model of the Hub"
    assert "Licence: not stated" in card.text
    base = shutil.copytree(finished_base, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: llama3\n---\n")
    from rlhfctl.export.licence import base_licence

    section = run.recipe.model.model_copy(update={"name_or_path": str(base)})
    assert base_licence(section) == "llama3"
