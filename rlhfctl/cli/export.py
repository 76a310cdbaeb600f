"""The `export` and `push` commands on a finished run."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from rlhfctl.cli.finished_runs import library_output, open_run

if TYPE_CHECKING:
    from rlhfctl.console import Terminal
    from rlhfctl.export.options import ExportOptions, ExportResult, PushOptions
    from rlhfctl.export.push import Upload

DEFAULT_FOLDER = Path("exports")


def export_run(
    name: str | None,
    runs_dir: Path,
    options: ExportOptions,
    output: Path | None,
    terminal: Terminal,
) -> None:
    """Export a stage's model and print what was written, its check, and the commands to serve it.

    Args:
        name: Name or folder of the run; None: the newest.
        runs_dir: Directory for runs.
        options: Form of the export.
        output: Folder to create; None: in `DEFAULT_FOLDER`, by run and stage.
        terminal: Output.

    Raises:
        UsageError: The options contradict one another, or the folder is not empty.
        CheckpointError: The stage is not finished.
        EnvironmentFault: A converter is missing.
        DivergedError: The export's outputs differ from the checkpoint's.
    """
    options.check()
    run = open_run(name, runs_dir)
    run.record(options.stage)
    folder = output or DEFAULT_FOLDER / f"{run.directory.name}-{options.stage}"
    terminal.note(f"run {run.directory.root}: exporting {options.stage} to {folder}")
    with library_output(run, "export"):
        from rlhfctl.export.writing import export

        result = export(run, options, folder.absolute())
    if terminal.as_json:
        value = asdict(result) | {"ok": True, "folder": str(folder), "run": str(run.directory.root)}
        terminal.write_json(value)
        return
    _show(terminal, result, folder)


def push_run(
    name: str | None,
    runs_dir: Path,
    options: ExportOptions,
    destination: PushOptions,
    terminal: Terminal,
) -> None:
    """Export a stage's model to a temporary folder and upload it, or list what would be.

    Raises:
        UsageError: The repository's name or the options are invalid.
        CheckpointError: The stage is not finished.
        EnvironmentFault: There is no token, or the upload failed.
        UnsafeError: The repository is public and `--public` is not set.
    """
    options.check()
    run = open_run(name, runs_dir)
    run.record(options.stage)
    from rlhfctl.export.push import (
        files_to_upload,
        push,
        require_public_base,
        require_repository,
        token,
    )

    require_repository(destination)
    recipe = run.recipe_of(options.stage)
    require_public_base(options, recipe.model, adapter=recipe.lora is not None)
    if not destination.dry_run:
        token()
    temporary = Path(mkdtemp(prefix="rlhfctl-push-"))
    try:
        folder = temporary / "export"
        terminal.note(f"run {run.directory.root}: exporting {options.stage}")
        with library_output(run, "push"):
            from rlhfctl.export.writing import export

            export(run, options, folder)
            upload = files_to_upload(folder)
            address = "" if destination.dry_run else push(folder, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if terminal.as_json:
        terminal.write_json(
            {
                "ok": True,
                "repository": destination.repository,
                "private": not destination.public,
                "dry_run": destination.dry_run,
                "files": upload.files,
                "address": address or None,
            }
        )
        return
    terminal.result(*_sizes(upload.files), _outcome(upload, destination, address))


def _outcome(upload: Upload, destination: PushOptions, address: str) -> str:
    kind = "public" if destination.public else "private"
    if destination.dry_run:
        total = _size(sum(upload.files.values()))
        return (
            f"dry run: {len(upload.files)} files, {total}, would go to the {kind} repository "
            f"{destination.repository}"
        )
    return f"uploaded to {address} ({kind})"


def _show(terminal: Terminal, result: ExportResult, folder: Path) -> None:
    compared = result.comparison
    unit = "scores" if compared.same_first is None else "logits"
    lines = [
        f"{folder}: {result.form} in {result.dtype}",
        *_sizes(result.files),
    ]
    lines.append(
        f"{unit} of the export and the checkpoint on {compared.prompts} prompts: largest difference "
        f"{compared.largest:.2g} (bound {compared.bound:.2g})"
    )
    if compared.training is not None:
        lines.append(
            f"the adapter itself changes the base's logits by up to {compared.training:.2g}"
        )
    lines += result.notes
    lines += [f"{program}: {command}" for program, command in result.commands.items()]
    terminal.result(*lines)


def _sizes(files: dict[str, int]) -> list[str]:
    width = max(map(len, files), default=0)
    return [f"  {name:<{width}}  {_size(size):>9}" for name, size in files.items()]


def _size(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
