"""Result of the evaluation stage: `eval/metrics.json`, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlhfctl.results.estimate import Estimate, GroupAccuracy  # noqa: TC001 - for get_type_hints

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PolicyMetrics:
    """One policy's responses to the held-out prompts; scores are None where unavailable.

    `proxy` is the score that PPO was given; `objective_score` has its clip and its replacement of
    unended responses' scores, too.
    """

    kl: Estimate
    length: float
    eos_share: float
    repetition: float
    distinct: float
    proxy: Estimate | None = None
    gold: Estimate | None = None
    objective_score: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """PPO against SFT on the same prompts; `judge` names the score behind `win_rate`."""

    win_rate: Estimate | None = None
    judge: Literal["proxy", "gold"] | None = None
    proxy_win_rate: Estimate | None = None
    proxy_gain: Estimate | None = None
    proxy_length_controlled_win_rate: Estimate | None = None
    gold_win_rate: Estimate | None = None
    gold_gain: Estimate | None = None
    gold_length_controlled_win_rate: Estimate | None = None
    objective_score_win_rate: Estimate | None = None
    objective_score_gain: Estimate | None = None


@dataclass(frozen=True)
class PositionBias:
    """Share of an endpoint's verdicts for the response shown first; 0.5 is unbiased."""

    first_share: Estimate


@dataclass(frozen=True)
class AnnotatorMetrics:
    """One annotator's labels, agreement with others and estimated accuracy."""

    labels: int
    agreement: float | None = None
    accuracy: float | None = None
    reward_model: GroupAccuracy | None = None


@dataclass(frozen=True)
class CohenKappa:
    """Cohen's kappa of two annotators on the `items` that both labelled; None if undefined."""

    first: str
    second: str
    items: int
    kappa: Estimate | None = None


@dataclass(frozen=True)
class Majority:
    """Items per majority label, and items without one."""

    labels: dict[str, int]
    none: int


@dataclass(frozen=True)
class Intransitivity:
    """Share of intransitive triples; `expected` is the share under independent label noise."""

    share: Estimate
    triples: int
    expected: float | None = field(default=None, metadata={"null": True})


@dataclass(frozen=True)
class Ceiling:
    """Highest accuracy on single labels that the annotators' agreement allows; without ties."""

    accuracy: Estimate
    agreement: float


@dataclass(frozen=True)
class AnnotatorsResult:
    """Agreement and reliability of the annotators."""

    items: int
    labels: int
    per_annotator: dict[str, AnnotatorMetrics]
    notes: list[str]
    warnings: list[str]
    agreement: Estimate | None = None
    alpha: Estimate | None = None
    fleiss: Estimate | None = None
    cohen: list[CohenKappa] | None = None
    majority: Majority | None = None
    intransitive: Intransitivity | None = None
    ceiling: Ceiling | None = None


@dataclass(frozen=True)
class Preferences:
    """Summary of a judge's preferences over prompts."""

    wins: int
    ties: int
    losses: int
    prompts: int
    warnings: list[str]
    win_rate: Estimate | None = None
    length_controlled_win_rate: Estimate | None = None


