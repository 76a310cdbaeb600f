"""Definitions of the metrics of SFT, the reward model and PPO."""

from __future__ import annotations

from dataclasses import replace

from rlhfctl.results.metric import HIGHER, LOWER, Metric, Source, estimate, group_accuracy


def _training_log(prefix: str = "") -> tuple[Metric, ...]:
    return (
        Metric(f"{prefix}learning_rate", "learning rate of the step"),
        Metric(f"{prefix}grad_norm", "norm of the gradient before clipping"),
        Metric(f"{prefix}epoch", "passes over the training rows so far", "epochs"),
        Metric(f"{prefix}tokens", "tokens trained on so far", "tokens"),
        Metric(f"{prefix}tokens_per_second", "tokens trained on per second", "tokens/s", HIGHER),
        Metric(f"{prefix}memory_bytes", "peak memory so far: GPU, else resident", "bytes", LOWER),
    )


def _under(prefix: str, metric: Metric) -> Metric:
    bounds = tuple(f"{prefix}.{bound}" for bound in metric.bounds)
    return replace(metric, name=f"{prefix}.{metric.name}", bounds=bounds)


def _reward_model_log(prefix: str = "") -> tuple[Metric, ...]:
    return (
        Metric(f"{prefix}loss", "mean of -log sigmoid(chosen - rejected - margin)", "nats", LOWER),
        Metric(f"{prefix}accuracy", "share of the batch with chosen above rejected", "", HIGHER),
        Metric(f"{prefix}margin", "mean of chosen minus rejected", "raw score", HIGHER),
        Metric(f"{prefix}mean_score", "mean score of chosen and rejected", "raw score"),
        Metric(f"{prefix}eval_loss", "loss on held-out pairs during training", "nats", LOWER),
        Metric(f"{prefix}eval_accuracy", "accuracy on held-out pairs during training", "", HIGHER),
        *_training_log(prefix),
    )


def _reward_model(prefix: str = "") -> tuple[Metric, ...]:
    name = prefix + "{}"
    return (
        estimate(
            name.format("accuracy"),
            "share of held-out comparisons with chosen above rejected; ties count one half",
            better=HIGHER,
        ),
        estimate(
            name.format("length_accuracy"),
            "accuracy of always preferring the longer response on the same comparisons",
        ),
        Metric(name.format("pairs"), "held-out comparisons", "pairs"),
        Metric(name.format("mean_margin"), "mean of chosen minus rejected", "raw score", HIGHER),
        Metric(name.format("score_min"), "lowest score on held-out comparisons", "raw score"),
        Metric(name.format("score_max"), "highest score on held-out comparisons", "raw score"),
        *group_accuracy(name.format("per_annotator.ANNOTATOR"), "accuracy on their comparisons"),
        estimate(
            name.format("gold_accuracy"),
            "accuracy on held-out pairs in gold order; embedded world only",
            better=HIGHER,
        ),
        estimate(
            name.format("gold_length_accuracy"),
            "accuracy of always preferring the longer response on the same pairs",
        ),
        Metric(name.format("gold_pairs"), "held-out pairs in gold order", "pairs"),
        Metric(name.format("train_loss"), "mean training loss", "nats", LOWER),
        Metric(name.format("train_rows"), "comparisons trained on", "pairs"),
        Metric(name.format("steps"), "optimiser steps", "steps"),
        Metric(
            name.format("best_step"),
            "steps of the state taken by `load_best_model_at_end`",
            "steps",
        ),
        Metric(name.format("pass_size"), "pairs per forward pass found by `auto_batch`", "pairs"),
        Metric(
            name.format("score_mean"),
            "mean score of SFT's responses that ended (of all, if too few did);"
            " PPO's scores are (raw - mean) / std",
            "raw score",
        ),
        Metric(name.format("score_std"), "standard deviation of the same", "raw score"),
        Metric(
            name.format("sft_eos_share"),
            "share of SFT's responses sampled for that mean that end with a stop token",
            "",
            HIGHER,
        ),
    )


