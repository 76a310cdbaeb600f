"""Definitions of the metrics of the evaluation."""

from __future__ import annotations

from rlhfctl.results.metric import HIGHER, LOWER, Metric, Source, estimate, group_accuracy

_POLICY = "policies.POLICY"
_JUDGE = "judges.JUDGE"
_RM = "reward_model"
_DRIFT = "drift.POLICY"
_TASK = "tax.tasks.TASK"


def _comparison(score: str) -> tuple[Metric, ...]:
    return (
        estimate(
            f"{score}_win_rate",
            f"share of prompts on which PPO's response has the higher {score} score than SFT's;"
            " ties count one half; Wilson interval",
            better=HIGHER,
        ),
        estimate(
            f"{score}_gain",
            f"mean {score} score of PPO minus SFT, paired by prompt",
            better=HIGHER,
        ),
        estimate(
            f"{score}_length_controlled_win_rate",
            "sigmoid(theta) of logit P(win) = theta + phi tanh(length difference / its standard"
            " deviation), lengths in characters; unlike AlpacaEval 2's, without a term for the"
            " instruction's difficulty",
            better=HIGHER,
        ),
    )


def _annotators(prefix: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{prefix}.items", "pairs of responses with labels", "pairs"),
        Metric(f"{prefix}.labels", "labels; repeated labels by one annotator are left out"),
        estimate(
            f"{prefix}.agreement", "equal pairs of labels over all pairs of labels of an item"
        ),
        estimate(
            f"{prefix}.alpha",
            "Krippendorff's alpha for nominal data: 1 - observed / expected disagreement",
            better=HIGHER,
        ),
        estimate(
            f"{prefix}.fleiss",
            "Fleiss's kappa: (P - P_e) / (1 - P_e) over items of at least two labels, P the mean"
            " share of an item's label pairs that are equal, P_e = sum_c p_c^2",
            better=HIGHER,
        ),
        estimate(
            f"{prefix}.cohen[].kappa",
            "Cohen's kappa of two annotators: (p_o - p_e) / (1 - p_e) over items that both labelled",
            better=HIGHER,
        ),
        Metric(f"{prefix}.cohen[].items", "items that both labelled"),
        Metric(
            f"{prefix}.majority.labels.LABEL", "items that have the label more often than any other"
        ),
        Metric(f"{prefix}.majority.none", "items without such a label"),
        Metric(f"{prefix}.per_annotator.ANNOTATOR.labels", "labels by the annotator"),
        Metric(
            f"{prefix}.per_annotator.ANNOTATOR.agreement",
            "share of others' labels on the same items that equal theirs",
        ),
        Metric(
            f"{prefix}.per_annotator.ANNOTATOR.accuracy",
            "estimated accuracy (Dawid & Skene 1979)",
            "",
            HIGHER,
        ),
        *group_accuracy(
            f"{prefix}.per_annotator.ANNOTATOR.reward_model",
            "accuracy of the reward model on their held-out labels",
        ),
        estimate(
            f"{prefix}.intransitive.share",
            "probability that a triple of responses is intransitive; ties count one half",
        ),
        Metric(
            f"{prefix}.intransitive.expected",
            "share under a true order with uniform label noise: (1 - agreement) / 2, where a pair"
            " of labels with a tie agrees by one half",
        ),
        Metric(f"{prefix}.intransitive.triples", "triples of responses compared pairwise"),
        estimate(
            f"{prefix}.ceiling.accuracy",
            "highest accuracy s possible on single labels: agreement = s^2 + (1 - s)^2; ties are"
            " left out",
        ),
        Metric(
            f"{prefix}.ceiling.agreement",
            "agreement that the ceiling follows from: of labels that are no ties",
        ),
    )


