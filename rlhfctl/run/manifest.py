"""Record of the finished stages: inputs, outputs and metrics per stage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rlhfctl.errors import CheckpointError, UnsafeError
from rlhfctl.json_text import parse_json
from rlhfctl.results.io import from_json
from rlhfctl.run.files import digest
from rlhfctl.run.sealed import has_own_digest, write_sealed

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
SCHEMA_VERSION = 2
_RESTORE = "restore a valid copy, or remove the file to re-run all stages"


@dataclass(frozen=True)
class Artifact:
    """Path and SHA-256 of a file or folder at the time of use.

    Attributes:
        path: Relative to the run folder if inside it, else absolute.
        sha256: Digest by `rlhfctl.run.files.digest`.
    """

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path, root: Path) -> Self:
        """Record the current state of a file or folder.

        Raises:
            OSError: The path cannot be read.
        """
        absolute = path.resolve()
        inside = absolute.is_relative_to(root.resolve())
        name = absolute.relative_to(root.resolve()).as_posix() if inside else str(absolute)
        return cls(name, digest(path))


@dataclass(frozen=True)
class StageRecord:
    """One finished stage.

    Attributes:
        stage: `sft`, `rm`, `ppo` or `eval`.
        recipe_part: Recipe values that the result depends on, as JSON values.
        inputs: Checkpoints of earlier stages (`sft`, `rm`, `ppo`) and local files in the recipe.
        outputs: The result folder, under the stage's name.
        metrics: Metrics of the stage.
        versions: Versions of Python, rlhfctl and the libraries.
        seed: Seed of the run.
        started: Start time, UTC, ISO 8601.
        seconds: Wall-clock time.
        rows: Kind of data -> row counts: read, usable, dropped and left out by cause.
        changes: Settings and numbers of processes that changed while it was interrupted.
        log: Its training log, which reports draw curves from.
        machine: Hardware, and commit of rlhfctl's source if known.
        repositories: Recipe key -> id and commit of the Hub's repository that it names.
    """

    stage: str
    recipe_part: dict[str, Any] = field(metadata={"values": True})
    inputs: dict[str, Artifact]
    outputs: dict[str, Artifact]
    metrics: dict[str, Any] = field(metadata={"values": True})
    versions: dict[str, str]
    seed: int
    started: str
    seconds: float
    rows: dict[str, Any] = field(default_factory=dict, metadata={"values": True})
    changes: list[str] = field(default_factory=list)
    log: Artifact | None = field(default=None, metadata={"null": True})
    machine: dict[str, str] = field(default_factory=dict)
    repositories: dict[str, str] = field(default_factory=dict)

    def result(self, kind: type[T], manifest: Path) -> T:
        """Return the metrics as a result dataclass.

        Args:
            kind: Result of the stage, such as `SFTResult`.
            manifest: File that the record is from, for the error message.

        Raises:
            CheckpointError: A field is unknown, missing or of the wrong type.
        """
        return from_json(kind, self.metrics, f"{manifest}, metrics of {self.stage}")


@dataclass(frozen=True)
class StageOutcome:
    """Return value of a stage: numeric metrics, and row counts per kind of data."""

    metrics: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The finished stages of one run; a stage is done once it is listed here."""

    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def with_stage(self, record: StageRecord) -> Manifest:
        """Return the manifest with this stage's record added or replaced."""
        return Manifest({**self.stages, record.stage: record})

    def save(self, path: Path) -> None:
        """Write the manifest atomically, with its digest.

        Raises:
            ValueError: A metric is NaN or infinite.
            OSError: The file cannot be written.
        """
        write_sealed(
            path,
            {
                "schema_version": self.schema_version,
                "stages": {name: asdict(record) for name, record in self.stages.items()},
            },
        )

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest; return an empty one if the file does not exist.

        Raises:
            CheckpointError: The file is damaged, edited, unreadable, or has another schema version.
            UnsafeError: An output is outside of the run folder.
        """
        try:
            value = parse_json(path.read_text(encoding="utf-8"))
            version = value["schema_version"]
            if version != SCHEMA_VERSION:
                raise _other_version(path, version)
            if not has_own_digest(value):
                raise _changed(path)
            stages = {name: _record(entry, path) for name, entry in value["stages"].items()}
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the manifest is damaged ({type(error).__name__}: {error})",
                where=str(path),
                hint=_RESTORE,
            ) from error
        return cls(stages)


def _record(entry: object, path: Path) -> StageRecord:
    """Return a record after checking the type of each field, and that no path leaves the run.

    Raises:
        CheckpointError: A field is missing, unknown or of the wrong type.
        UnsafeError: A path leads out of the run folder.
    """
    try:
        record = from_json(StageRecord, entry, str(path))
    except CheckpointError as error:
        raise CheckpointError(
            f"the manifest is damaged ({error.what})", error.where, _RESTORE
        ) from error
    for name, artifact in record.outputs.items():
        parts = PurePosixPath(artifact.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise UnsafeError(
                f"the output {name} of {record.stage} leads out of the run folder: {artifact.path}",
                str(path),
                _RESTORE,
            )
    return record


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(
        "the manifest was edited or damaged since rlhfctl wrote it: its digest does not match",
        where=str(path),
        hint="undo the change, restore a copy, or remove the file to re-run all stages",
    )


def _other_version(path: Path, version: object) -> CheckpointError:
    return CheckpointError(
        f"the manifest has schema version {version!r}; this rlhfctl reads {SCHEMA_VERSION}",
        where=str(path),
        hint="use the rlhfctl version that created the run, or another run with --run NAME",
    )
