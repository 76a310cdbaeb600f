"""PPO's formulas written from the papers, in plain float64 Python with loops: slow, and unlike
the code under test. Rows are lists of the response's tokens alone, so there is no mask to err on."""

import math


def log_softmax(logits, temperature):
    scaled = [value / temperature for value in logits]
    top = max(scaled)
    normalizer = top + math.log(sum(math.exp(value - top) for value in scaled))
    return [value - normalizer for value in scaled]


def entropy(logits, temperature):
    return -sum(math.exp(value) * value for value in log_softmax(logits, temperature))


def k1(log_prob, reference):
    return log_prob - reference


def k3(log_prob, reference):
    r = log_prob - reference
    return math.exp(-r) - 1.0 + r


def rewards(log_probs, reference, score, beta):
    shaped = [-beta * k1(p, q) for p, q in zip(log_probs, reference, strict=True)]
    shaped[-1] += score
    return shaped


def gae(token_rewards, values, gamma, lam):
    length = len(values)
    deltas = [
        token_rewards[t] + gamma * (values[t + 1] if t + 1 < length else 0.0) - values[t]
        for t in range(length)
    ]
    return [
        sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)
    ]


def whiten(rows, shift_mean=True):
    flat = [value for row in rows for value in row]
    mean = sum(flat) / len(flat)
    variance = sum((value - mean) ** 2 for value in flat) / len(flat)
    scale = 1.0 / math.sqrt(max(variance, 1e-8))
    return [[(v - mean) * scale + (0.0 if shift_mean else mean) for v in row] for row in rows]


def surrogate(log_prob, old, advantage, epsilon):
    ratio = math.exp(min(max(log_prob - old, -20.0), 20.0))
    bounded = min(max(ratio, 1.0 - epsilon), 1.0 + epsilon)
    return max(-advantage * ratio, -advantage * bounded)


def value_loss(value, old, target, epsilon):
    if epsilon is None:
        return 0.5 * (value - target) ** 2
    near = min(max(value, old - epsilon), old + epsilon)
    return 0.5 * max((value - target) ** 2, (near - target) ** 2)


def bradley_terry(chosen, rejected, margin, smoothing):
    def log_sigmoid(x):
        return -math.log1p(math.exp(-x)) if x > -30 else x

    d = chosen - rejected - margin
    return -(1 - smoothing) * log_sigmoid(d) - smoothing * log_sigmoid(-d)


def explained_variance(values, returns):
    def variance(xs):
        mean = sum(xs) / len(xs)
        return sum((x - mean) ** 2 for x in xs) / len(xs)

    return 1.0 - variance([r - v for v, r in zip(values, returns, strict=True)]) / variance(returns)
