"""Metrics of everything a run can be judged by, in the shapes that the stages write."""

import math
from typing import Any

HOSTILE = "</p></script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"


def ends(name: str, value: float, width: float = 0.1) -> dict[str, float]:
    """A figure with its interval."""
    return {name: value, f"{name}_low": value - width, f"{name}_high": value + width}


def group(accuracy: float, pairs: int = 100) -> dict[str, float]:
    return {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "pairs": pairs}


REWARD_MODEL: dict[str, Any] = {
    "overall": group(0.74, 403),
    "per_annotator": {"ada": group(0.7), "bruno": group(0.64)},
    "per_margin": {"0 to 1": group(0.6), "1 to 2": group(0.8)},
    "per_source": {"forum": group(0.72)},
    "calibration": {
        "ece": 0.04,
        **ends("ece_if_calibrated", 0.03, 0.01),
        "brier": 0.18,
        "nll": 0.53,
        "temperature": 1.2,
        "ece_scaled": 0.02,
        "bins": [
            {
                "from": 0.5 + at / 20,
                "to": 0.55 + at / 20,
                "predicted": 0.525 + at / 20,
                **ends("observed", 0.51 + at / 21, 0.08),
                "pairs": 40,
            }
            for at in range(10)
        ],
    },
    "length": {
        "longer_wins": group(0.33, 403),
        "shorter_wins": group(0.67, 403),
        "equal_length": group(0.7, 20),
        "shorter_chosen": group(0.8, 200),
        **ends("score_length_correlation", -0.31),
    },
    "probes": {
        "filler": {**ends("change", 0.4), "responses": 64, "description": "padded with filler"},
        "shuffled": {**ends("change", -1.4), "responses": 64, "description": "words shuffled"},
        "other": {**ends("change", 0.05), "responses": 64, "description": "another's answer"},
    },
    "subsets": {"chat": group(0.8), "safety": group(0.6)},
    "subsets_file": "subsets.jsonl",
}
ANNOTATORS: dict[str, Any] = {
    **ends("agreement", 0.72, 0.03),
    **ends("alpha", 0.44, 0.05),
    "items": 500,
    "labels": 1500,
    "per_annotator": {
        "ada": {"accuracy": 0.86, "labels": 500, "agreement": 0.75, "reward_model": group(0.7)},
        "bruno": {"accuracy": 0.71, "labels": 500, "agreement": 0.66},
    },
    "intransitive": {"share": 0.12, "expected": 0.14, "triples": 900},
    "ceiling": {"accuracy": 0.83, "agreement": 0.72},
    "warnings": ["The reward model's accuracy lies above the annotators' ceiling."],
}
JUDGES: dict[str, Any] = {
    "held_out_rm": {
        "kind": "reward_model",
        "opponent": "sft",
        **ends("win_rate", 0.71, 0.06),
        **ends("length_controlled_win_rate", 0.66, 0.08),
        "wins": 180,
        "ties": 4,
        "losses": 72,
        "prompts": 256,
        "refusals": 0,
        "unparsable": 0,
        "accuracy": group(0.73, 380),
        "warnings": [],
    },
    "endpoint": {
        "kind": "endpoint",
        "opponent": "sft",
        "model": "judge-1",
        **ends("win_rate", 0.55, 0.08),
        "wins": 60,
        "ties": 12,
        "losses": 48,
        "prompts": 128,
        "refusals": 3,
        "unparsable": 5,
        "position_bias": ends("first_share", 0.58, 0.05),
        "warnings": ["5 answers could not be read."],
    },
}
TAX = {
    "tasks": {
        "perplexity": {
            "base": 3.1,
            "sft": 1.9,
            "ppo": 2.4,
            "metric": "nats per token",
            "examples": 200,
            **ends("ppo_minus_sft", 0.5, 0.2),
            **ends("sft_minus_base", -1.2, 0.2),
            "higher_is_better": False,
        },
        "closed_questions": {
            "base": 0.2,
            "sft": 0.6,
            "ppo": 0.62,
            "metric": "accuracy",
            "examples": 120,
            **ends("ppo_minus_sft", 0.02, 0.06),
            **ends("sft_minus_base", 0.4, 0.06),
            "higher_is_better": True,
        },
    }
}


