"""Ten architectures as roles against plain transformers, in every mode, and the page about them."""

import pytest

from benchmarks import architectures
from benchmarks.architectures import MODES, Result, check, examine, positions_fault
from benchmarks.architectures_page import render
from benchmarks.tiny_models import tiny_model
from rlhfctl.models.architecture import ENDING_POSITIONS, REFUSED
from tests.present import present

TEN = {
    "llama": "full",
    "gpt2": "lora",  # Conv1D, learned positions
    "gpt_neox": "4bit",  # the head is `embed_out`
    "opt": "lora",  # the decoder is within the decoder
    "gemma2": "lora",  # caps logits
    "cohere": "lora",  # scales them
    "minicpm3": "4bit",  # scales states
    "qwen3_moe": "lora",  # experts
    "jamba": "lora",  # a state beside attention
    "bloom": "lora",  # ALiBi
}


@pytest.mark.parametrize(("model_type", "mode"), TEN.items())
def test_roles_agree_with_plain_transformers(model_type, mode, tmp_path):
    assert check(model_type, mode, tmp_path) == {}


@pytest.mark.parametrize("model_type", TEN)
def test_positions_end_where_the_table_says(model_type):
    model = tiny_model(model_type)
    assert positions_fault(model_type, model) is None


def test_a_wrong_table_of_positions_is_found(monkeypatch):
    monkeypatch.setattr(architectures, "ENDING_POSITIONS", ENDING_POSITIONS - {"gpt2"} | {"llama"})
    assert positions_fault("gpt2", tiny_model("gpt2")) == "positions end at the config's number"
    assert "do not end" in present(positions_fault("llama", tiny_model("llama")))


def test_a_wrong_log_probability_is_found(tmp_path, monkeypatch):
    plain = architectures._next_logits
    monkeypatch.setattr(architectures, "_next_logits", lambda *given: plain(*given) * 1.01)
    faults = check("llama", "lora", tmp_path)
    assert list(faults) == ["log-prob"]
    assert faults["log-prob"].startswith("off by ")


def test_a_refused_type_is_not_tried():
    result = examine("bart")
    assert (result.refused, result.faults) == (REFUSED["bart"], {})


def test_the_page_counts_what_passes_and_says_why_the_rest_does_not():
    clean: dict[str, dict[str, str]] = {mode: {} for mode in MODES}
    page = render(
        [
            Result("llama", "LlamaForCausalLM", faults=clean),
            Result("odd", "Odd", faults=clean | {"full": {"score": "off by 2"}}),
            Result("bart", "BartForCausalLM", refused=REFUSED["bart"]),
            Result("huge", "Huge", untried="ValueError: 9 parameters"),
        ],
        {"transformers": "5.23.0"},
    )
    assert "1 of 2 tried architectures pass" in page
    assert "| `llama` | LlamaForCausalLM | yes | yes | yes |" in page
    assert "| `odd` | Odd | yes | yes | score: off by 2 |" in page
    assert f"- `bart`: {REFUSED['bart']}" in page
    assert "- `huge`: ValueError: 9 parameters" in page