_REWARD_MODEL = (
    *group_accuracy(f"{_RM}.overall", "accuracy on held-out comparisons"),
    *group_accuracy(f"{_RM}.per_annotator.ANNOTATOR", "accuracy on one annotator's comparisons"),
    *group_accuracy(f"{_RM}.per_source.SOURCE", "accuracy on one source's comparisons"),
    *group_accuracy(f"{_RM}.per_margin.MARGIN", "accuracy in one quartile of the data's margin"),
    Metric(
        f"{_RM}.calibration.ece",
        "expected calibration error: sum over bins of share of pairs * |observed - predicted|",
        "",
        LOWER,
    ),
    estimate(
        f"{_RM}.calibration.ece_if_calibrated",
        "mean of the same error over outcomes drawn from the model's own probabilities",
    ),
    Metric(f"{_RM}.calibration.brier", "mean of (1 - p)^2; 0.25 at chance", "", LOWER),
    Metric(f"{_RM}.calibration.nll", "mean of -log p; 0.693 at chance", "nats", LOWER),
    Metric(
        f"{_RM}.calibration.temperature", "T that maximises the likelihood of sigmoid(margin / T)"
    ),
    Metric(f"{_RM}.calibration.ece_scaled", "calibration error at that temperature", "", LOWER),
    Metric(f"{_RM}.calibration.bins[].from", "lowest confidence of the bin"),
    Metric(f"{_RM}.calibration.bins[].to", "highest confidence of the bin"),
    Metric(f"{_RM}.calibration.bins[].predicted", "mean of max(p, 1 - p), p = sigmoid(margin)"),
    estimate(
        f"{_RM}.calibration.bins[].observed", "share with the favoured response chosen; Wilson"
    ),
    Metric(f"{_RM}.calibration.bins[].pairs", "comparisons in the bin", "pairs"),
    *group_accuracy(f"{_RM}.length.longer_wins", "accuracy of always preferring the longer", ""),
    *group_accuracy(f"{_RM}.length.shorter_wins", "accuracy of always preferring the shorter", ""),
    *group_accuracy(f"{_RM}.length.equal_length", "accuracy where lengths differ by at most 5 %"),
    *group_accuracy(f"{_RM}.length.longer_chosen", "accuracy where the longer one is chosen"),
    *group_accuracy(f"{_RM}.length.shorter_chosen", "accuracy where the shorter one is chosen"),
    estimate(
        f"{_RM}.length.score_length_correlation",
        "correlation of raw score with length, both minus their prompt's mean",
    ),
    estimate(
        f"{_RM}.probes.PROBE.change",
        "mean change of the normalised score when a chosen response is perturbed",
        better=LOWER,
    ),
    Metric(f"{_RM}.probes.PROBE.responses", "perturbed responses", "responses"),
    estimate(
        f"{_RM}.harmless_edits.EDIT.flipped",
        "share of comparisons whose order of scores turns when one response is edited; Wilson",
        better=LOWER,
    ),
    Metric(
        f"{_RM}.harmless_edits.EDIT.change",
        "mean absolute change of the edited response's normalised score",
        "",
        LOWER,
    ),
    Metric(f"{_RM}.harmless_edits.EDIT.comparisons", "comparisons with an edited response"),
    *group_accuracy(f"{_RM}.subsets.SUBSET", "accuracy on one subset of `evaluation.reward_bench`"),
    Metric(
        f"{_RM}.ties.score",
        "RewardBench 2's Ties: 0.3 accuracy + 0.3 reference accuracy + 0.2 margin accuracy"
        " + 0.2 hard margin accuracy + 0.01 mean tanh(margin ratio - 1)",
        "",
        HIGHER,
    ),
    Metric(f"{_RM}.ties.accuracy", "share of prompts, worst right above best wrong", "", HIGHER),
    Metric(
        f"{_RM}.ties.reference_accuracy", "the same of prompts with one right response", "", HIGHER
    ),
    Metric(
        f"{_RM}.ties.margin_accuracy",
        "share of prompts whose right responses are nearer to each other than to the wrong ones",
        "",
        HIGHER,
    ),
    Metric(
        f"{_RM}.ties.margin_accuracy_hard",
        "the same, with the smaller of that distance and the reference prompt's",
        "",
        HIGHER,
    ),
    Metric(f"{_RM}.ties.prompts", "prompts with several right responses and a reference prompt"),
    Metric(f"{_RM}.sections.SECTION", "accuracy on one section of RewardBench v1", "", HIGHER),
    Metric(f"{_RM}.subsets_mean", "mean accuracy over sections, else over subsets", "", HIGHER),
)

_JUDGES = (
    estimate(
        f"{_JUDGE}.win_rate",
        "mean over prompts of the preference for PPO's response (1, 0.5 or 0)",
        better=HIGHER,
    ),
    estimate(
        f"{_JUDGE}.length_controlled_win_rate",
        "win rate at equal length, as for the scores",
        better=HIGHER,
    ),
    Metric(f"{_JUDGE}.wins", "prompts with a preference above 0.5", "prompts", HIGHER),
    Metric(f"{_JUDGE}.ties", "prompts with a preference of 0.5", "prompts"),
    Metric(f"{_JUDGE}.losses", "prompts with a preference below 0.5", "prompts", LOWER),
    Metric(f"{_JUDGE}.prompts", "prompts with a preference", "prompts"),
    Metric(f"{_JUDGE}.refusals", "refusals by the endpoint; their prompts are left out", "", LOWER),
    Metric(
        f"{_JUDGE}.unparsable", "replies without a verdict; their prompts are left out", "", LOWER
    ),
    estimate(
        f"{_JUDGE}.position_bias.first_share",
        "share of verdicts for the response shown first, over both orders; 0.5 is unbiased",
    ),
    *group_accuracy(f"{_JUDGE}.accuracy", "held-out reward model's accuracy on comparisons"),
    *_annotators(f"{_JUDGE}.annotators"),
)