_ROLLOUT = (
    Metric(
        "score",
        "mean score per episode by `reward_rule`, before clipping and `missing_eos_score`",
        "normalised score",
        HIGHER,
    ),
    Metric(
        "objective_score",
        "mean score that is maximised: normalised (if `running`), clipped, and `missing_eos_score`"
        " for unended or too short responses",
        "normalised score",
        HIGHER,
    ),
    Metric("score_SOURCE", "with several `reward_sources`: mean score of each", "", HIGHER),
    Metric(
        "score_disagreement",
        "with several sources: mean over episodes of the sources' standard deviation (n - 1)",
    ),
    Metric(
        "reward",
        "mean per episode of the sum of token rewards: objective score - beta * sum r;"
        " the objective score under `kl_penalty: loss`",
        "",
        HIGHER,
    ),
    Metric("kl", "mean over episodes of sum_t r (k1); 0 in the first rollout", "nats/response"),
    Metric("kl_k3", "mean over episodes of sum_t (exp(-r) - 1 + r)", "nats/response"),
    Metric("entropy", "mean over tokens of the policy's entropy", "nats/token"),
    Metric(
        "engine_mismatch",
        "with `engine: vllm`: mean over tokens of abs(log pi_vllm - log pi)",
        "nats/token",
        LOWER,
    ),
    Metric(
        "engine_mismatch_max",
        "with `engine: vllm`: maximum over tokens of abs(log pi_vllm - log pi)",
        "nats/token",
        LOWER,
    ),
    Metric(
        "importance_weight",
        "with `vllm.importance_sampling_clip_max`: mean over tokens of min(pi / pi_vllm, maximum)",
    ),
    Metric("response_length", "mean response length", "tokens"),
    Metric("eos_share", "share of episodes that end with a stop token", "", HIGHER),
    Metric(
        "explained_variance", "1 - var(returns - values) / var(returns) over tokens", "", HIGHER
    ),
    Metric("ratio_mean", "mean over tokens and applied minibatches of pi / pi_old"),
    Metric(
        "approx_kl", "mean over tokens of exp(d) - 1 - d, d = log pi - log pi_old", "nats/token"
    ),
    Metric("policy_clip_fraction", "share of tokens where the clipped policy loss is the larger"),
    Metric("value_clip_fraction", "share of tokens where the clipped value loss is the larger"),
    Metric("policy_loss", "mean clipped surrogate per token", "", LOWER),
    Metric("value_loss", "mean clipped value loss per token", "", LOWER),
    Metric(
        "kl_loss", "under `kl_penalty: loss`: beta times mean k2 or k3 to the reference", "", LOWER
    ),
    Metric(
        "ptx_loss",
        "with `ptx_coefficient`: mean negative log-likelihood of demonstrations, unweighted",
        "nats/token",
        LOWER,
    ),
    Metric(
        "policy_grad_norm",
        "mean norm over applied minibatches, before clipping; with critic: head, of both losses",
    ),
    Metric("value_grad_norm", "mean norm over applied minibatches, before clipping"),
    Metric("updates", "optimiser steps in the rollout", "steps"),
    Metric("skipped_minibatches", "minibatches rejected: not finite, or mean ratio > `max_ratio`"),
    Metric("beta", "KL coefficient of the rollout"),
    Metric("learning_rate", "learning rate of the policy in the rollout"),
    Metric("value_learning_rate", "learning rate of the critic in the rollout"),
    Metric("rollout_seconds", "time of sampling and scoring", "s", LOWER),
    Metric("update_seconds", "time of the epochs", "s", LOWER),
    Metric("episodes_per_second", "episodes per second of the whole rollout", "1/s", HIGHER),
    Metric(
        "tokens_per_second", "response tokens per second of the whole rollout", "tokens/s", HIGHER
    ),
    Metric("memory_bytes", "peak memory so far: GPU, else resident", "bytes", LOWER),
)

