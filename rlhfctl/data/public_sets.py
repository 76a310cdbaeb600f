"""Forms of single public data sets: ShareGPT, UltraChat, SHP, summaries, arena battles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.data.cells import choice_of, object_of
from rlhfctl.data.forms import compared
from rlhfctl.data.messages import list_in
from rlhfctl.data.rows import BadRowError, LeftOutError, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.data.forms import Item, Kind, Source


def sharegpt(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert ``conversations``, with LLaMA-Factory's ``system``, ``chosen`` and ``rejected``."""
    del chat
    turns: Any = row.get("conversations")
    if isinstance(turns, str):
        turns = list_in(turns)
    if not isinstance(turns, (list, tuple)):
        raise BadRowError("conversations is missing, or no list")
    if row.get("system"):
        turns = [{"role": "system", "content": row["system"]}, *turns]
    if kind == "comparisons":
        yield compared(turns, row.get("chosen"), row.get("rejected"))
    else:
        yield {"messages": turns}


def ultrachat(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert ``data``, a list of texts by user and assistant in turn."""
    del kind, chat
    texts = list_in(row.get("data"))
    if texts is None:
        raise BadRowError("data is not a list of texts")
    roles = ("user", "assistant")
    yield {
        "messages": [
            {"role": roles[number % 2], "content": text_of(text, "data")}
            for number, text in enumerate(texts)
        ]
    }


def shp(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a post (``history``) with two replies; ``labels`` is 1 if A is preferred, else 0."""
    post = text_of(row.get("history"), "history")
    question: Any = [{"role": "user", "content": post.strip()}] if chat else f"{post.rstrip()}\n\n"
    if kind == "prompts":
        yield {"prompt": question}
        return
    better = choice_of(row.get("labels"), "labels")
    replies = row.get("human_ref_B"), row.get("human_ref_A")
    yield compared(question, replies[better], replies[1 - better])


def summaries(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a comparison of OpenAI's summarize_from_feedback.

    Its prompts are Stiennon et al.'s (2020, appendix B.2): subreddit, title, post, "TL;DR:".
    """
    del chat  # the task is in the form of the text
    question = _post(object_of(row.get("info"), "info"))
    if kind == "prompts":
        yield {"prompt": question}
        return
    both = list_in(row.get("summaries"))
    if both is None or len(both) != 2:
        raise BadRowError("summaries is not a list of two")
    texts = [text_of(object_of(one, "summaries").get("text"), "a summary") for one in both]
    texts = [" " + text.strip() for text in texts]
    better = choice_of(row.get("choice"), "choice")
    worker = row.get("worker")
    yield compared(question, texts[better], texts[1 - better], annotator=worker)


def _post(info: Mapping[str, Any]) -> str:
    if info.get("post"):
        head = [("SUBREDDIT", "subreddit", "r/"), ("TITLE", "title", ""), ("POST", "post", "")]
    else:
        head = [("TITLE", "title", ""), ("ARTICLE", "article", "")]
    parts = [
        f"{label}: {before}{text_of(info[key], key).strip()}"
        for label, key, before in head
        if info.get(key)
    ]
    if not parts or not (info.get("post") or info.get("article")):
        raise BadRowError("info has no post")
    return "\n\n".join([*parts, "TL;DR:"])


_WINNERS = {"model_a": 0, "model_b": 1}


def arena(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a battle of two conversations; ``winner`` is model_a, model_b or a tie."""
    del chat
    if kind == "prompts":
        yield {"messages": row.get("conversation_a")}
        return
    winner = str(row.get("winner")).strip().lower()
    if winner.startswith("tie"):
        raise LeftOutError("tied vote")
    if winner not in _WINNERS:
        raise BadRowError("winner is not model_a, model_b or tie")
    sides = row.get("conversation_a"), row.get("conversation_b")
    number = _WINNERS[winner]
    yield {"chosen": sides[number], "rejected": sides[1 - number]} | (
        {"annotator": row["judge"]} if "judge" in row else {}
    )
