"""PPO's formulas written from the papers, in plain float64 Python with loops: slow, and unlike
the code under test. Rows are lists of the response's tokens alone, so there is no mask to err on."""

import math
from collections.abc import Callable, Sequence

Floats = Sequence[float]
Rows = Sequence[Sequence[float]]


def log_softmax(logits: Floats, temperature: float) -> list[float]:
    scaled = [value / temperature for value in logits]
    top = max(scaled)
    normalizer = top + math.log(sum(math.exp(value - top) for value in scaled))
    return [value - normalizer for value in scaled]


def entropy(logits: Floats, temperature: float) -> float:
    return -sum(math.exp(value) * value for value in log_softmax(logits, temperature))


def k1(log_prob: float, reference: float) -> float:
    return log_prob - reference


def k2(log_prob: float, reference: float) -> float:
    return (log_prob - reference) ** 2 / 2.0


def k3(log_prob: float, reference: float) -> float:
    r = log_prob - reference
    return math.exp(-r) - 1.0 + r


def rewards(log_probs: Floats, reference: Floats, score: float, beta: float) -> list[float]:
    shaped = [-beta * k1(p, q) for p, q in zip(log_probs, reference, strict=True)]
    shaped[-1] += score
    return shaped


def gae(token_rewards: Floats, values: Floats, gamma: float, lam: float) -> list[float]:
    length = len(values)
    deltas = [
        token_rewards[t] + gamma * (values[t + 1] if t + 1 < length else 0.0) - values[t]
        for t in range(length)
    ]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)
    ]


def batch_mean(reward_rows: Rows, gamma: float) -> tuple[list[list[float]], list[list[float]]]:
    """Advantages and rewards-to-go of REINFORCE with the mean whole return as baseline."""
    to_go = [
        [sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))]
        for row in reward_rows
    ]
    baseline = sum(row[0] for row in to_go) / len(to_go)
    return [[value - baseline for value in row] for row in to_go], to_go


def grouped(reward_rows: Rows, group_size: int) -> list[list[float]]:
    """Whole rewards of the responses, a list per prompt."""
    whole = [math.fsum(row) for row in reward_rows]
    return [whole[at : at + group_size] for at in range(0, len(whole), group_size)]


def rloo(reward_rows: Rows, group_size: int) -> list[list[float]]:
    """Ahmadian et al. 2024: R(y_i) - 1 / (k - 1) * sum over j != i of R(y_j), at every token."""
    advantages = []
    for group in grouped(reward_rows, group_size):
        for i, own in enumerate(group):
            others = [value for j, value in enumerate(group) if j != i]
            advantages.append(own - sum(others) / len(others))
    return [[a] * len(row) for a, row in zip(advantages, reward_rows, strict=True)]


def grpo(reward_rows: Rows, group_size: int) -> list[list[float]]:
    """Shao et al. 2024: (r_i - mean(r)) / std(r), at every token; 1e-4 is TRL's."""
    advantages = []
    for group in grouped(reward_rows, group_size):
        mean = sum(group) / len(group)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        advantages += [(r - mean) / (deviation + 1e-4) for r in group]
    return [[a] * len(row) for a, row in zip(advantages, reward_rows, strict=True)]


def whiten(rows: Rows, shift_mean: bool = True) -> list[list[float]]:
    flat = [value for row in rows for value in row]
    mean = sum(flat) / len(flat)
    variance = sum((value - mean) ** 2 for value in flat) / len(flat)
    scale = 1.0 / math.sqrt(max(variance, 1e-8))
    return [[(v - mean) * scale + (0.0 if shift_mean else mean) for v in row] for row in rows]


def whiten_ranks(ranks: Sequence[Rows]) -> list[list[list[float]]]:
    """Each rank's rows whitened by the mean and variance of the tokens of all ranks."""
    together = iter(whiten([row for rows in ranks for row in rows]))
    return [[next(together) for _ in rows] for rows in ranks]


def surrogate(
    log_prob: float, old: float, advantage: float, epsilon: float, dual: float | None = None
) -> float:
    ratio = math.exp(min(max(log_prob - old, -20.0), 20.0))
    bounded = min(max(ratio, 1.0 - epsilon), 1.0 + epsilon)
    loss = max(-advantage * ratio, -advantage * bounded)
    return min(loss, -dual * advantage) if dual is not None and advantage < 0 else loss


def value_loss(value: float, old: float, target: float, epsilon: float | None) -> float:
    if epsilon is None:
        return 0.5 * (value - target) ** 2
    near = min(max(value, old - epsilon), old + epsilon)
    return 0.5 * max((value - target) ** 2, (near - target) ** 2)


def bradley_terry(chosen: float, rejected: float, margin: float, smoothing: float) -> float:
    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x)) if x > -30 else x

    d = chosen - rejected - margin
    return -(1 - smoothing) * log_sigmoid(d) - smoothing * log_sigmoid(-d)


def reward_model_loss(chosen: Floats, rejected: Floats, margins: Floats, centring: float) -> float:
    """The mean over comparisons, with what keeps scores near 0 (Eisenstein et al. 2023)."""
    pairs = list(zip(chosen, rejected, margins, strict=True))
    preference = sum(bradley_terry(c, r, m, 0.0) for c, r, m in pairs) / len(pairs)
    return preference + centring * sum((c + r) ** 2 for c, r, _ in pairs) / len(pairs)


def labelled_loss(
    chosen: Floats,
    rejected: Floats,
    margins: Floats,
    targets: Floats,
    weights: Floats,
    centring: float,
) -> float:
    """Cross-entropy against the chance that each label is right, weighted, and the centring."""

    def one(c: float, r: float, m: float, target: float) -> float:
        likely = 1.0 / (1.0 + math.exp(-(c - r - m)))
        return -target * math.log(likely) - (1 - target) * math.log(1 - likely)

    rows = list(zip(chosen, rejected, margins, targets, weights, strict=True))
    preference = sum(w * one(c, r, m, t) for c, r, m, t, w in rows) / len(rows)
    return preference + centring * sum((c + r) ** 2 for c, r, *_ in rows) / len(rows)


def controller(beta: float, kl_rows: Rows, target: float, horizon: float) -> float:
    """Ziegler et al. 2019: the error is clipped, KL is the sum over each response's tokens."""
    kl = sum(sum(row) for row in kl_rows) / len(kl_rows)
    error = max(-0.2, min(0.2, (kl - target) / target))
    return beta + beta * error * len(kl_rows) / horizon


def ensemble(members: Floats, rule: str, penalty: float) -> float:
    """Coste et al. 2024 on one response's scores by each member."""
    mean = sum(members) / len(members)
    if rule == "mean":
        return mean
    if rule == "worst":
        return sorted(members)[0]
    pairs = [(a - b) ** 2 for a in members for b in members]
    spread = sum(pairs) / (2 * len(members) * (len(members) - 1)) if len(members) > 1 else 0.0
    return mean - penalty * spread


def derivative(function: Callable[[float], float], at: float, step: float = 1e-3) -> float:
    """Central difference of sixth order, good to about 1e-10 of a smooth function."""
    weights = ((1, 45.0), (2, -9.0), (3, 1.0))
    return sum(
        weight * (function(at + k * step) - function(at - k * step)) for k, weight in weights
    ) / (60.0 * step)


def explained_variance(values: Floats, returns: Floats) -> float:
    def variance(xs: Floats) -> float:
        mean = sum(xs) / len(xs)
        return sum((x - mean) ** 2 for x in xs) / len(xs)

    return 1.0 - variance([r - v for v, r in zip(values, returns, strict=True)]) / variance(returns)