_HELD_OUT = (
    Metric("step", "episodes trained on so far", "episodes"),
    Metric("rollout", "rollouts trained on so far", "rollouts"),
    estimate("kl", "mean k1 to the reference", "nats/response"),
    Metric("sqrt_kl", "square root of max(kl, 0)", "sqrt(nats)"),
    estimate("proxy", "mean score by the reward sources, before clipping", better=HIGHER),
    estimate(
        "objective_score",
        "the same, clipped, and `missing_eos_score` for unended or too short responses; absent with"
        " `score_normalization: running`",
        better=HIGHER,
    ),
    estimate(
        "true_reward",
        "mean gold reward, else mean score of the held-out reward model",
        better=HIGHER,
    ),
    estimate("length", "mean response length", "tokens"),
    Metric("eos_share", "share of responses that end with a stop token", "", HIGHER),
    estimate("repetition", "mean share of a response's word 3-grams that are repeats", "", LOWER),
    estimate("certainty", "share of responses with a marker of certainty"),
    estimate("hedging", "share of responses with a marker of doubt"),
    estimate("entropy", "mean over responses of the mean entropy per token", "nats/token"),
    Metric(
        "score_disagreement",
        "with several sources: mean over responses of their standard deviation (n - 1)",
    ),
    Metric(
        "out_of_range_share",
        "share of scores outside the reward model's range on held-out comparisons",
        "",
        LOWER,
    ),
    Metric(
        "state_distance",
        "mean Mahalanobis distance, divided by the square root of the dimension, of the states that"
        " the score head reads to those of SFT's responses to other prompts",
        "",
        LOWER,
    ),
    Metric("saturated_share", "share of scores at `score_clip` or beyond", "", LOWER),
)

_RESULT = tuple(
    metric
    for metric in _HELD_OUT
    if metric.name in {"kl", "proxy", "objective_score", "true_reward", "length", "eos_share"}
)

_OVER_OPTIMISATION = (
    Metric("evaluations", "held-out evaluations"),
    Metric("alarms[].step", "episodes before the alarm", "episodes"),
    Metric("alarms[].value", "value that raised the alarm"),
    Metric("alarms[].threshold", "threshold of the alarm"),
    Metric("acts[].step", "episodes before an act of `on_alarm`, discarded included", "episodes"),
    Metric("acts[].beta_before", "KL coefficient before the act"),
    Metric("acts[].beta", "KL coefficient after the act"),
    Metric("acts[].restored_step", "episodes before the policy that was restored", "episodes"),
    estimate("fits.SCORE.alpha", "coefficient alpha of the fitted curve"),
    estimate("fits.SCORE.beta", "coefficient beta of the fitted curve"),
    estimate("fits.SCORE.peak.distance", "distance of the fitted curve's peak", "sqrt(nats)"),
    estimate("fits.SCORE.peak.value", "gain at the fitted curve's peak", "", HIGHER),
    Metric("fits.SCORE.r_squared", "coefficient of determination of the fit", "", HIGHER),
    Metric("fits.SCORE.baseline", "mean score of the first evaluation; gains are relative to it"),
    Metric("fits.SCORE.points", "evaluations that the curve is fitted to"),
    Metric("best.step", "episodes before the evaluation with the highest true reward", "episodes"),
    Metric("best.rollout", "rollouts before the same evaluation", "rollouts"),
    Metric("best.kl", "its mean k1 to the reference", "nats/response"),
    estimate("best.true_reward", "its mean true reward", better=HIGHER),
    estimate(
        "last_below_best.change",
        "mean change of the true reward from the best evaluation to the last; below 0 by"
        " selection even in a run without over-optimisation",
        better=HIGHER,
    ),
)

_DPO_LOG = (
    Metric("loss", "mean loss over pairs, by `dpo.loss_type`", "", LOWER),
    Metric("accuracy", "share of pairs with the chosen reward above the rejected one", "", HIGHER),
    Metric("margin", "mean reward of chosen minus rejected", "nats", HIGHER),
    Metric("chosen_reward", "mean of beta * (log pi - log pi_sft) of chosen responses", "nats"),
    Metric("rejected_reward", "the same of rejected responses", "nats"),
    Metric("chosen_log_prob", "mean log pi of chosen responses", "nats/response"),
    Metric("rejected_log_prob", "mean log pi of rejected responses", "nats/response"),
    Metric("token_accuracy", "share of chosen responses' tokens that have top probability"),
    Metric("entropy", "mean entropy of the next-token distribution", "nats/token"),
    Metric("eval_loss", "loss on held-out pairs during training", "", LOWER),
    Metric("eval_accuracy", "accuracy on held-out pairs during training", "", HIGHER),
    Metric("eval_token_accuracy", "token accuracy on held-out pairs during training", "", HIGHER),
    *_training_log(),
)

