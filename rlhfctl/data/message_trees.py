"""Conversation trees as one message per row, in the form of OpenAssistant's oasst1 and oasst2."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rlhfctl.data.rankings import weighed_pairs
from rlhfctl.data.rows import BadRowError, LeftOutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlhfctl.data.forms import Item, Kind, Source

Numbered = tuple[int, "Source"]


def oasst(rows: Iterable[Numbered], kind: Kind, chat: bool) -> Iterator[tuple[int, Item]]:
    """Convert messages with ``message_id``, ``parent_id``, ``role``, ``text`` and ``rank``.

    Demonstrations are the best or only replies of the assistant, each behind the conversation that
    leads to it. Comparisons are the pairs of ranked replies to one message, weighted as a ranking.
    """
    del chat
    nodes: dict[Any, Numbered] = {}
    for number, row in rows:
        identities = (row.get("message_id"), row.get("parent_id"))
        if all(isinstance(name, str | int | None) for name in identities):
            nodes[identities[0]] = (number, {name: _none_if_empty(row[name]) for name in row})
        else:
            yield number, BadRowError("message_id or parent_id is no text")
    children: dict[Any, list[Numbered]] = defaultdict(list)
    for number, row in nodes.values():
        children[row.get("parent_id")].append((number, row))
    for identity, (number, row) in nodes.items():
        try:
            if kind == "comparisons":
                yield from _compared(nodes, identity, row, children[identity])
            elif row.get("role") == ("prompter" if kind == "prompts" else "assistant"):
                name = "prompt" if kind == "prompts" else "messages"
                lower = kind == "demonstrations" and _rank(row) > 0
                path = {name: _path(nodes, row)}
                yield number, LeftOutError("reply that is not ranked first") if lower else path
        except BadRowError as error:
            yield number, error


def _compared(
    nodes: dict[Any, Numbered], identity: Any, row: Source, replies: list[Numbered]
) -> Iterator[tuple[int, Item]]:
    ranked = [
        (number, reply)
        for number, reply in replies
        if reply.get("role") == "assistant" and reply.get("rank") is not None
    ]
    if len(ranked) < 2 or identity is None:
        return
    responses = [[_message(reply)] for _, reply in ranked]
    qualities = [-_rank(reply) for _, reply in ranked]
    for item in weighed_pairs(_path(nodes, row), responses, qualities):
        yield ranked[0][0], item


def _path(nodes: dict[Any, Numbered], row: Source) -> list[dict[str, Any]]:
    """Return the messages from the root of the tree to a row."""
    turns = [_message(row)]
    seen = {row.get("message_id")}
    while row.get("parent_id") is not None:
        if row["parent_id"] not in nodes or row["parent_id"] in seen:
            raise BadRowError("the message that parent_id names is not in the data")
        seen.add(row["parent_id"])
        row = nodes[row["parent_id"]][1]
        turns.append(_message(row))
    return turns[::-1]


def _rank(row: Source) -> float:
    try:
        return float(row.get("rank") or 0)
    except (TypeError, ValueError) as error:
        raise BadRowError("rank is not a number") from error


def _message(row: Source) -> dict[str, Any]:
    return {"role": row.get("role"), "content": row.get("text")}


def _none_if_empty(value: Any) -> Any:
    """Return None for an empty CSV cell."""
    return None if value == "" else value
