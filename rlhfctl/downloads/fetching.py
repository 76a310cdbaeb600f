"""Download of a repository into the Hub's cache, by the calls that the stages make."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.data.hub import read_hub
from rlhfctl.downloads.errors import hub_requests
from rlhfctl.models.foreign_files import ForeignFiles
from rlhfctl.recipe.reward_sources import HUB, RewardModelLoading
from rlhfctl.run.disk import folder_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.data.progress import Progress
    from rlhfctl.downloads.needs import Repository
    from rlhfctl.downloads.sizes import Download

_INTERVAL = 0.5
_MB = 1_000_000


def fetch(download: Download, progress: Progress) -> None:
    """Download what is missing of a repository.

    A stopped download goes on where it ended, file by file.

    Raises:
        CheckpointError: A reward model is no sequence classifier with one output.
        DataError: The data set has no such split, or is unreadable.
        EnvironmentFault: The download failed.
        UnsafeError: A reward model needs its own code.
    """
    with _shown(download, progress):
        if download.repository.is_data:
            data = download.repository
            for split in data.splits:
                read_hub(data.id, data.config, split, data.revision)
        elif download.repository.role == "reward model":
            loading = RewardModelLoading(revision=download.repository.revision)
            key = download.repository.keys[0]
            ForeignFiles.find(f"{HUB}{download.repository.id}", loading, key)
        else:
            _base_model(download)


def _base_model(download: Download) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import ENDPOINT

    repository = download.repository
    with hub_requests(repository, ENDPOINT):
        for file in download.files:
            # By the recipe's revision, not the commit: the cache then knows what the branch is.
            hf_hub_download(repository.id, file.name, revision=repository.revision)


@contextmanager
def _shown(download: Download, progress: Progress) -> Iterator[None]:
    """Report the growth of the repository's folder in the cache, in megabytes."""
    folder = cache_folder(download.repository)
    before, total = folder_bytes(folder), max(1, round(download.missing_bytes / _MB))
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(_INTERVAL):
            with suppress(FileNotFoundError):  # a file was finished, and renamed, meanwhile
                arrived = round((folder_bytes(folder) - before) / _MB)
                progress.step(min(arrived, total), {})

    reporter = threading.Thread(target=report, daemon=True)
    progress.start(download.repository.id, total, "MB")
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
    progress.finish()


def cache_folder(repository: Repository) -> Path:
    """Return the folder of a repository in the Hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    kind = "dataset" if repository.is_data else "model"
    return Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository.id, repo_type=kind)
