"""Files of a reward model from elsewhere, checked without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError, UnsafeError
from rlhfctl.hub_commits import note_loaded
from rlhfctl.json_text import parse_json
from rlhfctl.models.hub import hub_errors
from rlhfctl.models.scan import scan_folder
from rlhfctl.recipe.reward_sources import HUB

if TYPE_CHECKING:
    from rlhfctl.recipe.reward_sources import RewardModelLoading

NORMALIZATION_FILE = "score_normalization.json"
"""File in every reward model of `train-rm`; no other reward model has it."""
_ADAPTER = "adapter_config.json"
_CONFIG = "config.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_CLASSIFIER = "ForSequenceClassification"
DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Patterns of the files that are downloaded from the top of a Hub repository."""
_NO_LIMIT = 1_000_000
"""Tokenizers without a limit have a `model_max_length` far above this."""


def is_foreign(source: str) -> bool:
    """Return whether a source is a reward model from elsewhere: on the Hub, or another tool's.

    Args:
        source: `hub:ID` or a folder. A folder of `train-rm` has a score normalization.
    """
    if source.startswith(HUB):
        return True
    folder = Path(source).expanduser()
    return folder.is_dir() and not (folder / NORMALIZATION_FILE).is_file()


def short_name(source: str) -> str:
    """Return the last part of a source's id or path."""
    return Path(source.removeprefix(HUB)).name


@dataclass(frozen=True)
class ForeignFiles:
    """A folder with a one-output sequence classifier, its tokenizer and its safetensors weights.

    Attributes:
        folder: Folder of the model, or its snapshot in the Hub's cache.
        where: Recipe key and source, for errors.
        config: Content of its config.json.
        has_template: Whether its tokenizer has a chat template.
        limit: Longest input in tokens; None: unknown.
        weight_bytes: Size of its weight files, in bytes.
    """

    folder: Path
    where: str
    config: dict[str, Any]
    has_template: bool
    limit: int | None
    weight_bytes: int

    @classmethod
    def find(
        cls, source: str, loading: RewardModelLoading, key: str, *, offline: bool = False
    ) -> ForeignFiles:
        """Find the files, downloading those of a Hub model, and check all but the weights.

        Args:
            source: `hub:ID` or a folder.
            loading: Revision and longest input.
            key: Recipe key of the source, for errors.
            offline: Look for a Hub model in the cache only.

        Raises:
            CheckpointError: It is no sequence classifier with one output, or lacks files.
            EnvironmentFault: The Hub model cannot be downloaded.
            UnsafeError: It needs its own code, or has weights in pickle files only.
        """
        where = f"{key}: {source}"
        cached = offline and source.startswith(HUB)
        if source.startswith(HUB):
            folder = _snapshot(source, loading, key, offline)
        else:
            folder = Path(source).expanduser()
        config = _read(folder / _CONFIG, where)
        _check_code(config, folder)
        scan_folder(folder)
        _check_architecture(config, where)
        _check_outputs(config, where)
        if not any((folder / name).is_file() for name in _TOKENIZER):
            raise CheckpointError(
                f"has no tokenizer ({', '.join(_TOKENIZER)})",
                where,
                "Save the tokenizer that it was trained with into its folder.",
            )
        own = _tokenizer_config(folder)
        template = bool(own.get("chat_template")) or any(
            (folder / name).is_file() for name in _TEMPLATES
        )
        limit = _limit(config, own)
        if loading.max_length is not None and limit is not None and loading.max_length > limit:
            raise CheckpointError(
                f"max_length is {loading.max_length:,}, and the model takes {limit:,} tokens",
                where,
                f"Set max_length to {limit} or less, or leave it out.",
            )
        return cls(folder, where, config, template, limit, _weights(folder, where, cached))


def _snapshot(source: str, loading: RewardModelLoading, key: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(source, key):
        folder = Path(
            snapshot_download(
                source.removeprefix(HUB),
                revision=loading.revision,
                allow_patterns=[*DOWNLOADED],
                ignore_patterns=["*/*"],
                local_files_only=offline,
            )
        )
        if not (folder / _CONFIG).is_file():
            raise FileNotFoundError(f"no {_CONFIG} in the repository, or not in the Hub's cache")
    # The cache has a folder per commit.
    note_loaded("model", source.removeprefix(HUB), loading.revision, folder.name)
    return folder


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        adapter = (path.parent / _ADAPTER).is_file()
        raise CheckpointError(
            "is a LoRA adapter of another tool, not a whole model"
            if adapter
            else f"has no readable {path.name}",
            where,
            "Merge it into its base and save the whole classifier with its tokenizer."
            if adapter
            else "Name a folder written by save_pretrained or by train-rm, or hub:ID.",
        ) from error
    return content if isinstance(content, dict) else {}


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return _read(path, str(path)) if path.is_file() else {}


def _check_code(config: dict[str, Any], folder: Path) -> None:
    if "auto_map" in config:
        raise UnsafeError(
            "the reward model requires running its own code (auto_map)",
            str(folder / _CONFIG),
            "Only classifiers that transformers itself has are loaded as reward models.",
        )


def _check_architecture(config: dict[str, Any], where: str) -> None:
    names = [str(name) for name in config.get("architectures") or ()]
    if not any(name.endswith(_CLASSIFIER) for name in names):
        raise CheckpointError(
            f"is {', '.join(names) or 'of an unknown class'}, not a sequence classifier",
            where,
            f"A reward model must be a {_CLASSIFIER.removeprefix('For')} with one output.",
        )


def _check_outputs(config: dict[str, Any], where: str) -> None:
    labels = config.get("id2label")
    # transformers writes neither where there are two outputs, its default.
    count = len(labels) if isinstance(labels, dict) else int(config.get("num_labels") or 2)
    if count != 1:
        named = ", ".join(map(str, labels.values())) if isinstance(labels, dict) else "unnamed"
        raise CheckpointError(
            f"has {count} outputs ({named}), and a reward model has one",
            where,
            "Use a classifier with num_labels 1; its output is the score.",
        )


def _limit(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    """Return the smaller one of the model's and the tokenizer's limits."""
    text = config.get("text_config")
    parts = [config, text if isinstance(text, dict) else {}]
    limits = [
        part.get(name) for part in parts for name in ("max_position_embeddings", "n_positions")
    ]
    limits.append(tokenizer.get("model_max_length"))
    lengths = [int(limit) for limit in limits if isinstance(limit, int | float) and limit > 0]
    return min((limit for limit in lengths if limit < _NO_LIMIT), default=None)


def _weights(folder: Path, where: str, cached: bool) -> int:
    files = list(folder.glob("*.safetensors"))
    # Of a model in the Hub's cache perhaps only the small files have been downloaded.
    if not files and not cached:
        raise UnsafeError(
            "has no safetensors weights; other formats can run code when they are read",
            where,
            "Convert it with save_pretrained, or name a revision that has safetensors.",
        )
    return sum(file.stat().st_size for file in files)
