"""Rankings of several responses to one prompt, as all pairs of a better and a worse response.

Ouyang et al. (2022, section 3.5, equation 1) train on all K choose 2 pairs of a prompt as one batch
element, with the mean over the pairs as its loss. Here each pair has the weight 1 / (number of
pairs of its ranking): every ranking counts alike, whatever its K, and the expected gradient is
theirs. Pairs are shuffled like other rows, so those of one ranking may be in different batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhfctl.data.forms import WEIGHT, compared
from rlhfctl.data.instructions import plain_question, question_of
from rlhfctl.data.messages import list_in
from rlhfctl.data.rows import BadRowError, LeftOutError, text_of
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from rlhfctl.data.forms import Item, Kind, Source

QUESTION_COLUMNS = ("prompt", "instruction", "question", "input")
RESPONSE_COLUMNS = ("responses", "completions", "answers", "generations")
ORDER_COLUMNS = ("ranks", "rank", "scores", "rewards", "ratings", "rating", "ranking")
_TEXT_KEYS = ("response", "answer", "text", "content", "completion", "output")
_SCORE_KEYS = ("overall_score", "score", "rating", "reward", "pm_score")
_RANK_KEYS = ("rank", "ranking")


def weighed_pairs(
    question: Any, responses: Sequence[Any], qualities: Sequence[float]
) -> Iterator[Item]:
    """Yield the pairs of a ranking, with weights that sum to 1.

    Args:
        question: The prompt.
        responses: [K] the responses.
        qualities: [K] numbers, higher for better responses. Equal ones give no pair.
    """
    numbers = range(len(responses))
    better = [(a, b) for a in numbers for b in numbers if qualities[a] > qualities[b]]
    for _ in range(len(responses) * (len(responses) - 1) // 2 - len(better)):
        yield LeftOutError("pair of equal rank")
    for a, b in better:
        yield compared(question, responses[a], responses[b], **{WEIGHT: 1.0 / len(better)})


def require_single_labels(columns: Iterable[str], labels: str) -> None:
    """Refuse to aggregate labels over the weighted pairs of rankings.

    Args:
        columns: Columns of the comparisons.
        labels: The recipe's `reward_model.labels`.

    Raises:
        DataError: The columns have weights, and `labels` is not `as_given`.
    """
    if labels != "as_given" and WEIGHT in columns:
        raise DataError(
            f"reward_model.labels: {labels} aggregates several labels per pair, and the "
            "comparisons are the weighted pairs of rankings",
            "data.comparisons",
            "Set reward_model.labels: as_given.",
        )


def ranking(row: Source, kind: Kind, chat: bool) -> Iterator[Item]:
    """Convert a prompt with a list of responses and their ranks, scores or order.

    ``ranks`` has 1 for the best response, ``scores`` the largest number, and ``ranking`` has the
    responses' indices (from 0) from best to worst. Instead, each response may be an object with its
    text and its rank or score.
    """
    question = _question(row, chat)
    if kind == "prompts":
        yield {"prompt": question}
        return
    column = next(name for name in RESPONSE_COLUMNS if name in row)
    responses = list_in(row[column])
    if responses is None:
        raise BadRowError(f"{column} is not a list")
    if len(responses) < 2:
        raise LeftOutError("ranking of fewer than two responses")
    if any(_is_object(response) for response in responses):
        texts, qualities = _objects(responses, column)
    else:
        texts, qualities = list(responses), _qualities(row, len(responses))
    yield from weighed_pairs(question, texts, qualities)


def _question(row: Source, chat: bool) -> Any:
    if row.get("prompt") is not None:
        return row["prompt"]
    if "instruction" in row:
        return question_of(row["instruction"], row.get("input"), chat=chat)
    column = next((name for name in ("question", "input") if name in row), None)
    return None if column is None else plain_question(row[column], column, chat=chat)


def _is_object(response: Any) -> bool:
    return isinstance(response, Mapping) and "role" not in response and "from" not in response


def _objects(responses: Sequence[Any], column: str) -> tuple[list[Any], list[float]]:
    texts, qualities = [], []
    for response in responses:
        if not _is_object(response):
            raise BadRowError(f"{column} mixes objects and texts")
        text = next((response[key] for key in _TEXT_KEYS if key in response), None)
        texts.append(text_of(text, f"a response in {column}"))
        rank = next((response[key] for key in _RANK_KEYS if response.get(key) is not None), None)
        score = next((response[key] for key in _SCORE_KEYS if response.get(key) is not None), None)
        if rank is None and score is None:
            raise BadRowError(f"a response in {column} has no rank and no score")
        qualities.append(-_number(rank, "rank") if rank is not None else _number(score, "score"))
    return texts, qualities


def _qualities(row: Source, count: int) -> list[float]:
    for column in ORDER_COLUMNS:
        if row.get(column) is None:
            continue
        values = list_in(row[column])
        if values is None or len(values) != count:
            raise BadRowError(f"{column} has not one entry per response")
        numbers = [_number(value, column) for value in values]
        if column in ("ranks", "rank"):
            return [-number for number in numbers]
        if column == "ranking":
            if sorted(numbers) != list(range(count)):
                raise BadRowError("ranking is not an order of the indices 0 to K - 1")
            order = {int(index): place for place, index in enumerate(numbers)}
            return [-float(order[index]) for index in range(count)]
        return numbers
    raise BadRowError("ranks, scores and ranking are missing")


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise BadRowError(f"{column} is not a number") from error
    if number - number != 0:
        raise BadRowError(f"{column} is not finite")
    return number