_STYLE = (
    estimate(
        f"{_DRIFT}.kl_per_token",
        "k1 to the reference, mean over tokens, then responses",
        "nats/token",
    ),
    estimate(f"{_DRIFT}.entropy", "entropy, mean over tokens, then over responses", "nats/token"),
    *(
        Metric(f"{_DRIFT}.length.{name}", f"{name} of the response length", "tokens")
        for name in ("mean", "p5", "p25", "median", "p75", "p95")
    ),
    *(
        Metric(f"{_DRIFT}.distinct_{n}", f"distinct word {n}-grams over all of them", "", HIGHER)
        for n in (1, 2, 3)
    ),
    Metric(f"{_DRIFT}.self_bleu", "mean BLEU-4 of each response against all others", "", LOWER),
    Metric(f"{_DRIFT}.repeated_ngrams", "as `policies.POLICY.repetition`", "", LOWER),
    Metric(f"{_DRIFT}.truncated", "share of responses without a stop token", "", LOWER),
    estimate(f"{_DRIFT}.hedging", "share of responses with a marker of doubt"),
    estimate(f"{_DRIFT}.certainty", "share of responses with a marker of certainty"),
    Metric(
        "drift.phrases[].log_odds", "log odds ratio of the phrase in PPO's against SFT's responses"
    ),
    Metric("drift.phrases[].z", "log odds ratio over its standard deviation"),
    Metric("drift.phrases[].sft_count", "SFT's responses with the phrase", "responses"),
    Metric("drift.phrases[].ppo_count", "PPO's responses with the phrase", "responses"),
)

METRICS: dict[Source, tuple[Metric, ...]] = {
    Source.EVAL_LOG: (Metric("kl", "mean k1 to the reference so far", "nats/response"),),
    Source.EVAL: (
        Metric("prompts", "held-out prompts", "prompts"),
        estimate(f"{_POLICY}.kl", "mean k1 to the reference", "nats/response"),
        Metric(f"{_POLICY}.length", "mean response length", "tokens"),
        Metric(f"{_POLICY}.eos_share", "share of responses that end with a stop token", "", HIGHER),
        Metric(
            f"{_POLICY}.repetition",
            "mean share of a response's word n-grams (`evaluation.ngram`) that are repeats",
            "",
            LOWER,
        ),
        Metric(
            f"{_POLICY}.distinct", "distinct n-grams over all n-grams, all responses", "", HIGHER
        ),
        estimate(
            f"{_POLICY}.proxy",
            "mean score by the reward sources, unended responses included, before clipping;"
            " `score` of PPO",
            better=HIGHER,
        ),
        estimate(
            f"{_POLICY}.objective_score",
            "mean score as PPO maximises it: clipped, and `missing_eos_score` for unended or too"
            " short responses; `objective_score` of PPO; absent with `score_normalization: running`",
            better=HIGHER,
        ),
        estimate(f"{_POLICY}.gold", "mean gold reward", better=HIGHER),
        estimate(
            "win_rate", "`gold_win_rate` where gold is known, else `proxy_win_rate`", better=HIGHER
        ),
        *_comparison("proxy"),
        *_comparison("objective_score")[:2],
        *_comparison("gold"),
        *_JUDGES,
        *_REWARD_MODEL,
        Metric("best_of_n.samples", "responses per prompt", "responses"),
        Metric("best_of_n.prompts", "prompts", "prompts"),
        *(
            metric
            for score in ("proxy", "gold", "true_reward")
            for metric in (
                Metric(f"best_of_n.{score}[].n", "responses that the best is chosen from"),
                Metric(f"best_of_n.{score}[].kl", "log n - (n - 1) / n", "nats/response"),
                estimate(
                    f"best_of_n.{score}[].value",
                    f"mean {score} score of SFT's response with the highest proxy score of n",
                    better=HIGHER,
                ),
            )
        ),
        Metric("best_of_n.win_rate[].n", "responses that the best is chosen from"),
        Metric("best_of_n.win_rate[].kl", "log n - (n - 1) / n", "nats/response"),
        estimate(
            "best_of_n.win_rate[].value",
            "win rate of that response over another of SFT's, by gold, else by the held-out reward"
            " model",
            better=HIGHER,
        ),
        *_STYLE,
        Metric(f"{_TASK}.examples", "examples of the task", "examples"),
        *(
            Metric(f"{_TASK}.{name}", f"mean of the task's metric, {name}")
            for name in ("base", "sft", "ppo")
        ),
        estimate(f"{_TASK}.ppo_minus_sft", "mean of PPO minus SFT, paired by example"),
        estimate(f"{_TASK}.sft_minus_base", "mean of SFT minus base, paired by example"),
        *_annotators("annotators"),
    ),
}
