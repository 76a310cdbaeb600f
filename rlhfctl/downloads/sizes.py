"""Files and bytes that a repository's download takes, asked of the Hub before any of them."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.downloads.errors import hub_requests
from rlhfctl.errors import DataError, UnsafeError
from rlhfctl.models.foreign_files import DOWNLOADED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rlhfctl.downloads.needs import Repository

TIMEOUT = 10.0
"""Seconds until a question to the Hub is given up."""
_TEMPLATES = "additional_chat_templates/*.jinja"
_WEIGHTS = "*.safetensors"
_WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        name: Path in the repository.
        size: Bytes.
        is_cached: Whether it is in the Hub's cache on this machine.
    """

    name: str
    size: int
    is_cached: bool


@dataclass(frozen=True)
class Download:
    """The download of one repository.

    Attributes:
        repository: The repository.
        commit: Commit that its revision is now.
        files: Files that the stages read; of a data set, all splits of the configuration.
    """

    repository: Repository
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes of the files that are not in the cache."""
        return sum(file.size for file in self.files if not file.is_cached)


def measure(repository: Repository) -> Download:
    """Ask the Hub which files a repository's download takes, and look for them in the cache.

    Raises:
        DataError: The data set has no such configuration.
        EnvironmentFault: The repository is gated, private or missing, or the Hub cannot be reached.
        UnsafeError: A model has no safetensors weights.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT

    api = HfApi()
    with hub_requests(repository, ENDPOINT):
        ask = api.dataset_info if repository.is_data else api.model_info
        info = ask(
            repository.id,
            revision=repository.revision,
            files_metadata=True,
            timeout=TIMEOUT,
        )
        api.auth_check(repository.id, repo_type="dataset" if repository.is_data else "model")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    commit = str(info.sha)
    if repository.is_data:
        return Download(repository, commit, _data_files(repository, sizes))
    names = model_files(repository, sizes)
    return Download(
        repository,
        commit,
        tuple(
            RemoteFile(name, sizes[name], _is_cached(repository.id, name, commit)) for name in names
        ),
    )


def model_files(repository: Repository, names: Iterable[str]) -> list[str]:
    """Return the files of a model's repository that loading it reads.

    Weights in a second format are left out: pickle files, and a base model's safetensors under
    other names than transformers', such as Mistral's ``consolidated.safetensors``.

    Raises:
        UnsafeError: There are no safetensors weights.
    """
    names = sorted(names)
    top = [name for name in names if "/" not in name and _matches(name, DOWNLOADED)]
    if repository.role == "base model":
        weights = [name for name in top if fnmatch.fnmatchcase(name, _WEIGHTS)]
        loaded = [_WHOLE] if _WHOLE in weights else [n for n in weights if _SHARD.fullmatch(n)]
        top = [name for name in top if name not in weights or name in loaded]
        top += [name for name in names if _matches(name, (_TEMPLATES,))]
        top += [name for name in names if repository.runs_code and name.endswith(".py")]
    if not any(name.endswith(".safetensors") for name in top):
        raise UnsafeError(
            "has no safetensors weights; other formats can run code when they are read",
            repository.where,
            "Convert it with save_pretrained, or name a revision that has safetensors.",
        )
    return top


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_cached(repository: str, name: str, commit: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, name, revision=commit), str)


def _data_files(repository: Repository, sizes: dict[str, int]) -> tuple[RemoteFile, ...]:
    """Return the files that datasets loads for the configuration, all of its splits."""
    from datasets import load_dataset_builder

    from rlhfctl.data.hub import load_errors

    splits = ", ".join(repository.splits)
    with load_errors(repository.id, repository.config, splits, repository.revision):
        builder = load_dataset_builder(
            repository.id, repository.config, revision=repository.revision
        )
    listed = [str(path) for split in (builder.config.data_files or {}).values() for path in split]
    # hf://datasets/org/name@commit/path
    paths = {path.partition("@")[2].partition("/")[2] for path in listed}
    is_cached = Path(builder.cache_dir).is_dir()
    files = tuple(RemoteFile(path, sizes[path], is_cached) for path in sorted(paths & sizes.keys()))
    if not files:
        raise DataError("has no data files", repository.where, "Check config and revision.")
    return files
