"""The forms of each kind of data in the order that they are tried, and the choice of one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from rlhfctl.data.column_hints import mapping_hint
from rlhfctl.data.forms import (
    ASKED,
    EXTRAS,
    Form,
    Kind,
    as_given,
    extras_of,
    per_row,
    repeats_prompt,
    without_prompts,
)
from rlhfctl.data.instructions import PANDALM_PREFIX, alpaca, dolly, pandalm, question_rows
from rlhfctl.data.kto import has_labels, kto
from rlhfctl.data.message_trees import oasst
from rlhfctl.data.messages import list_in
from rlhfctl.data.preference_sets import (
    helpsteer2,
    helpsteer3,
    hh_rlhf,
    openai_preference,
    pku_saferlhf,
    reward_bench,
    ultrafeedback_binarized,
    webgpt,
)
from rlhfctl.data.public_sets import arena, sharegpt, shp, summaries, ultrachat
from rlhfctl.data.rankings import ORDER_COLUMNS, QUESTION_COLUMNS, RESPONSE_COLUMNS, ranking
from rlhfctl.data.raw import did_you_mean, listed
from rlhfctl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlhfctl.data.forms import Source
    from rlhfctl.data.raw import RawRows

TRL = "trl"
_FIRST_ROWS = 100
_PROMPT_PARTS = frozenset(
    {"system", "system_prompt", "question", "query", "instruction", "input", "context", "history"}
)
"""Columns that hold a prompt or a part of it in some data set, in lower case."""


def _holds_lists(column: str) -> Callable[[Sequence[Source]], bool]:
    return lambda rows: all(list_in(row.get(column)) is not None for row in rows)


def _trl(*columns: str) -> Form:
    return Form(TRL, columns, as_given)


def _repeated(response: str, *others: str) -> Form:
    """Return TRL's form for responses that repeat their prompt as text.

    Args:
        response: Column of a response.
        others: The columns of further ones.
    """
    return Form(
        TRL,
        ("prompt", response, *others),
        without_prompts(response, *others),
        fits=lambda rows: (
            len(rows) > 1 and all(repeats_prompt(row, response, *others) for row in rows)
        ),
        note="responses repeat their prompt, which is read once",
    )


def _rankings() -> list[Form]:
    return [
        Form(
            "ranking",
            (question, responses),
            per_row(ranking),
            optional=(*ORDER_COLUMNS, "input"),
            fits=_holds_lists(responses),
        )
        for question in QUESTION_COLUMNS
        for responses in RESPONSE_COLUMNS
    ]


def _instructions(name: str, *columns: str) -> Form:
    if name == "dolly":
        return Form(name, columns, per_row(dolly), optional=("context",))
    return Form(name, columns, per_row(alpaca), optional=("input", "system", "history"))


def _question(*columns: str) -> Form:
    return Form("question", ("question", *columns), per_row(question_rows))


_OASST = Form(
    "oasst", ("message_id", "parent_id", "role", "text"), oasst, optional=("rank",), whole=True
)
_ULTRACHAT = Form("ultrachat", ("data",), per_row(ultrachat), fits=_holds_lists("data"))
_KTO_COLUMNS = ("prompt", "completion", "label")


def _sharegpt(*columns: str) -> Form:
    return Form("sharegpt", ("conversations", *columns), per_row(sharegpt), optional=("system",))


# Their columns are those of TRL's formats too, which are tried before.
_HH_RLHF = Form("hh_rlhf", ("chosen", "rejected"), per_row(hh_rlhf))
_ULTRAFEEDBACK = Form(
    "ultrafeedback_binarized",
    ("prompt", "chosen", "rejected"),
    per_row(ultrafeedback_binarized),
    optional=("score_chosen", "score_rejected"),
)
_WEBGPT = ("question", "answer_0", "answer_1")
_PKU = ("prompt", "response_0", "response_1")
_REWARD_BENCH = Form(
    "reward_bench", ("prompt", "chosen", "rejected", "subset"), per_row(reward_bench)
)


def _tldr(*columns: str) -> Form:
    return Form("tldr", columns, as_given)


def _helpsteer2(*columns: str) -> Form:
    names = ("prompt", "response_1", "response_2", *columns)
    return Form("helpsteer2", names, per_row(helpsteer2))


def _helpsteer3(*columns: str) -> Form:
    names = ("context", "response1", "response2", *columns)
    return Form("helpsteer3", names, per_row(helpsteer3))


DATA_FORMS: dict[Kind, tuple[Form, ...]] = {
    "demonstrations": (
        Form("kto", _KTO_COLUMNS, kto, fits=has_labels),
        _repeated("completion"),
        _trl("prompt", "completion"),
        _trl("messages"),
        _sharegpt(),
        _instructions("alpaca", "instruction", "output"),
        _instructions("dolly", "instruction", "response"),
        _OASST,
        _ULTRACHAT,
        _question("answer"),
        _question("response"),
        _trl("text"),
        _HH_RLHF,
        _ULTRAFEEDBACK,
        _tldr("prompt", "completion"),
    ),
    "comparisons": (
        _sharegpt("chosen", "rejected"),
        _repeated("chosen", "rejected"),
        _trl("prompt", "chosen", "rejected"),
        _instructions("alpaca", "instruction", "chosen", "rejected"),
        Form(
            "alpaca",
            ("instruction", "output"),
            per_row(alpaca),
            optional=("input", "system", "history"),
            fits=_holds_lists("output"),
        ),
        _question("chosen", "rejected"),
        _trl("chosen", "rejected"),
        Form("kto", _KTO_COLUMNS, kto, fits=has_labels, whole=True),
        Form(
            "pandalm",
            ("instruction", "response1", "response2"),
            per_row(pandalm),
            optional=("input",),
            prefix=PANDALM_PREFIX,
        ),
        *_rankings(),
        Form(
            "summarize_from_feedback",
            ("info", "summaries", "choice"),
            per_row(summaries),
            optional=("worker",),
        ),
        Form("shp", ("history", "human_ref_A", "human_ref_B", "labels"), per_row(shp)),
        Form(
            "arena",
            ("conversation_a", "conversation_b", "winner"),
            per_row(arena),
            optional=("judge",),
        ),
        _OASST,
        _helpsteer2("preference_strength"),
        _helpsteer3("overall_preference"),
        Form("pku_saferlhf", (*_PKU, "better_response_id"), per_row(pku_saferlhf)),
        Form("webgpt", (*_WEBGPT, "score_0", "score_1"), per_row(webgpt)),
        Form(
            "openai_preference",
            ("input", "preferred_output", "non_preferred_output"),
            per_row(openai_preference),
        ),
        _HH_RLHF,
        _ULTRAFEEDBACK,
        _tldr("prompt", "chosen", "rejected"),
        _REWARD_BENCH,
    ),
    "prompts": (
        _trl("messages"),
        _sharegpt(),
        _trl("prompt", "chosen", "rejected"),
        _instructions("alpaca", "instruction", "chosen", "rejected"),
        _question("chosen", "rejected"),
        _trl("chosen", "rejected"),
        Form("kto", _KTO_COLUMNS, as_given, fits=has_labels),
        _trl("prompt", "completion"),
        _OASST,
        *_rankings(),
        _instructions("dolly", "instruction", "context"),
        Form(
            "pandalm",
            ("instruction", "response1", "response2"),
            per_row(pandalm),
            optional=("input",),
        ),
        _instructions("alpaca", "instruction"),
        _ULTRACHAT,
        Form("summarize_from_feedback", ("info", "summaries"), per_row(summaries)),
        Form("shp", ("history", "human_ref_A"), per_row(shp)),
        Form("arena", ("conversation_a", "conversation_b"), per_row(arena)),
        _helpsteer2(),
        _helpsteer3(),
        Form("pku_saferlhf", _PKU, per_row(pku_saferlhf)),
        Form("webgpt", _WEBGPT, per_row(webgpt)),
        Form("openai_preference", ("input", "preferred_output"), per_row(openai_preference)),
        _trl("prompt"),
        _question(),
        _trl("text"),
        _HH_RLHF,
        _ULTRAFEEDBACK,
        _tldr("prompt"),
        _REWARD_BENCH,
    ),
}
COLUMN_NAMES = frozenset(
    name.casefold()
    for data_forms in DATA_FORMS.values()
    for form in data_forms
    for name in (*form.columns, *form.optional, *EXTRAS, *ASKED)
)
"""Names that a header is recognised by, in lower case."""


@dataclass(frozen=True)
class ChosenForm:
    """The form of a source.

    Attributes:
        form: The form.
        columns: Our column -> the source's column.
    """

    form: Form
    columns: dict[str, str]


def check_section(kind: Kind, mapping: Mapping[str, str], preset: str | None) -> None:
    """Refuse a recipe's `columns` with an unknown column, and a `preset` of another kind.

    Raises:
        RecipeError: A key is not a column of this kind of data, or the preset has no such rows.
    """
    forms = named_forms(kind, preset)
    if not forms:
        served = sorted({form.name for form in DATA_FORMS[kind]})
        raise RecipeError(
            f"preset {preset} has no {kind}; for {kind} there are {', '.join(served)}",
            f"data.{kind}.preset",
        )
    valid = {column for form in forms for column in (*form.columns, *form.optional)}
    valid |= set(extras_of(kind))
    for ours in mapping:
        if ours not in valid:
            raise RecipeError(
                f"{ours} is not a column of {kind}; they are {', '.join(sorted(valid))}",
                f"data.{kind}.columns",
                "columns maps our name to the source's name",
            )


def choose_form(
    kind: Kind, raw: RawRows, mapping: Mapping[str, str], preset: str | None = None
) -> ChosenForm:
    """Return the first form that fits a source.

    Args:
        kind: Kind of data.
        raw: The source. A few rows are read where the columns do not decide.
        mapping: The recipe's ``columns``: our name -> the source's name.
        preset: Name of the form; None tries all.

    Raises:
        RecipeError: The mapping has an unknown column, or the preset another kind.
        DataError: The source lacks the columns of every form.
    """
    check_section(kind, mapping, preset)
    available = _available(kind, raw, mapping)
    required = set(mapping) - set(EXTRAS) - set(ASKED)
    for form in named_forms(kind, preset):
        names = (*form.columns, *form.optional)
        if not (set(form.columns) <= set(available) and required <= set(names)):
            continue
        chosen = {
            name: available[name]
            for name in dict.fromkeys((*names, *extras_of(kind)))
            if name in available
        }
        if form.prefix is not None:
            numbered = _numbered(raw.columns, form.prefix)
            if not numbered:
                continue
            chosen |= numbered
        if (preset is None or form.name == TRL) and not _fits(form, raw, chosen):
            continue
        return ChosenForm(form, chosen)
    raise _nothing_fits(kind, raw, preset)


def named_forms(kind: Kind, preset: str | None) -> list[Form]:
    """Return the forms of a kind of data with a name; None: all, in the order they are tried."""
    return [form for form in DATA_FORMS[kind] if preset in (None, form.name)]


def _available(kind: Kind, raw: RawRows, mapping: Mapping[str, str]) -> dict[str, str]:
    """Return our column -> the source's, by the mapping, by name, or by name in another case."""
    columns = raw.columns
    stripped = {name.strip(): name for name in reversed(columns)}
    mapped = {}
    for ours, theirs in mapping.items():
        if theirs not in columns and theirs.strip() not in stripped:
            raise DataError(
                f"there is no column {theirs}; found: {listed(columns)}",
                raw.name,
                did_you_mean(theirs, columns, f"data.{kind}.columns.{ours}"),
            )
        mapped[ours] = theirs if theirs in columns else stripped[theirs.strip()]
    folded = {name.strip().casefold(): name for name in reversed(columns)}
    recognised = {column for form in DATA_FORMS[kind] for column in (*form.columns, *form.optional)}
    by_case = {
        name: folded[name.casefold()]
        for name in (*recognised, *EXTRAS, *ASKED)
        if name.casefold() in folded
    }
    return by_case | {name: name for name in columns} | mapped


