"""The constant texts that a chat template puts around each turn, found by rendering probes.

Ollama renders Go templates, not Jinja. A template that writes fixed texts before and after each
turn can be rewritten; one with conditions on content, position or tools cannot, and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhfctl.data.rendering import RenderingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.data.rendering import ChatTemplate

_MARKS = {"system": "SYSTEMPROBE", "user": "USERPROBE", "assistant": "ASSISTANTPROBE"}
_CHECKED = (
    ("user",),
    ("user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
)


@dataclass(frozen=True)
class ChatPieces:
    """Texts around turns.

    Attributes:
        around: Role -> texts before and after its content.
        start: Text before the first turn, with a system turn.
        default_system: Text before the first turn, without one.
        ask: Text after the last turn, which begins the answer.
    """

    around: dict[str, tuple[str, str]] = field(default_factory=dict)
    start: str = ""
    default_system: str = ""
    ask: str = ""

    def render(self, roles: Sequence[str]) -> str:
        """Return a conversation of probes as these pieces write it."""
        first = self.start if roles[0] == "system" else self.default_system
        turns = [f"{self.around[role][0]}{_MARKS[role]}{self.around[role][1]}" for role in roles]
        return first + "".join(turns) + self.ask


def chat_pieces(template: ChatTemplate) -> ChatPieces | None:
    """Return the pieces of a template; None if it is not made of such pieces.

    Args:
        template: Chat template with its variables.

    Raises:
        RecipeError: There is no chat template.
    """
    try:
        pieces = _pieces(template)
    except (RenderingError, ValueError):
        return None
    for roles in _CHECKED:
        if "system" in roles and "system" not in pieces.around:
            continue
        try:
            if _rendered(template, roles) != pieces.render(roles):
                return None
        except RenderingError:
            return None
    return pieces


def _rendered(template: ChatTemplate, roles: Sequence[str], *, ask: bool = True) -> str:
    return template.render([{"role": role, "content": _MARKS[role]} for role in roles], ask=ask)


def _pieces(template: ChatTemplate) -> ChatPieces:
    """Return pieces that hold for the probes they are taken from; raises ValueError else."""
    ask = _rendered(template, ["user"]).removeprefix(_rendered(template, ["user"], ask=False))
    # Between two user turns of one rendering: what follows a user, and what precedes one.
    long = _rendered(template, ["user", "assistant", "user", "assistant", "user"])
    begin, _, rest = long.partition(_MARKS["user"])
    to_assistant, _, rest = rest.partition(_MARKS["assistant"])
    to_user, _, rest = rest.partition(_MARKS["user"])
    after_last = rest.rpartition(_MARKS["user"])[2]
    user_after = after_last.removesuffix(ask)
    if not to_assistant.startswith(user_after):
        raise ValueError("the text after a user turn varies")
    assistant_before = to_assistant.removeprefix(user_after)
    end = _rendered(template, ["user", "assistant"], ask=False).rpartition(_MARKS["assistant"])[2]
    if not to_user.startswith(end) or not begin.endswith(to_user.removeprefix(end)):
        raise ValueError("the text between an assistant and a user turn varies")
    assistant_after, user_before = end, to_user.removeprefix(end)
    around = {
        "user": (user_before, user_after),
        "assistant": (assistant_before, assistant_after),
    }
    default_system = begin.removesuffix(user_before)
    start = ""
    try:
        with_system = _rendered(template, ["system", "user"])
    except RenderingError:
        return ChatPieces(around, "", default_system, ask)
    before, _, between = with_system.partition(_MARKS["system"])
    system_after = between.partition(_MARKS["user"])[0].removesuffix(user_before)
    around["system"] = (before, system_after)
    return ChatPieces(around, start, default_system, ask)
