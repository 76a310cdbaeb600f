"""The figures of a run as rows of written cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report.numbers import MISSING, duration, finite, fraction, number, share, signed
from rlhfctl.report.sources import COMMANDS, STAGES, RunFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TITLES = {"sft": "SFT", "rm": "Reward model", "ppo": "PPO", "eval": "Evaluation"}


@dataclass(frozen=True)
class Bar:
    """An interval of a share as it is drawn: its ends and its estimate, in percent."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class Row:
    """A figure with its 95 % interval, where it has one."""

    label: str
    value: str
    interval: str = ""
    bar: Bar | None = None
    count: str = ""


@dataclass(frozen=True)
class StageTable:
    """A stage, how far it is, and its key figures."""

    title: str
    state: str
    rows: tuple[Row, ...]
    all_figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """One figure of both policies, and the gain of PPO over SFT."""

    label: str
    sft: str
    ppo: str
    gain: str
    interval: str


_BEFORE_AND_AFTER = {
    "sft": (
        ("Held-out loss, nats a token", "eval_loss_before", "eval_loss"),
        ("Held-out token accuracy", "token_accuracy_before", "token_accuracy"),
    )
}
_SHARES = {
    "rm": (
        ("Held-out accuracy", "accuracy"),
        ("Accuracy against gold", "gold_accuracy"),
        ("Accuracy of the longer one", "length_accuracy"),
    ),
    "eval": (
        ("Gold win rate of PPO over SFT", "gold_win_rate"),
        ("Proxy win rate of PPO over SFT", "proxy_win_rate"),
    ),
}
_PAIRS = {"accuracy": "pairs", "length_accuracy": "pairs", "gold_accuracy": "gold_pairs"}
_NUMBERS = {
    "sft": (("Training rows", "train_rows"), ("Held-out rows", "held_out_rows")),
    "rm": (
        ("Held-out pairs", "pairs"),
        ("Raw score, mean", "score_mean"),
        ("Raw score, standard deviation", "score_std"),
    ),
    "ppo": (
        ("Episodes", "episodes"),
        ("Score", "score"),
        ("KL to the reference, nats a response", "kl"),
        ("Response length, tokens", "response_length"),
        ("Share ended by EOS", "eos_share"),
        ("Episodes a second", "episodes_per_second"),
    ),
    "eval": (("Held-out prompts", "prompts"),),
}
_POLICY_FIGURES = (
    ("Gold reward", "gold", number),
    ("Proxy reward", "proxy", number),
    ("KL, nats a response", "kl", number),
    ("Length, tokens", "length", number),
    ("Ended by EOS", "eos_share", fraction),
    ("Repeated n-grams", "repetition", fraction),
    ("Distinct n-grams", "distinct", fraction),
)


def stage_tables(facts: RunFacts) -> list[StageTable]:
    """Return the key figures of every stage, in the order of the pipeline."""
    return [_stage_table(facts, stage) for stage in STAGES]


def reward_model_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Return the reward model's accuracies: overall, its baselines, and by annotator."""
    rows = [
        _share_row(label, metrics, name, metrics.get(_PAIRS[name]))
        for label, name in _SHARES["rm"]
        if name in metrics
    ]
    annotators = metrics.get("per_annotator")
    for name, found in sorted(annotators.items()) if isinstance(annotators, dict) else ():
        if isinstance(found, dict):
            figures = {f"accuracy_{end}": found.get(end) for end in ("low", "high")} | found
            rows.append(_share_row(f"Annotator {name}", figures, "accuracy", found.get("pairs")))
    return rows


def win_rate_rows(figures: Mapping[str, Any]) -> list[Row]:
    """Return the win rates of PPO over SFT, by gold and by the proxy, as far as they are known."""
    return [_share_row(label, figures, name) for label, name in _SHARES["eval"] if name in figures]


def comparisons(figures: Mapping[str, Any]) -> list[Comparison]:
    """Return the evaluation's figures of both policies side by side."""
    policies = figures.get("policies")
    known = policies if isinstance(policies, dict) else {}
    sft, ppo = known.get("sft") or {}, known.get("ppo") or {}
    return [
        _comparison(label, name, write, sft, ppo, figures)
        for label, name, write in _POLICY_FIGURES
        if name in sft or name in ppo
    ]


def _stage_table(facts: RunFacts, stage: str) -> StageTable:
    record = facts.records.get(stage)
    if record is None:
        started = bool(facts.curves.get(stage))
        state = "unfinished" if started else "not run yet"
        return StageTable(TITLES[stage], f"{state}: {COMMANDS[stage]}", (), ())
    metrics = {**record.metrics, **(facts.figures if stage == "eval" else {})}
    rows = [
        Row(label, f"{number(metrics.get(before))} \N{RIGHTWARDS ARROW} {number(metrics[after])}")
        for label, before, after in _BEFORE_AND_AFTER.get(stage, ())
        if after in metrics
    ]
    rows += [
        _share_row(label, metrics, name)
        for label, name in _SHARES.get(stage, ())
        if name in metrics
    ]
    rows += [
        Row(label, number(metrics[name])) for label, name in _NUMBERS[stage] if name in metrics
    ]
    written = tuple(_flattened(metrics))
    return StageTable(TITLES[stage], duration(record.seconds), tuple(rows), written)


def _share_row(label: str, figures: Mapping[str, Any], name: str, pairs: Any = None) -> Row:
    estimate, low, high = (finite(figures.get(name + end)) for end in ("", "_low", "_high"))
    count = number(pairs) if pairs is not None else ""
    if estimate is None or low is None or high is None:
        return Row(label, share(estimate), count=count)
    bar = Bar(100 * low, 100 * estimate, 100 * high)
    return Row(label, share(estimate), f"{share(low)} to {share(high)}", bar, count)


def _comparison(
    label: str,
    name: str,
    write: Callable[[Any], str],
    sft: Mapping[str, Any],
    ppo: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> Comparison:
    before, after = finite(sft.get(name)), finite(ppo.get(name))
    gain = MISSING if before is None or after is None else signed(after - before, write)
    low, high = figures.get(f"{name}_gain_low"), figures.get(f"{name}_gain_high")
    interval = f"{signed(low, write)} to {signed(high, write)}" if finite(low) is not None else ""
    return Comparison(label, write(sft.get(name)), write(ppo.get(name)), gain, interval)


def _flattened(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return every figure under its dotted name."""
    rows: list[tuple[str, str]] = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            rows += _flattened(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value if isinstance(value, str) else number(value)))
    return rows
