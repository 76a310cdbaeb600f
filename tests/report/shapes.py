"""Results of everything a run can be judged by."""

import math
from dataclasses import replace
from typing import Any

from rlhfctl.results.estimate import Estimate, GroupAccuracy
from rlhfctl.results.evaluation import (
    AnnotatorMetrics,
    AnnotatorsResult,
    BestOfN,
    BestOfNRow,
    Calibration,
    CalibrationBin,
    Ceiling,
    Comparison,
    Drift,
    EvaluationResult,
    HeldOutAccuracies,
    Intransitivity,
    JudgeResult,
    LengthBias,
    LengthDistribution,
    Phrase,
    PolicyMetrics,
    PositionBias,
    Preferences,
    ProbeResult,
    RewardModelEvaluation,
    StyleMetrics,
    SubsetAccuracies,
    Tax,
    TaxTask,
)
from rlhfctl.results.sweep import (
    PointMetrics,
    RecommendedSetting,
    RunError,
    SettingMetrics,
    SweepPoint,
    SweepResult,
)
from rlhfctl.results.training import (
    Alarm,
    AlarmAct,
    BestEvaluation,
    Change,
    HeldOutLine,
    OverOptimisation,
    OverOptimisationFit,
    Peak,
    PPOResult,
    RewardModelResult,
    SFTResult,
)

HOSTILE = "</p></script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


def around(value: float, width: float = 0.1) -> Estimate:
    """An estimate with its interval."""
    return Estimate(value, value - width, value + width)


def group(accuracy: float, pairs: int = 100) -> GroupAccuracy:
    return GroupAccuracy(around(accuracy, 0.05), pairs)


def sft_result(**changes: Any) -> SFTResult:
    return replace(SFTResult(2.4, 1.1, 0.5, 0.7, 1.5, 18_000, 2_000, 1_125, 9_000, 5e4), **changes)


def rm_result(**changes: Any) -> RewardModelResult:
    result = RewardModelResult(
        accuracy=around(0.76, 0.02),
        length_accuracy=Estimate(0.55),
        pairs=1400,
        mean_margin=1.0,
        score_min=-3.0,
        score_max=3.0,
        train_loss=0.5,
        train_rows=12_600,
        steps=400,
        per_annotator={"ada": group(0.8, 200), "eve": group(0.7, 200)},
    )
    return replace(result, **changes)


def ppo_result(**changes: Any) -> PPOResult:
    last_rollout = {"score": 1.2, "kl": 6.0}
    return replace(PPOResult(10, 1280, 0, 0, {}, last_rollout), **changes)


def policy(**changes: Any) -> PolicyMetrics:
    """Metrics of a policy whose responses differ in nothing but what is given."""
    plain = PolicyMetrics(
        kl=Estimate(0.0), length=20.0, eos_share=0.95, repetition=0.02, distinct=0.9
    )
    return replace(plain, **changes)


def evaluation(comparison: Comparison | None = None, **fields: Any) -> EvaluationResult:
    """A comparison of SFT and PPO and whatever else is given."""
    policies = {"sft": policy(), "ppo": policy(kl=Estimate(6.1))}
    whole: dict[str, Any] = {"prompts": 60, "policies": policies, "comparison": comparison}
    return EvaluationResult(**whole | fields)


