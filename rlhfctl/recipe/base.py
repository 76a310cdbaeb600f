"""The base class of recipe sections, and the number types that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from rlhfctl.recipe.addresses import has_credentials


class UndeclaredReadError(RuntimeError):
    """A programming error: a stage read a recipe key that `stage_table.py` does not declare."""

    def __init__(self, stage: str, key: str) -> None:
        super().__init__(
            f"stage {stage} read the recipe key {key}, which it does not declare; add the key to "
            "the stage's `reads` in rlhfctl/stage_table.py"
        )
        self.stage = stage
        self.key = key


class Section(BaseModel):
    """One section of a recipe: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        # An error's own text, as --debug prints it, must not quote a secret that was refused.
        hide_input_in_errors=True,
    )

    _view: tuple[str, str] | None = PrivateAttr(default=None)
    """In a stage's view: the stage's name and the section's dotted key."""

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        for name, value in self.__dict__.items():
            texts = value if isinstance(value, list) else [value]
            if any(isinstance(text, str) and has_credentials(text) for text in texts):
                raise ValueError(
                    f"{name} must not contain a user name or a password, since recipes are stored "
                    "with results; where a server needs a key, name its variable by api_key_env"
                )
        return self

    def restricted_to(self, readable: dict[str, Any], stage: str, path: str) -> Self:
        """Return a copy with only some of the keys; reading another one raises.

        Args:
            readable: Key -> value, for the keys that can be read.
            stage: Name of the stage that the copy is for.
            path: Dotted key of this section; empty for the recipe itself.
        """
        copy = self.model_copy()
        for name in set(copy.__dict__) - set(readable):
            del copy.__dict__[name]
        copy.__dict__.update(readable)
        copy._view = (stage, path)
        return copy

    if not TYPE_CHECKING:  # mypy would take every misspelt attribute for a key

        def __getattr__(self, name: str) -> Any:
            """Refuse a key that was left out of a stage's view.

            Raises:
                UndeclaredReadError: This is a view, and the key is not among the stage's.
                AttributeError: There is no such key.
            """
            if name in type(self).model_fields:
                stage, path = self._view or ("?", "")
                raise UndeclaredReadError(stage, f"{path}.{name}" if path else name)
            return super().__getattr__(name)


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
