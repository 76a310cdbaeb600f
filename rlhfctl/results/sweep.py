"""Results of a sweep: `sweep.json`, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlhfctl.results.estimate import Estimate  # noqa: TC001 - for get_type_hints
from rlhfctl.results.evaluation import BestOfN  # noqa: TC001 - for get_type_hints
from rlhfctl.results.json_value import JsonValue  # noqa: TC001 - for get_type_hints
from rlhfctl.results.training import BestEvaluation, Change  # noqa: TC001 - for get_type_hints

Status = Literal["waiting", "done", "failed", "gate_failed"]


@dataclass(frozen=True)
class SettingMetrics:
    """Metrics of a policy, named as in the evaluation; None where the run does not have them.

    Of one run, intervals cover prompts; of a setting's mean over seeds, they cover seeds. `prompts`
    is the number of held-out prompts.
    """

    kl: Estimate | None = None
    proxy: Estimate | None = None
    gold: Estimate | None = None
    length: Estimate | None = None
    eos_share: Estimate | None = None
    repetition: Estimate | None = None
    distinct: Estimate | None = None
    win_rate: Estimate | None = None
    gold_win_rate: Estimate | None = None
    proxy_win_rate: Estimate | None = None
    gold_gain: Estimate | None = None
    proxy_gain: Estimate | None = None
    gold_length_controlled_win_rate: Estimate | None = None
    proxy_length_controlled_win_rate: Estimate | None = None
    true_reward: Estimate | None = None
    prompts: Estimate | None = None


@dataclass(frozen=True)
class JudgeRates:
    """Win rates of PPO by one judge."""

    win_rate: Estimate | None = None
    length_controlled_win_rate: Estimate | None = None


@dataclass(frozen=True)
class RaisedAlarm:
    """Name, episode and message of an alarm."""

    name: str
    step: int
    message: str


@dataclass(frozen=True)
class PointMetrics:
    """Metrics of one run.

    Attributes:
        ppo: Of the PPO policy; in JSON at the top level.
        sft: Of the SFT policy on the same prompts.
        judge: Score behind `win_rate`.
        judges: Win rates by judge; None without judges.
        best: Held-out evaluation with the highest true reward.
        stopped_early: Whether PPO stopped because the true reward fell.
        last_below_best: Change of the true reward since the best evaluation.
        alarms: Alarms during PPO; None without held-out evaluations.
    """

    ppo: SettingMetrics = field(metadata={"inline": True})
    sft: SettingMetrics
    judge: Literal["proxy", "gold"] | None = None
    judges: dict[str, JudgeRates] | None = None
    best: BestEvaluation | None = None
    stopped_early: bool | None = None
    last_below_best: Change | None = None
    alarms: list[RaisedAlarm] | None = None


@dataclass(frozen=True)
class RunError:
    """Error of a failed run, as in the output of `--json`."""

    exit_code: int
    type: str
    message: str
    where: str
    hint: str


@dataclass(frozen=True)
class SweepPoint:
    """One run of the sweep.

    Attributes:
        settings: Recipe key -> value at this point.
        run: Name of its run folder.
        status: Progress; `gate_failed` is finished.
        error: Error of a failed run.
        seconds: Time of its own stages.
        metrics: Metrics of a finished run.
    """

    settings: dict[str, JsonValue] = field(metadata={"values": True})
    run: str
    status: Status
    error: RunError | None = None
    seconds: float | None = None
    metrics: PointMetrics | None = None


@dataclass(frozen=True)
class SweepSetting:
    """A setting of a sweep over seeds: indices of its points, and their mean metrics."""

    settings: dict[str, JsonValue] = field(metadata={"values": True})
    points: list[int]
    metrics: SettingMetrics


@dataclass(frozen=True)
class SharedRun:
    """A run whose stages several points share; `points` are their indices."""

    run: str
    status: Status
    points: list[int]
    error: RunError | None = None


@dataclass(frozen=True)
class RecommendedSetting:
    """The recommended setting: its first point, all of its points, settings and reason."""

    point: int
    points: list[int]
    settings: dict[str, JsonValue] = field(metadata={"values": True})
    why: str


@dataclass(frozen=True)
class SweepResult:
    """Contents of `sweep.json`.

    Attributes:
        recipe: Recipe file, as named by the user.
        keys: Recipe keys that differ between points.
        points: All runs.
        groups: Settings averaged over seeds; None without several seeds.
        shared: Runs whose results points share.
        best_of_n: Best-of-n of SFT, if all points share it up to the seed.
        recommended: None before the end, or without a true reward.
    """

    recipe: str
    keys: list[str]
    points: list[SweepPoint]
    groups: list[SweepSetting] | None = None
    shared: list[SharedRun] = field(default_factory=list)
    best_of_n: BestOfN | None = None
    recommended: RecommendedSetting | None = field(default=None, metadata={"null": True})
