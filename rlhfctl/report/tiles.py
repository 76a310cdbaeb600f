"""Tiles of the first screen: win rate, true reward, KL and length, before and after PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Bar, finite_ends, share_bar
from rlhfctl.report.cautions import LENGTH_CHANGE, kl_limit
from rlhfctl.report.numbers import interval, number, share, signed, value_of
from rlhfctl.report.significance import independent_judges, side
from rlhfctl.results.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.evaluation import LengthDistribution

_TONES = {"above": "good", "below": "bad"}
_HELD_OUT_MODEL = "held-out reward model"
_TRAINED_ON = "score trained on"


@dataclass(frozen=True)
class Tile:
    """One metric before and after PPO.

    Attributes:
        name: Name of the metric.
        before: Value of SFT; empty for a comparison of both.
        after: Value of PPO, or of the comparison.
        unit: Unit, or who judged.
        change: Change or CI, in words.
        bars: Bars on one scale: SFT's, then PPO's; or the comparison's.
        halved: Whether the scale is from 0 to 1 with a line at one half.
        note: What the bars are.
        tone: `good`, `bad`, `mild`, or empty where neither is known.
    """

    name: str
    before: str
    after: str
    unit: str
    change: str
    bars: tuple[Bar, ...] = ()
    halved: bool = False
    note: str = ""
    tone: str = ""


def tiles(facts: RunFacts) -> list[Tile]:
    """Return the tiles for which the run has metrics, from its evaluation if there is one.

    Before the evaluation they are the first and the last held-out evaluation of PPO.
    """
    return [
        tile
        for tile in (_win_rate(facts), _reward(facts), _kl(facts), _length(facts))
        if tile is not None
    ]


def _win_rate(facts: RunFacts) -> Tile | None:
    comparison = facts.comparison
    candidates = [("gold", comparison.gold_win_rate)]
    candidates += [
        (name, judge.preferences.win_rate) for name, judge in independent_judges(facts.evaluation)
    ]
    candidates.append(("the proxy", comparison.proxy_win_rate))
    for judge, rate in candidates:
        if rate is not None and value_of(rate) is not None:
            ends = interval(rate, share)
            bar = share_bar(rate)
            return Tile(
                "Win rate over SFT",
                "",
                share(rate.value),
                f"by {judge}",
                f"95 % CI {ends}" if ends else "no interval",
                (bar,) if bar else (),
                halved=True,
                note="0.50: no difference",
                tone=_TONES.get(side(rate), "mild"),
            )
    return None


def _reward(facts: RunFacts) -> Tile | None:
    """Return the true reward's tile; without one, the proxy's."""
    for name, unit, first, last, gain in _rewards(facts):
        start, end = value_of(first), value_of(last)
        if start is None or end is None:
            continue
        ends, bars = interval(gain, signed), _bars((first, last))
        change = value_of(gain)
        return Tile(
            name,
            number(start),
            number(end),
            unit,
            signed(end - start if change is None else change) + (f" ({ends})" if ends else ""),
            bars,
            note=f"SFT, {facts.policy_name}: 95 % CI" if bars else "",
            tone=_tone_of(gain),
        )
    return None


def _rewards(
    facts: RunFacts,
) -> Iterator[tuple[str, str, Estimate | None, Estimate | None, Estimate | None]]:
    """Yield name, unit, SFT's value, PPO's and the gain, the most trustworthy reward first."""
    sft, ppo, comparison = facts.policy("sft"), facts.policy("ppo"), facts.comparison
    first, last = (facts.held_out[0], facts.held_out[-1]) if facts.held_out else (None, None)
    if sft and ppo:
        yield "True reward", "gold", sft.gold, ppo.gold, comparison.gold_gain
    if first and last:
        yield "True reward", _true_reward(facts), first.true_reward, last.true_reward, None
    if sft and ppo:
        yield "Proxy reward", _TRAINED_ON, sft.proxy, ppo.proxy, comparison.proxy_gain
    if first and last:
        yield "Proxy reward", _TRAINED_ON, first.proxy, last.proxy, None


def _tone_of(gain: Estimate | None) -> str:
    ends = finite_ends(gain)
    if ends is None:
        return ""
    low, _, high = ends
    if low > 0:
        return "good"
    return "bad" if high < 0 else "mild"


def _true_reward(facts: RunFacts) -> str:
    name = facts.over_optimisation.true_reward if facts.over_optimisation else None
    return "gold" if name == "gold" else _HELD_OUT_MODEL


def _kl(facts: RunFacts) -> Tile | None:
    policy = facts.policy("ppo")
    kl = policy.kl if policy else (facts.held_out[-1].kl if facts.held_out else None)
    value = value_of(kl)
    if value is None:
        return None
    limit = kl_limit(facts)
    ends = interval(kl)
    bar = _scaled((kl,), 0.0, max(limit, value))
    return Tile(
        "KL to SFT",
        "0",
        number(value),
        "nats",
        f"95 % CI {ends}" if ends else "no interval",
        bar,
        note=f"scale: 0 to the alarm at {limit:g}",
        tone="bad" if value > limit else "",
    )


def _length(facts: RunFacts) -> Tile | None:
    sft, ppo = facts.policy("sft"), facts.policy("ppo")
    lengths = (sft.length, ppo.length) if sft and ppo else None
    bars, note = _length_bars(facts), f"SFT, {facts.policy_name}: middle half of responses"
    if lengths is None and facts.held_out:
        first, last = facts.held_out[0].length, facts.held_out[-1].length
        lengths, bars = (first.value, last.value), _bars((first, last))
        note = "start, now: 95 % CI"
    if lengths is None:
        return None
    before, after = (value_of(Estimate(length)) for length in lengths)
    if before is None or after is None:
        return None
    change = after / before - 1 if before else 0.0
    return Tile(
        "Response length",
        number(before),
        number(after),
        "tokens",
        f"{signed(round(100 * change))} %",
        bars,
        note=note if bars else "",
        tone="mild" if abs(change) > LENGTH_CHANGE else "",
    )


def _length_bars(facts: RunFacts) -> tuple[Bar, ...]:
    drift = facts.evaluation.drift if facts.evaluation else None
    if drift is None or drift.sft is None or drift.ppo is None:
        return ()
    return _bars([_middle_half(style.length) for style in (drift.sft, drift.ppo)])


def _middle_half(length: LengthDistribution) -> Estimate:
    return Estimate(length.mean, min(length.p25, length.mean), max(length.p75, length.mean))


def _bars(estimates: Sequence[Estimate | None]) -> tuple[Bar, ...]:
    """Return a bar per estimate on a scale that holds all of them; none unless all have ends."""
    ends = [end for three in map(finite_ends, estimates) for end in three or ()]
    if len(ends) < 3 * len(estimates):
        return ()
    width = max(ends) - min(ends) or 1.0
    return _scaled(estimates, min(ends) - 0.05 * width, max(ends) + 0.05 * width)


def _scaled(estimates: Sequence[Estimate | None], start: float, end: float) -> tuple[Bar, ...]:
    return tuple(_bar(three, start, end) for three in map(finite_ends, estimates) if three)


def _bar(ends: tuple[float, float, float], start: float, end: float) -> Bar:
    def place(value: float) -> float:
        return 100 * min(max((value - start) / (end - start or 1.0), 0.0), 1.0)

    low, value, high = ends
    return Bar(place(low), place(value), place(high))