REWARD_MODEL = RewardModelEvaluation(
    HeldOutAccuracies(
        overall=group(0.74, 403),
        per_annotator={"ada": group(0.7), "bruno": group(0.64)},
        per_margin={"0 to 1": group(0.6), "1 to 2": group(0.8)},
        per_source={"forum": group(0.72)},
        calibration=Calibration(
            ece=0.04,
            ece_if_calibrated=around(0.03, 0.01),
            brier=0.18,
            nll=0.53,
            temperature=1.2,
            ece_scaled=0.02,
            bins=[
                CalibrationBin(
                    start=0.5 + at / 20,
                    end=0.55 + at / 20,
                    predicted=0.525 + at / 20,
                    observed=around(0.51 + at / 21, 0.08),
                    pairs=40,
                )
                for at in range(10)
            ],
        ),
        length=LengthBias(
            longer_wins=group(0.33, 403),
            shorter_wins=group(0.67, 403),
            equal_length=group(0.7, 20),
            shorter_chosen=group(0.8, 200),
            score_length_correlation=around(-0.31),
        ),
        probes={
            "filler": ProbeResult(around(0.4), 64, "padded with filler"),
            "shuffled": ProbeResult(around(-1.4), 64, "words shuffled"),
            "other": ProbeResult(around(0.05), 64, "another's answer"),
        },
    ),
    SubsetAccuracies({"chat": group(0.8), "safety": group(0.6)}, 0.7, subsets_file="subsets.jsonl"),
)
ANNOTATORS = AnnotatorsResult(
    agreement=around(0.72, 0.03),
    alpha=around(0.44, 0.05),
    items=500,
    labels=1500,
    per_annotator={
        "ada": AnnotatorMetrics(500, 0.75, 0.86, group(0.7)),
        "bruno": AnnotatorMetrics(500, 0.66, 0.71),
    },
    intransitive=Intransitivity(Estimate(0.12), 900, expected=0.14),
    ceiling=Ceiling(Estimate(0.83), 0.72),
    notes=[],
    warnings=["The reward model's accuracy lies above the annotators' ceiling."],
)


def judge(kind: Any, win_rate: Estimate, **fields: Any) -> JudgeResult:
    """A judge of PPO against SFT."""
    preferences = Preferences(60, 12, 48, 120, [], win_rate)
    return JudgeResult(**{"kind": kind, "opponent": "sft", "preferences": preferences} | fields)


JUDGES = {
    "held_out_rm": JudgeResult(
        "reward_model",
        "sft",
        Preferences(180, 4, 72, 256, [], around(0.71, 0.06), around(0.66, 0.08)),
        accuracy=group(0.73, 380),
    ),
    "endpoint": JudgeResult(
        "endpoint",
        "sft",
        Preferences(60, 12, 48, 128, ["5 answers could not be read."], around(0.55, 0.08)),
        refusals=3,
        unparsable=5,
        model="judge-1",
        position_bias=PositionBias(around(0.58, 0.05)),
    ),
}
PERPLEXITY = TaxTask(
    metric="nats per token",
    higher_is_better=False,
    examples=200,
    base=3.1,
    sft=1.9,
    ppo=2.4,
    ppo_minus_sft=around(0.5, 0.2),
    sft_minus_base=around(-1.2, 0.2),
)
TAX = Tax(
    {
        "perplexity": PERPLEXITY,
        "closed_questions": TaxTask(
            metric="accuracy",
            higher_is_better=True,
            examples=120,
            base=0.2,
            sft=0.6,
            ppo=0.62,
            ppo_minus_sft=around(0.02, 0.06),
            sft_minus_base=around(0.4, 0.06),
        ),
    }
)


def _style(shift: float) -> StyleMetrics:
    return StyleMetrics(
        kl_per_token=around(shift, 0.02),
        entropy=around(1.2 - shift, 0.05),
        length=LengthDistribution(16, 4, 9, 14, 22, 31),
        distinct_1=0.2,
        distinct_2=0.4,
        distinct_3=0.6,
        self_bleu=0.5 + shift,
        repeated_ngrams=0.04,
        truncated=0.03,
        hedging=around(0.2, 0.04),
        certainty=around(0.1 + shift, 0.04),
    )


DRIFT = Drift(
    sft=_style(0.0),
    ppo=_style(0.3),
    phrases=[
        Phrase("I am sure", log_odds=1.4, z=6.1, sft_count=3, ppo_count=61),
        Phrase(HOSTILE, log_odds=1.1, z=4.0, sft_count=1, ppo_count=30),
    ],
)


def _best_of(scale: float) -> list[BestOfNRow]:
    return [
        BestOfNRow(n, math.log(n) - (n - 1) / n, around(scale * math.log(n) ** 0.5))
        for n in (1, 2, 4, 8, 16)
    ]