_DPO = (
    estimate(
        "accuracy",
        "share of held-out comparisons whose chosen response has the higher implicit reward,"
        " beta * (log pi - log pi_sft); ties count one half",
        better=HIGHER,
    ),
    Metric("mean_margin", "mean implicit reward of chosen minus rejected, held out", "nats"),
    Metric("chosen_reward", "mean implicit reward of chosen responses, held out", "nats"),
    Metric("eval_loss", "loss on held-out comparisons", "", LOWER),
    Metric("pairs", "held-out comparisons", "pairs"),
    Metric("train_loss", "mean training loss", "", LOWER),
    Metric("train_rows", "comparisons trained on", "pairs"),
    Metric("steps", "optimiser steps", "steps"),
    Metric("best_step", "steps of the state taken by `load_best_model_at_end`", "steps"),
    Metric("pass_size", "pairs per forward pass found by `auto_batch`", "pairs"),
)

METRICS: dict[Source, tuple[Metric, ...]] = {
    Source.SFT_LOG: (
        Metric("loss", "mean negative log-likelihood of response tokens", "nats/token", LOWER),
        Metric("token_accuracy", "share of response tokens that have top probability", "", HIGHER),
        Metric("entropy", "mean entropy of the next-token distribution", "nats/token"),
        Metric("eval_loss", "loss on held-out rows during training", "nats/token", LOWER),
        Metric(
            "eval_token_accuracy", "token accuracy on held-out rows during training", "", HIGHER
        ),
        *_training_log(),
    ),
    Source.SFT: (
        Metric("eval_loss_before", "loss on held-out rows before training", "nats/token", LOWER),
        Metric("eval_loss", "loss on held-out rows after training", "nats/token", LOWER),
        Metric("token_accuracy_before", "token accuracy on held-out rows before", "", HIGHER),
        Metric("token_accuracy", "token accuracy on held-out rows after training", "", HIGHER),
        Metric("train_loss", "mean training loss", "nats/token", LOWER),
        Metric("train_rows", "demonstrations trained on", "rows"),
        Metric("held_out_rows", "held-out demonstrations", "rows"),
        Metric("steps", "optimiser steps", "steps"),
        Metric("best_step", "steps of the state taken by `load_best_model_at_end`", "steps"),
        Metric("pass_size", "rows per forward pass found by `auto_batch`", "rows"),
        Metric("packs", "sequences that rows are packed in by `sft.packing`", "sequences"),
        Metric("fill_ratio", "share of the packed sequences' tokens that are of rows", "", HIGHER),
        Metric("trainable_parameters", "trainable parameters", "parameters"),
        Metric("tokens_per_second", "tokens trained on per second of training", "tokens/s", HIGHER),
    ),
    Source.RM_LOG: (*_reward_model_log(), *_reward_model_log("judge_")),
    Source.RM: (*_reward_model(), *_reward_model("judge.")),
    Source.PPO_LOG: (
        *_ROLLOUT,
        Metric("held_out_kl", "`kl` of a held-out evaluation", "nats/response"),
        Metric("held_out_proxy", "`proxy` of a held-out evaluation", "", HIGHER),
        Metric(
            "held_out_objective_score", "`objective_score` of a held-out evaluation", "", HIGHER
        ),
        Metric("held_out_true_reward", "`true_reward` of a held-out evaluation", "", HIGHER),
        Metric("held_out_length", "`length` of a held-out evaluation", "tokens"),
        Metric("held_out_seconds", "time of a held-out evaluation", "s", LOWER),
        Metric("alarm_acts", "with `on_alarm` other than `warn`: acts on alarms so far"),
    ),
    Source.PPO: (
        Metric("rollouts", "rollouts trained on", "rollouts"),
        Metric("episodes", "episodes trained on", "episodes"),
        Metric("skipped_minibatches", "minibatches rejected in the whole run"),
        Metric("kl_early_stops", "rollouts whose epochs ended at `kl_early_stop`", "rollouts"),
        Metric("pass_size", "episodes per forward pass found by `auto_batch`", "episodes"),
        Metric("result.step", "episodes before the held-out evaluation of the result", "episodes"),
        *(_under("result", metric) for metric in _RESULT),
    ),
    Source.DPO_LOG: _DPO_LOG,
    Source.DPO: _DPO,
    Source.HELD_OUT: _HELD_OUT,
    Source.OVER_OPTIMISATION: _OVER_OPTIMISATION,
}
