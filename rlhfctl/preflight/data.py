"""Checks of the first rows of a recipe's data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from rlhfctl.errors import DataError
from rlhfctl.preflight.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.data.forms import Kind
    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.data.sources import Preview
    from rlhfctl.preflight.finding import Level
    from rlhfctl.recipe.data import DatasetSection
    from rlhfctl.recipe.schema import Recipe

_ROWS_CHECKED = 1000


def check_data(
    recipe: Recipe, previews: dict[Kind, Preview], kinds: Sequence[str] | None = None
) -> Iterator[Finding]:
    """Check the first rows of each data set, and keep the previews of those with usable rows."""
    from rlhfctl.data.forms import Kind as Kinds
    from rlhfctl.data.rankings import require_single_labels
    from rlhfctl.data.row_counts import bad_limit
    from rlhfctl.data.sources import preview

    is_conversational: dict[str, bool] = {}
    for kind in get_args(Kinds):
        if kinds is not None and kind not in kinds:
            continue
        section: DatasetSection = getattr(recipe.data, kind)
        margins = kind == "comparisons" and recipe.reward_model.use_margin
        for number, part in enumerate(section.parts):
            where = f"data.{kind}.sources.{number}" if section.sources else f"data.{kind}"
            try:
                seen = preview(part, kind, margins=margins)
                if seen is not None and kind == "comparisons" and seen.rows:
                    require_single_labels(seen.rows[0], recipe.reward_model.labels)
            except DataError as error:
                yield Finding("error", _sentence(error), where, error.hint)
                continue
            if seen is None:
                yield Finding("not checked", f"{part.source}: on the Hub", where)
                continue
            yield replace(_rows(seen, kind, bad_limit(recipe.data)), where=where)
            if seen.messages is None:
                continue
            if kind in previews and previews[kind].messages != seen.messages:
                yield _other_form(part.source, where, messages=seen.messages)
                continue
            is_conversational[kind] = seen.messages
            previews[kind] = previews[kind].joined(seen) if kind in previews else seen
    if len(set(is_conversational.values())) > 1:
        described = ", ".join(
            f"{kind} are {'conversations' if messages else 'text'}"
            for kind, messages in is_conversational.items()
        )
        yield Finding(
            "warning",
            f"{described}: the policy would be trained on one format and sampled on another",
            "data",
            "convert all three to one format; as_chat: true converts text to conversations",
        )


def _other_form(name: str, where: str, *, messages: bool) -> Finding:
    has, others = ("conversations", "text") if messages else ("text", "conversations")
    return Finding(
        "error",
        f"{name}: has {has}, and the sources before have {others}",
        where,
        "the sources need one form; as_chat: true of a source converts its text to conversations",
    )


def check_reward_bench(recipe: Recipe) -> Iterator[Finding]:
    """Check the first rows of the file of `evaluation.reward_bench`."""
    from rlhfctl.data.subsets import read_subsets

    source, where = recipe.evaluation.reward_bench, "evaluation.reward_bench"
    if source is None:
        return
    try:
        subsets = read_subsets(source, messages=True, limit=_ROWS_CHECKED)
    except DataError as error:
        yield Finding("error", _sentence(error), where, error.hint)
        return
    level: Level = "warning" if subsets.report.dropped else "ok"
    yield Finding(level, f"{source}: {subsets.report.summary()}", where)


def level_of(report: RowCounts, limit: float) -> Level:
    """Return whether unusable rows end the run: certain only if all rows were checked."""
    certain = report.read < _ROWS_CHECKED or limit == 0.0
    return "error" if certain and report.exceeds(limit) else "warning"


def _rows(seen: Preview, kind: Kind, limit: float) -> Finding:
    report = seen.report
    where = f"data.{kind}"
    if seen.messages is None:
        return Finding("error", f"{report.name}: no usable row; {report.reasons()}", where)
    remarks = "".join(f"; {remark}" for remark in report.remarks())
    if report.dropped:
        report.limit = limit
        level = level_of(report, limit)
        return Finding(level, f"{report.name}: {report.summary()}{remarks}", where)
    text_format = "conversations" if seen.messages else "text"
    form = f" of form {seen.form}" if seen.form not in ("", "trl") else ""
    checked = f", {report.read:,} rows{form} checked" if report.read else ""
    return Finding("ok", f"{report.name}: {text_format}{checked}{remarks}", where)


def _sentence(error: DataError) -> str:
    return f"{error.where}: {error.what}" if error.where else error.what
