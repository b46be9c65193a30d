"""Naive float64 loops for every metric, independent of the package."""

import itertools
import math

import numpy as np


def softmax(row):
    top = max(row)
    exps = [math.exp(v - top) for v in row]
    return [e / sum(exps) for e in exps]


def bin_index(value, num_bins=15):
    for b in range(num_bins):
        if value <= (b + 1) / num_bins:
            return b
    return num_bins - 1


def binned_gap(values, targets, num_bins=15):
    total = 0.0
    for b in range(num_bins):
        rows = [i for i, v in enumerate(values) if bin_index(v, num_bins) == b]
        if rows:
            gap = sum(values[i] for i in rows) / len(rows) - sum(targets[i] for i in rows) / len(rows)
            total += len(rows) / len(values) * abs(gap)
    return total


def classwise_ece(probs, labels):
    num_classes = len(probs[0])
    gaps = [binned_gap([p[k] for p in probs], [float(y == k) for y in labels]) for k in range(num_classes)]
    return sum(gaps) / num_classes


def expected_risks(confidence, errors):
    """Expected error rate among the k surest: ties averaged by linearity of expectation."""
    n, risks = len(confidence), []
    for k in range(1, n + 1):
        cut = sorted(confidence, reverse=True)[k - 1]
        above = [e for c, e in zip(confidence, errors, strict=True) if c > cut]
        tied = [e for c, e in zip(confidence, errors, strict=True) if c == cut]
        risks.append((sum(above) + (k - len(above)) * sum(tied) / len(tied)) / k)
    return risks


def aurc(confidence, errors):
    return float(np.mean(expected_risks(confidence, errors)))


def eaurc(confidence, errors):
    best = sorted(errors)
    return aurc(confidence, errors) - aurc(list(range(len(best), 0, -1)), best)


def augrc(confidence, errors):
    n, points = len(confidence), [(0.0, 0.0)]
    for cut in sorted(set(confidence), reverse=True):
        taken = [e for c, e in zip(confidence, errors, strict=True) if c >= cut]
        points.append((len(taken) / n, sum(taken) / n))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


def auroc(scores, positive):
    wins = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, p in zip(scores, positive, strict=True)
        if p
        for b, q in zip(scores, positive, strict=True)
        if not q
    ]
    return sum(wins) / len(wins) if wins else math.nan


def fpr95(scores, positive):
    num_positive = sum(positive)
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return math.nan
    for cut in sorted(set(scores), reverse=True):
        taken = [bool(p) for s, p in zip(scores, positive, strict=True) if s >= cut]
        if sum(taken) * 100 >= 95 * num_positive:
            return (len(taken) - sum(taken)) / num_negative
    return math.nan
