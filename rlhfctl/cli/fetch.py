"""Download of what a recipe needs, with sizes before it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.activity import byte_size
from rlhfctl.cli.resolve import resolve
from rlhfctl.console import Terminal, safe
from rlhfctl.progress import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.downloads.sizes import Download


def fetch_recipe(options: RunOptions, *, dry_run: bool) -> None:
    """Download the models and data sets of a recipe that are not in the Hub's cache.

    Raises:
        RlhfctlError: The recipe is invalid; a repository is missing, gated or unusable; the Hub
            cannot be reached; or the disk is too small.
    """
    from rlhfctl.downloads.errors import require_online
    from rlhfctl.downloads.fetching import cache_folder, fetch
    from rlhfctl.downloads.needs import (
        fetched_by_others,
        local_inputs,
        needed_repositories,
        streamed,
    )
    from rlhfctl.downloads.sizes import measure
    from rlhfctl.run.disk import require_space

    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    resolved = resolve(options)
    recipe, path = resolved.loaded.recipe, resolved.choice.path
    repositories = needed_repositories(recipe)
    local, others = local_inputs(recipe), fetched_by_others(recipe)
    if repositories:
        require_online(repositories)
    terminal.note(f"recipe {path} ({resolved.choice.reason})")
    for key, source in local.items():
        terminal.note(f"{key}: {source} is on this machine")
    downloads = [measure(repository) for repository in repositories]
    if downloads:
        terminal.result(_table(downloads))
    later = streamed(recipe)
    for key, source in later.items():
        terminal.note(f"{key}: {source} is streamed; the first stage reads its rows from the Hub")
    for key, source in others.items():
        terminal.warn(f"{key}: {source} is not fetched; its package downloads it in the first run")
    missing = [download for download in downloads if download.missing_bytes]
    if missing and not dry_run:
        total = sum(download.missing_bytes for download in missing)
        require_space(cache_folder(missing[0].repository), total, "the download")
        with View(terminal) as view:
            for download in missing:
                fetch(download, view)
    if options.json:
        terminal.write_json(
            {
                "path": str(path),
                "dry_run": dry_run,
                "repositories": [_as_json(download) for download in downloads],
                "local": local,
                "streamed": later,
                "not_fetched": others,
            }
        )
    name = str(options.recipe or path)
    # What is streamed needs the Hub, unless its rows are in rlhfctl's cache already.
    command = f"rlhfctl run {name}" if later else f"rlhfctl run {name} --offline"
    if downloads:
        terminal.result(_summary(downloads, command, dry_run=dry_run))
    elif later:
        terminal.result(f"nothing to download; next: {command}")
    else:
        terminal.result(f"{name} needs nothing from the Hub")


def _table(downloads: Sequence[Download]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("repository", overflow="fold")
    table.add_column("for", no_wrap=True)
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("to download", no_wrap=True, justify="right")
    for download in downloads:
        missing = download.missing_bytes
        table.add_row(
            safe(download.repository.id),
            download.repository.role,
            byte_size(download.total_bytes),
            byte_size(missing) if missing else "cached",
        )
    return table


def _as_json(download: Download) -> dict[str, object]:
    return {
        **asdict(download.repository),
        "commit": download.commit,
        "bytes": download.total_bytes,
        "missing_bytes": download.missing_bytes,
        "files": [file.name for file in download.files],
    }


def _summary(downloads: Sequence[Download], command: str, *, dry_run: bool) -> str:
    missing = sum(download.missing_bytes for download in downloads)
    if not missing:
        return f"all is in the cache; next: {command}"
    if dry_run:
        return f"{byte_size(missing)} to download; without --dry-run, they are"
    return f"downloaded {byte_size(missing)}; next: {command}"