BEST_OF_N = BestOfN(samples=16, prompts=60, proxy=_best_of(0.7), gold=_best_of(0.5))
# Names in these metrics that data sets and recipes choose.
CHOSEN = {"ada", "forum", "filler", "chat", "endpoint", "perplexity", "0 to 1"}
PARTS: dict[str, Any] = {
    "reward_model": REWARD_MODEL,
    "annotators": ANNOTATORS,
    "judges": JUDGES,
    "tax": TAX,
    "drift": DRIFT,
    "best_of_n": BEST_OF_N,
}


def judged(result: EvaluationResult) -> EvaluationResult:
    """Add every part that a run can be judged by."""
    comparison = replace(
        result.comparison or Comparison(), gold_length_controlled_win_rate=around(0.8)
    )
    return replace(result, comparison=comparison, **PARTS)


def held_out_line(at: int) -> HeldOutLine:
    """Held-out evaluation number `at`: the proxy rises, gold peaks and falls."""
    kl = 0.5 * at
    return HeldOutLine(
        step=256 * at,
        rollout=2 * at,
        kl=around(kl),
        sqrt_kl=math.sqrt(kl),
        proxy=around(0.1 + 0.4 * at),
        true_reward=around(0.4 + 0.6 * at - 0.08 * at**2),
        length=around(16.0 + 3 * at, 1.0),
        eos_share=0.96,
        repetition=around(0.03 + 0.02 * at, 0.01),
        certainty=around(0.1),
        hedging=around(0.2),
        entropy=around(1.2 - 0.1 * at),
        per_prompt={"kl": [kl] * 64},
    )


def _fit(beta: float, peak: Peak | None) -> OverOptimisationFit:
    curve = [
        [at / 10, at / 10 * (1.4 - beta * math.log(at / 10)) if at else 0.0] for at in range(21)
    ]
    return OverOptimisationFit("rl", around(1.4), around(beta), curve, 0.0, 8, peak, 0.93)


HELD_OUT = [held_out_line(at) for at in range(9)]
OVER_OPTIMISATION = OverOptimisation(
    true_reward="gold",
    evaluations=9,
    best=BestEvaluation(1024, 8, 2.0, around(1.52)),
    stopped_early=False,
    fallen=True,
    last_below_best=Change(around(-1.32, 0.3)),
    fits={
        "proxy": _fit(-0.2, None),
        "true_reward": _fit(0.9, Peak(around(1.6), around(1.3), observed=True)),
    },
    alarms=[
        Alarm("divergence", 1792, -0.6, 0.2, "The proxy rises while the true reward falls."),
    ],
)

ROLLED_BACK = AlarmAct("rollback", ["divergence", "score_range"], 1792, 0.05, 0.1, 1024)
STOPPED = AlarmAct("stop", ["length"], 2048, 0.1, 0.1)


def _point(at: int, beta: float, kl: float, gold: float) -> SweepPoint:
    metrics = SettingMetrics(
        kl=around(kl),
        gold=around(gold),
        proxy=around(kl**0.5),
        gold_win_rate=around(0.5 + gold / 4),
        length=Estimate(12.0 + kl),
    )
    return SweepPoint(
        {"ppo.beta": beta},
        f"points/{at}",
        "done",
        seconds=60.0,
        metrics=PointMetrics(metrics, SettingMetrics()),
    )


FAILED = SweepPoint(
    {"ppo.beta": 1.0}, "points/4", "failed", RunError(5, "DivergedError", "KL overran", "", "")
)
SWEEP = SweepResult(
    recipe="recipes/overoptimisation.yaml",
    keys=["ppo.beta"],
    points=[
        *(
            _point(at, *numbers)
            for at, numbers in enumerate(
                [(0.0, 9.0, 0.4), (0.05, 4.0, 1.0), (0.1, 2.0, 1.3), (0.3, 0.4, 0.5)]
            )
        ),
        FAILED,
    ],
    best_of_n=BEST_OF_N,
    recommended=RecommendedSetting(
        2, [2], {"ppo.beta": 0.1}, "ppo.beta = 0.1 has the highest gain in gold reward."
    ),
)
