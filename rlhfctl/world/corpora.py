"""The embedded data sets: rows determined by size and seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rlhfctl.errors import DataError
from rlhfctl.world.annotator_panel import PANEL, Pair, chosen_first
from rlhfctl.world.gold import gold_reward
from rlhfctl.world.streams import stream
from rlhfctl.world.tasks import EVERYDAY, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from rlhfctl.world.question import Question
    from rlhfctl.world.steps import StepsQuestion

    AnyQuestion = Question | StepsQuestion

Row = dict[str, Any]
Made = TypeVar("Made")
MIN_GOLD_MARGIN = 0.25


def _user(question: AnyQuestion) -> list[dict[str, str]]:
    return [{"role": "user", "content": question.prompt}]


def _assistant(response: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response}]


def _questions(rng: Random, task: Task) -> Iterator[AnyQuestion]:
    """Infinite iterator of questions with distinct prompts."""
    seen: set[str] = set()
    while True:
        question = task.question(rng)
        key = " ".join(question.prompt.lower().split())
        if key not in seen:
            seen.add(key)
            yield question


def _rows(
    n: int, make: Callable[[AnyQuestion], Made | None], rng: Random, task: Task
) -> list[Made]:
    """Apply `make` to distinct prompts until there are `n` rows; None skips a prompt.

    Raises:
        DataError: `n` is negative or above the task's `most_rows`.
    """
    if not 0 <= n <= task.most_rows:
        raise DataError(
            f"The embedded world makes 0 to {task.most_rows} rows of a data set, not {n}.",
            hint="reduce the number of rows",
        )
    rows: list[Made] = []
    questions = _questions(rng, task)
    while len(rows) < n:
        row = make(next(questions))
        if row is not None:
            rows.append(row)
    return rows


def _response_pair(question: AnyQuestion, rng: Random, task: Task) -> Pair:
    first = second = task.response(question, rng)
    while second == first:
        second = task.response(question, rng)
    return question.prompt, first, second


def response_pairs(n: int, seed: int, task: Task = EVERYDAY) -> list[Pair]:
    """Unlabelled pairs of independent responses from the distribution of `comparisons`."""
    rng = stream("response pairs", seed)
    questions = _questions(rng, task)
    return [_response_pair(next(questions), rng, task) for _ in range(n)]


def demonstrations(n: int, seed: int, task: Task = EVERYDAY) -> list[Row]:
    """Prompts with one demonstration each, of mixed quality: about 70 % are right.

    Rows: `prompt` and `completion`, conversational, and `kind`.

    Raises:
        DataError: `n` is negative or above the task's `most_rows`.
    """
    rng = stream("demonstrations", seed)

    def make(question: AnyQuestion) -> Row:
        response = task.demonstration(question, rng)
        return {
            "prompt": _user(question),
            "completion": _assistant(response),
            "kind": question.kind,
        }

    return _rows(n, make, rng, task)


def comparisons(n: int, seed: int, labels_per_pair: int = 1, task: Task = EVERYDAY) -> list[Row]:
    """Pairs of independent responses, each labelled by annotators drawn from the panel.

    Rows: `prompt`, `chosen`, `rejected`, conversational, with `annotator` and `kind`; one row per
    label, with the labels of a pair in consecutive rows.

    Args:
        n: Number of pairs, all with different prompts.
        seed: Random seed; determines the rows together with `n` and `labels_per_pair`.
        labels_per_pair: Number of different annotators per pair.
        task: Task of the questions and responses.

    Raises:
        DataError: `n` is out of range, or there are too few annotators.
    """
    if not 1 <= labels_per_pair <= len(PANEL):
        raise DataError(
            f"The embedded world has {len(PANEL)} annotators, so a pair can have 1 to "
            f"{len(PANEL)} labels, not {labels_per_pair}.",
            "data.comparisons.labels_per_pair",
        )
    rng = stream("comparisons", seed)

    def make(question: AnyQuestion) -> list[Row]:
        pair = _response_pair(question, rng, task)
        if labels_per_pair == 1:
            annotators = [rng.choice(PANEL)]
        else:
            annotators = rng.sample(PANEL, labels_per_pair)
        return [
            _comparison(question, pair, chosen_first(one, pair, rng)) | {"annotator": one.name}
            for one in annotators
        ]

    return [row for rows in _rows(n, make, rng, task) for row in rows]


def _comparison(question: AnyQuestion, pair: Pair, first_chosen: bool) -> Row:
    _, first, second = pair
    chosen, rejected = (first, second) if first_chosen else (second, first)
    return {
        "prompt": _user(question),
        "chosen": _assistant(chosen),
        "rejected": _assistant(rejected),
        "kind": question.kind,
    }


def gold_comparisons(n: int, seed: int, task: Task = EVERYDAY) -> list[Row]:
    """Pairs drawn as in `comparisons`, ordered by the gold reward with a margin of at least 0.25.

    Rows: `prompt`, `chosen`, `rejected`, conversational, with `kind`. For evaluation only.

    Raises:
        DataError: `n` is negative or above the task's `most_rows`.
    """
    rng = stream("gold comparisons", seed)

    def make(question: AnyQuestion) -> Row | None:
        pair = _response_pair(question, rng, task)
        margin = gold_reward(pair[0], pair[1]) - gold_reward(pair[0], pair[2])
        if abs(margin) < MIN_GOLD_MARGIN:
            return None
        return _comparison(question, pair, margin > 0)

    return _rows(n, make, rng, task)


def prompts(n: int, seed: int, task: Task = EVERYDAY) -> list[Row]:
    """Prompts without responses, conversational, with `kind`.

    Raises:
        DataError: `n` is negative or above the task's `most_rows`.
    """
    rng = stream("prompts", seed)
    return _rows(n, lambda question: {"prompt": _user(question), "kind": question.kind}, rng, task)
