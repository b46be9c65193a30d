"""Naive float64 loops for the difficulty methods, independent of the package."""

import math
from itertools import pairwise

import numpy as np


def nearest_and_margin(costs: list[float], label: int) -> tuple[int, float]:
    """The class of least cost (the label among ties) and how much less it costs than the label."""
    least = min(costs)
    return (label, 0.0) if costs[label] == least else (costs.index(least), costs[label] - least)


def knn_shares(z: np.ndarray, y: np.ndarray, row: int, k: int, temperature: float, num_classes: int) -> list[float]:
    """Weighted share of every class among the k neighbours of greatest cosine of a row, itself left out."""
    centred = [sample - z.mean(axis=0) for sample in z]
    cosines = []
    for other in range(len(z)):
        if other != row:
            lengths = math.sqrt(centred[row] @ centred[row]) * math.sqrt(centred[other] @ centred[other])
            cosines.append((centred[row] @ centred[other] / lengths, y[other]))
    votes = [0.0] * num_classes
    for cosine, label in sorted(cosines, reverse=True)[:k]:
        votes[label] += math.exp(cosine / temperature)
    return [vote / sum(votes) for vote in votes]


def class_mean_costs(z: np.ndarray, y: np.ndarray, row: int) -> list[float]:
    """Squared distance to every class mean, over the whole variance."""
    whole = sum(float((sample - z.mean(axis=0)) @ (sample - z.mean(axis=0))) for sample in z) / len(z)
    return [
        float((z[row] - z[y == k].mean(axis=0)) @ (z[row] - z[y == k].mean(axis=0))) / whole for k in range(y.max() + 1)
    ]


def log_density(sample: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """Of a Gaussian."""
    off = sample - mean
    return -0.5 * float(off @ np.linalg.inv(covariance) @ off + math.log(np.linalg.det(2 * math.pi * covariance)))


def probe_log_probs(
    z: np.ndarray, y: np.ndarray, row: int, train: np.ndarray, ridge: float, num_classes: int
) -> np.ndarray:
    """Log-probabilities of a row under softmax regression on the rows `train`, by scikit-learn's other solver.

    The bias is penalised like a weight and starts at the smoothed frequency: it is a constant feature 1 of its own.
    """
    from scipy.optimize import minimize

    standard = (z - z.mean(axis=0)) / z.std(axis=0)
    design = np.hstack([standard, np.ones((len(z), 1))])
    counts = np.array([(y[train] == k).sum() for k in range(num_classes)])
    prior = np.log((counts + 1) / (len(train) + num_classes))

    def log_probs(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        logits = design[rows] @ weights.reshape(-1, num_classes) + prior
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def loss(weights: np.ndarray) -> float:
        own = log_probs(weights, train)[np.arange(len(train)), y[train]]
        return float(-own.mean() + ridge / 2 * (weights**2).sum())

    found = minimize(loss, np.zeros(design.shape[1] * num_classes), method="BFGS", options={"gtol": 1e-7})
    return log_probs(found.x, np.array([row]))[0]


def cosine_costs(sample: np.ndarray, texts: np.ndarray) -> list[float]:
    """Minus the cosine with every text."""
    return [-float(sample @ t) / math.sqrt(float(sample @ sample) * float(t @ t)) for t in texts]


def forgetting(correct: list[bool]) -> int:
    """Times that a right epoch is followed by a wrong one; all epochs where none was right."""
    if not any(correct):
        return len(correct)
    return sum(before and not after for before, after in pairwise(correct))
