"""Naive float64 loops for every metric, independent of the package."""

import itertools
import math
from fractions import Fraction

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


def bins_of(values, num_bins=15):
    return [[i for i, v in enumerate(values) if bin_index(v, num_bins) == b] for b in range(num_bins)]


def quantile_bins(values, num_bins=15):
    """Right-closed bins between the least values that b / num_bins of the samples do not exceed."""
    n, ordered = len(values), sorted(values)
    edges = []
    for b in range(1, num_bins):
        edges.append(next(v for v in ordered if sum(w <= v for w in values) * num_bins >= b * n))
    edges = [-math.inf, *edges, math.inf]
    return [[i for i, v in enumerate(values) if lo < v <= hi] for lo, hi in itertools.pairwise(edges)]


def means(rows, confidence, right):
    return sum(confidence[i] for i in rows) / len(rows), sum(right[i] for i in rows) / len(rows)


def ece_equal_mass(confidence, right):
    total = 0.0
    for rows in quantile_bins(confidence):
        if rows:
            sure, share = means(rows, confidence, right)
            total += len(rows) * abs(sure - share)
    return total / len(confidence)


def mce(confidence, right):
    gaps = []
    for rows in bins_of(confidence):
        if rows:
            sure, share = means(rows, confidence, right)
            gaps.append(abs(sure - share))
    return max(gaps)


def ece_debiased(confidence, right):
    """The mean of |N(g, s^2)| by numerical integration."""
    total = 0.0
    for rows in bins_of(confidence):
        if rows:
            sure, share = means(rows, confidence, right)
            gap, deviation = sure - share, math.sqrt(share * (1 - share) / len(rows))
            noise = np.linspace(-10, 10, 200_001)
            density = np.exp(-(noise**2) / 2) / math.sqrt(2 * math.pi)
            expected = np.trapezoid(np.abs(gap + deviation * noise) * density, noise)
            total += len(rows) * (2 * abs(gap) - expected)
    return max(0.0, total / len(confidence))


def ks_error(confidence, right):
    gaps = [
        sum(c - r for c, r in zip(confidence, right, strict=True) if c >= cut) / len(confidence)
        for cut in set(confidence)
    ]
    return max(abs(gap) for gap in gaps)


def ece_smooth(confidence, right, points=4000):
    """Direct sums of the reflected kernel at many points, and bisection."""
    at = (np.arange(points) + 0.5) / points

    def smoothed(width):
        total = np.zeros(points)
        for c, r in zip(confidence, right, strict=True):
            for image in range(-6, 7):
                for centre in (2 * image + c, 2 * image - c):
                    total += (c - r) * np.exp(-(((at - centre) / width) ** 2) / 2)
        return np.abs(total).mean() / (width * math.sqrt(2 * math.pi) * len(confidence))

    low, high = 1e-3, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if smoothed(middle) > middle else (low, middle)
    return (low + high) / 2


def overconfidence(confidence, errors):
    wrong = [c for c, e in zip(confidence, errors, strict=True) if e]
    return sum(wrong) / len(wrong) if wrong else math.nan


def coverage_at_risk(confidence, errors, risk):
    best = 0.0
    for cut in set(confidence):
        taken = [e for c, e in zip(confidence, errors, strict=True) if c >= cut]
        if Fraction(sum(taken), len(taken)) <= Fraction(str(risk)):
            best = max(best, len(taken) / len(confidence))
    return best


def risk_at_coverage(confidence, errors, coverage):
    return expected_risks(confidence, errors)[max(1, math.ceil(Fraction(str(coverage)) * len(confidence))) - 1]


def aupr(scores, positive):
    total, found = 0.0, 0
    for cut in sorted(set(scores), reverse=True):
        taken = [bool(p) for s, p in zip(scores, positive, strict=True) if s >= cut]
        total += (sum(taken) - found) * sum(taken) / len(taken)
        found = sum(taken)
    return total / found if 0 < found < len(positive) else math.nan


def brier_parts(probs, labels):
    n, reliability, uncertainty = len(labels), 0.0, 0.0
    for k in range(len(probs[0])):
        values, targets = [row[k] for row in probs], [float(y == k) for y in labels]
        for rows in bins_of(values):
            if rows:
                sure, share = means(rows, values, targets)
                reliability += len(rows) * (sure - share) ** 2 / n
        uncertainty += sum(targets) / n * (1 - sum(targets) / n)
    brier = sum((p - (k == y)) ** 2 for row, y in zip(probs, labels, strict=True) for k, p in enumerate(row)) / n
    return reliability, reliability + uncertainty - brier, uncertainty


def every_metric(probs, labels):
    """All keys of an evaluation, from probabilities and labels."""
    predictions = [max(range(len(row)), key=row.__getitem__) for row in probs]
    errors = [p != y for p, y in zip(predictions, labels, strict=True)]
    top, n = [max(row) for row in probs], len(labels)
    reliability, resolution, uncertainty = brier_parts(probs, labels)
    flagged = [-t for t in top]
    found = {
        "accuracy": 1 - sum(errors) / n,
        "nll": -sum(math.log(row[y]) for row, y in zip(probs, labels, strict=True)) / n,
        "brier": reliability - resolution + uncertainty,
        "brier_reliability": reliability,
        "brier_resolution": resolution,
        "brier_uncertainty": uncertainty,
        "classwise_ece": classwise_ece(probs, labels),
        "overconfidence": overconfidence(top, errors),
        "aurc": aurc(top, errors),
        "eaurc": eaurc(top, errors),
        "augrc": augrc(top, errors),
        "coverage_at_risk_1": coverage_at_risk(top, errors, 0.01),
        "coverage_at_risk_5": coverage_at_risk(top, errors, 0.05),
        "risk_at_coverage_80": risk_at_coverage(top, errors, 0.8),
        "risk_at_coverage_90": risk_at_coverage(top, errors, 0.9),
        "auroc_errors": auroc(flagged, errors),
        "aupr_errors": aupr(flagged, errors),
        "fpr95_errors": fpr95(flagged, errors),
        **calibration(top, [float(not e) for e in errors]),
    }
    if len(probs[0]) == 2:
        of_class = [row[1] for row in probs]
        positive = calibration(of_class, [float(y) for y in labels])
        positive |= {"auroc": auroc(of_class, labels), "aupr": aupr(of_class, labels)}
        found |= {f"{name}_positive": value for name, value in positive.items()}
    return found


def calibration(confidence, right):
    return {
        "ece": binned_gap(confidence, right),
        "ece_equal_mass": ece_equal_mass(confidence, right),
        "ece_debiased": ece_debiased(confidence, right),
        "ece_smooth": ece_smooth(confidence, right),
        "mce": mce(confidence, right),
        "ks_error": ks_error(confidence, right),
    }
