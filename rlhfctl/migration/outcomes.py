"""Outcomes of a migrated file's keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.stage_table import Stage

Kind = Literal["mapped", "default", "left_out", "unsupported", "unknown", "empty"]


@dataclass(frozen=True)
class KeyOutcome:
    """One key of a file.

    Attributes:
        file: Name of the file.
        key: The key, dotted within a section.
        value: Its value in the file.
        kind: ``mapped``; ``default``, mapped from the tool's default; ``left_out``, without any
            effect on what is trained; ``unsupported``, which has one; ``unknown``; or ``empty``,
            without a value.
        targets: Recipe keys that it sets.
        reason: Reason for which it is left out; a remark on a mapped key.
    """

    file: str
    key: str
    value: object
    kind: Kind
    targets: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Setting:
    """The value of a recipe key.

    Attributes:
        value: The value.
        file: Name of the file that sets it.
        key: The file's key.
        is_default: Whether the file lacks the key, and the value is the tool's default.
    """

    value: object
    file: str
    key: str
    is_default: bool = False

    @property
    def place(self) -> str:
        """File and key, for messages."""
        return f"{self.file}: {self.key}"


@dataclass
class SourceFile:
    """One file on its way into a recipe.

    Attributes:
        name: The file as named by the user.
        stage: The stage that it configures.
        values: Its keys.
        outcomes: What became of them.
        settings: Recipe key -> value.
        conflicts: Sentences on keys of the file that set one recipe key to different values.
    """

    name: str
    stage: Stage
    values: Mapping[str, object]
    outcomes: list[KeyOutcome] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)

    def set(self, target: str, value: object, key: str, *, is_default: bool = False) -> None:
        """Set a recipe key; an earlier key of the file wins over a later one, and is named."""
        earlier = self.settings.get(target)
        if earlier is not None and not is_default and earlier.value != value:
            self.conflicts.append(
                f"{target}: {self.name} sets it by {earlier.key} ({earlier.value}) and by {key} "
                f"({value}); {earlier.value} is used"
            )
        if earlier is None:
            self.settings[target] = Setting(value, self.name, key, is_default)

    def record(
        self,
        key: str,
        kind: Kind,
        *,
        targets: tuple[str, ...] = (),
        reason: str = "",
        value: object = None,
    ) -> None:
        """Note what became of a key."""
        value = self.values.get(key, value)
        self.outcomes.append(KeyOutcome(self.name, key, value, kind, targets, reason))

    def remark(self, key: str, text: str) -> None:
        """Add a remark to a key's outcome."""
        self.outcomes = [
            KeyOutcome(one.file, one.key, one.value, one.kind, one.targets, text)
            if one.key == key
            else one
            for one in self.outcomes
        ]

    def of_kind(self, *kinds: Kind) -> Iterator[KeyOutcome]:
        """Yield the outcomes of some kinds, in the file's order."""
        return (outcome for outcome in self.outcomes if outcome.kind in kinds)