@dataclass(frozen=True)
class JudgeResult:
    """One judge's preferences between PPO and its opponent."""

    kind: Literal["reward_model", "endpoint", "function", "humans"]
    opponent: str
    preferences: Preferences = field(metadata={"inline": True})
    refusals: int = 0
    unparsable: int = 0
    model: str | None = None
    position_bias: PositionBias | None = None
    accuracy: GroupAccuracy | None = None
    annotators: AnnotatorsResult | None = None


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of the reliability diagram, over confidences from `start` to `end`."""

    start: float = field(metadata={"key": "from"})
    end: float = field(metadata={"key": "to"})
    predicted: float
    observed: Estimate
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """Calibration of the reward model; `temperature` is None where no finite one is likeliest."""

    ece: float
    ece_if_calibrated: Estimate
    brier: float
    nll: float
    bins: list[CalibrationBin]
    temperature: float | None = None
    ece_scaled: float | None = None


@dataclass(frozen=True)
class LengthBias:
    """Accuracy of length baselines, and of the reward model by which response is longer."""

    longer_wins: GroupAccuracy
    shorter_wins: GroupAccuracy
    equal_length: GroupAccuracy | None = None
    longer_chosen: GroupAccuracy | None = None
    shorter_chosen: GroupAccuracy | None = None
    score_length_correlation: Estimate | None = None


@dataclass(frozen=True)
class ProbeResult:
    """Mean change of the normalised score when chosen responses are perturbed."""

    change: Estimate
    responses: int
    description: str


@dataclass(frozen=True)
class HarmlessEditResult:
    """Comparisons whose preference flips when one response is edited harmlessly.

    Attributes:
        flipped: Share of the comparisons with the other order of scores after the edit, over edits
            of the chosen and of the rejected response.
        change: Mean absolute change of the edited response's normalised score.
        comparisons: Edited comparisons; one counts twice if both of its responses can be edited.
        description: Phrase for the edited response.
    """

    flipped: Estimate
    change: float
    comparisons: int
    description: str


@dataclass(frozen=True)
class SubsetAccuracies:
    """Accuracy on each benchmark subset.

    Attributes:
        subsets: Accuracy by subset: of pairs, or of the best of several responses.
        subsets_mean: Mean over sections, else over subsets.
        sections: Accuracy by section of RewardBench v1, if all subsets are of it.
        ties: Score of RewardBench 2's subset Ties, which enters the mean; None without it.
        subsets_file: File of the subsets.
    """

    subsets: dict[str, GroupAccuracy]
    subsets_mean: float
    sections: dict[str, float] | None = None
    ties: TiesScore | None = None
    subsets_file: str | None = None


@dataclass(frozen=True)
class TiesScore:
    """RewardBench 2's score of prompts with several equally right responses.

    Attributes:
        score: Its weighted score of the following.
        accuracy: Share of prompts with several right responses whose worst right one scores above
            the best wrong one.
        reference_accuracy: The same of the prompts with one right response.
        margin_accuracy: Share of prompts whose right responses differ by less than the worst of them
            is above the best wrong one.
        margin_accuracy_hard: The same, with the smaller of that distance and its reference prompt's.
        prompts: Prompts with several right responses that have a reference prompt.
    """

    score: float
    accuracy: float
    reference_accuracy: float
    margin_accuracy: float
    margin_accuracy_hard: float
    prompts: int


@dataclass(frozen=True)
class HeldOutAccuracies:
    """The reward model on held-out comparisons."""

    overall: GroupAccuracy
    calibration: Calibration
    length: LengthBias
    per_annotator: dict[str, GroupAccuracy] | None = None
    per_source: dict[str, GroupAccuracy] | None = None
    per_margin: dict[str, GroupAccuracy] | None = None
    probes: dict[str, ProbeResult] | None = None
    harmless_edits: dict[str, HarmlessEditResult] | None = None


@dataclass(frozen=True)
class RewardModelEvaluation:
    """The reward model on held-out comparisons and on benchmark subsets."""

    held_out: HeldOutAccuracies | None = field(default=None, metadata={"inline": True})
    benchmark: SubsetAccuracies | None = field(default=None, metadata={"inline": True})


@dataclass(frozen=True)
class BestOfNRow:
    """Value of SFT's best of `n` responses by the proxy, at `kl` nats per response."""

    n: int
    kl: float
    value: Estimate


@dataclass(frozen=True)
class BestOfN:
    """Best-of-n curves by the score that values the chosen response.

    `win_rate` is over another SFT response to the same prompt, by gold, else by the held-out reward
    model.
    """

    samples: int
    prompts: int
    proxy: list[BestOfNRow]
    gold: list[BestOfNRow] | None = None
    true_reward: list[BestOfNRow] | None = None
    win_rate: list[BestOfNRow] | None = None


@dataclass(frozen=True)
class TaxTask:
    """One task of the alignment tax; policies that were not evaluated are None."""

    metric: str
    higher_is_better: bool
    examples: int
    base: float | None = None
    sft: float | None = None
    ppo: float | None = None
    ppo_minus_sft: Estimate | None = None
    sft_minus_base: Estimate | None = None


@dataclass(frozen=True)
class Tax:
    """Tasks of the alignment tax by name."""

    tasks: dict[str, TaxTask]


@dataclass(frozen=True)
class LengthDistribution:
    """Response lengths in tokens: mean and percentiles."""

    mean: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float


@dataclass(frozen=True)
class StyleMetrics:
    """Style of one policy's responses; `self_bleu` needs two responses."""

    kl_per_token: Estimate
    length: LengthDistribution
    distinct_1: float
    distinct_2: float
    distinct_3: float
    repeated_ngrams: float
    truncated: float
    hedging: Estimate
    certainty: Estimate
    entropy: Estimate | None = None
    self_bleu: float | None = None


@dataclass(frozen=True)
class Phrase:
    """A phrase more frequent in PPO's responses than in SFT's; counts are responses."""

    phrase: str
    log_odds: float
    z: float
    sft_count: int
    ppo_count: int


@dataclass(frozen=True)
class Drift:
    """Style of each policy; `phrases` is None unless both were evaluated."""

    sft: StyleMetrics | None = None
    ppo: StyleMetrics | None = None
    phrases: list[Phrase] | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of the evaluation stage; a part is None where the run cannot produce it.

    Attributes:
        prompts: Held-out prompts.
        policies: Metrics per policy, `sft` and `ppo`.
        comparison: Its fields are at the top level of the JSON: the metric is `win_rate`.
        judges: Preferences per judge.
    """

    prompts: int
    policies: dict[str, PolicyMetrics]
    comparison: Comparison | None = field(default=None, metadata={"inline": True})
    judges: dict[str, JudgeResult] | None = None
    reward_model: RewardModelEvaluation | None = None
    best_of_n: BestOfN | None = None
    tax: Tax | None = None
    drift: Drift | None = None
    annotators: AnnotatorsResult | None = None
    version: int = SCHEMA_VERSION