def _drift(shift: float) -> dict[str, Any]:
    return {
        **ends("kl_per_token", shift, 0.02),
        **ends("entropy", 1.2 - shift, 0.05),
        "length": {"mean": 16, "p5": 4, "p25": 9, "median": 14, "p75": 22, "p95": 31},
        "distinct_1": 0.2,
        "distinct_2": 0.4,
        "distinct_3": 0.6,
        "self_bleu": 0.5 + shift,
        "repeated_ngrams": 0.04,
        "truncated": 0.03,
        **ends("hedging", 0.2, 0.04),
        **ends("certainty", 0.1 + shift, 0.04),
    }


DRIFT: dict[str, Any] = {
    "sft": _drift(0.0),
    "ppo": _drift(0.3),
    "phrases": [
        {"phrase": "I am sure", "log_odds": 1.4, "z": 6.1, "sft_count": 3, "ppo_count": 61},
        {"phrase": HOSTILE, "log_odds": 1.1, "z": 4.0, "sft_count": 1, "ppo_count": 30},
    ],
}
BEST_OF_N = {
    name: [
        {"n": n, "kl": math.log(n) - (n - 1) / n, **ends("value", scale * math.log(n) ** 0.5)}
        for n in (1, 2, 4, 8, 16)
    ]
    for name, scale in (("proxy", 0.7), ("gold", 0.5))
}
# Names in these metrics that data sets and recipes choose.
CHOSEN = {"ada", "forum", "filler", "chat", "endpoint", "perplexity", "0 to 1"}
METRICS: dict[str, Any] = {
    "reward_model": REWARD_MODEL,
    "annotators": ANNOTATORS,
    "judges": JUDGES,
    "tax": TAX,
    "drift": DRIFT,
    "best_of_n": BEST_OF_N,
    **ends("gold_length_controlled_win_rate", 0.8),
}


def look(at: int) -> dict[str, Any]:
    """Return a line of held-out metrics: the proxy rises, gold peaks and falls."""
    kl = 0.5 * at
    return {
        "step": 256 * at,
        "rollout": 2 * at,
        **ends("kl", kl),
        "sqrt_kl": math.sqrt(kl),
        **ends("proxy", 0.1 + 0.4 * at),
        **ends("true_reward", 0.4 + 0.6 * at - 0.08 * at**2),
        **ends("length", 16.0 + 3 * at, 1.0),
        "eos_share": 0.96,
        **ends("repetition", 0.03 + 0.02 * at, 0.01),
        **ends("certainty", 0.1),
        **ends("hedging", 0.2),
        **ends("entropy", 1.2 - 0.1 * at),
        "each": {"kl": [kl] * 64},
    }


LOOKS = [look(at) for at in range(9)]
OVER_OPTIMISATION: dict[str, Any] = {
    "true_reward": "gold",
    "evaluations": 9,
    "best": {"step": 1024, "rollout": 8, **ends("true_reward", 1.52), "kl": 2.0},
    "stopped_early": False,
    "fallen": True,
    "last_below_best": ends("change", -1.32, 0.3),
    "fits": {
        name: {
            "form": "rl",
            **ends("alpha", 1.4),
            **ends("beta", beta),
            "peak": peak,
            "r_squared": 0.93,
            "curve": [
                [at / 10, at / 10 * (1.4 - beta * math.log(at / 10)) if at else 0.0]
                for at in range(21)
            ],
        }
        for name, beta, peak in (
            ("proxy", -0.2, None),
            ("true_reward", 0.9, {**ends("distance", 1.6), **ends("value", 1.3), "observed": True}),
        )
    },
    "alarms": [
        {
            "name": "divergence",
            "step": 1792,
            "value": -0.6,
            "threshold": 0.2,
            "message": "The proxy rises while the true reward falls.",
        }
    ],
}
SWEEP: dict[str, Any] = {
    "recipe": "recipes/overoptimisation.yaml",
    "keys": ["ppo.beta"],
    "points": [
        {
            "settings": {"ppo.beta": beta},
            "run": f"points/{at}",
            "status": "failed" if at == 4 else "done",
            "metrics": {}
            if at == 4
            else {
                **ends("kl", kl),
                **ends("gold", gold),
                **ends("proxy", kl**0.5),
                **ends("gold_win_rate", 0.5 + gold / 4),
                "length": 12.0 + kl,
            },
        }
        for at, (beta, kl, gold) in enumerate(
            [(0.0, 9.0, 0.4), (0.05, 4.0, 1.0), (0.1, 2.0, 1.3), (0.3, 0.4, 0.5), (1.0, 0.0, 0.0)]
        )
    ],
    "best_of_n": BEST_OF_N,
    "recommended": {"point": 2, "why": "ppo.beta = 0.1 has the highest gain in gold reward."},
}