def _numbered(columns: Sequence[str], prefix: str) -> dict[str, str]:
    return {
        name: name
        for name in columns
        if name.startswith(prefix) and name.removeprefix(prefix).strip("_").isdigit()
    }


def _fits(form: Form, raw: RawRows, chosen: Mapping[str, str]) -> bool:
    if form.fits is None:
        return True
    first = islice(raw.only(list(chosen.values())).rows, _FIRST_ROWS)
    return form.fits([renamed(row, chosen) for row in first])


def not_read(kind: Kind, raw: RawRows, chosen: ChosenForm) -> str:
    """Return a sentence with the columns of a source that nothing reads; empty if there are none.

    Reward functions read further columns of prompts, so of these only texts that could belong to
    the prompt are named.
    """
    columns = set(chosen.columns.values())
    unread = [
        name
        for name in raw.columns
        if name not in columns and (kind != "prompts" or name.casefold() in _PROMPT_PARTS)
    ]
    return f"columns that are not read: {listed(unread, most=8)}" if unread else ""


def renamed(row: Source, columns: Mapping[str, str]) -> dict[str, object]:
    """Return a row under our column names."""
    return {ours: row.get(theirs) for ours, theirs in columns.items()}


def _nothing_fits(kind: Kind, raw: RawRows, preset: str | None) -> DataError:
    forms = named_forms(kind, preset or TRL)
    layouts = "; or ".join(dict.fromkeys(" + ".join(form.columns) for form in forms))
    if preset is None:
        theirs = [form.columns for form in forms]
        others = (form for form in DATA_FORMS[kind] if form.columns not in theirs)
        presets = sorted({form.name for form in others} - {TRL})
        layouts += f"; or those of {', '.join(presets)}"
    subject = kind if preset is None else f"{kind} of preset {preset}"
    return DataError(
        f"{subject} need the columns {layouts}; found: {listed(raw.columns)}",
        raw.name,
        mapping_hint(kind, forms, raw.columns),
    )
