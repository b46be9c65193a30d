"""Losses of one sample after another, in plain float64, independent of the package and of torch."""

import math

import numpy as np


def softmax(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def log_softmax(z):
    total = max(z) + math.log(sum(math.exp(v - max(z)) for v in z))
    return [v - total for v in z]


def entropy(z):
    return -sum(p * math.log(p) for p in softmax(z) if p > 0)


def cross_entropy(z, y, s=None):
    return -log_softmax(z)[y]


def label_smoothing(z, y, s=None, smoothing=0.05):
    target = [(1 - smoothing) * (k == y) + smoothing / len(z) for k in range(len(z))]
    return -sum(t * q for t, q in zip(target, log_softmax(z), strict=True))


def entropy_bonus(z, y, s=None, alpha=0.1):
    return cross_entropy(z, y) - alpha * entropy(z)


def difficulty_aware(z, y, s, alpha=None, doubt=None, others=None):
    """Where no alpha is given, the bonus and the cross-entropy balance at the doubt: their slopes by differences."""
    others = 1.0 if others is None else others
    if doubt is None:
        doubt = 0.4 if others < 0.5 else 0.1
    p = softmax(z)
    right = xlogx(p[y]) + xlogx(sum(q for k, q in enumerate(p) if k != y))
    bonus = -(1 - others) * right + others * entropy(z)
    if alpha is None:
        alpha, s = strength_of_doubt(doubt * s, len(z), others), 1.0
    return cross_entropy(z, y) - alpha * s * bonus


def strength_of_doubt(doubt, c, others):
    if c == 1 or doubt == 0:
        return 0.0
    rivals = (c - 1) ** others
    left = doubt * rivals / (1 + rivals)
    at = [left * (1 - 1e-5), left * (1 + 1e-5)]
    low, high = (-xlogx(e) - xlogx(1 - e) + others * e * math.log(c - 1) for e in at)
    return (math.log(1 - at[0]) - math.log(1 - at[1])) / (high - low)


def xlogx(p):
    return p * math.log(p) if p > 0 else 0.0


def difficulty_smoothing(z, y, s, smoothing=0.1):
    return label_smoothing(z, y, smoothing=s * smoothing)


def difficulty_temperature(z, y, s, alpha=0.3):
    t = 1 - alpha * s
    return t * cross_entropy([v / t for v in z], y)


def focal(z, y, s=None, gamma=2.0):
    p = softmax(z)[y]
    return -((1 - p) ** gamma) * math.log(p)


def flsd(z, y, s=None, gamma=3.0, gamma_low=5.0):
    return focal(z, y, gamma=gamma_low if softmax(z)[y] < 0.2 else gamma)


def dual_focal(z, y, s=None, gamma=5.0):
    p = softmax(z)
    rival = max([q for q in p if q < p[y]], default=0.0)
    return -((1 - p[y] + rival) ** gamma) * math.log(p[y])


def inverse_focal(z, y, s=None, gamma=2.0):
    p = softmax(z)[y]
    return -((1 + p) ** gamma) * math.log(p)


def l1(z, y, s=None, alpha=0.1):
    return cross_entropy(z, y) + alpha * sum(abs(p - 1 / len(z)) for p in softmax(z))


def poly(z, y, s=None, epsilon=1.0):
    return cross_entropy(z, y) + epsilon * (1 - softmax(z)[y])


def mbls(z, y, s=None, margin=10.0, alpha=0.1):
    return cross_entropy(z, y) + alpha * sum(max(0.0, max(z) - v - margin) for v in z) / len(z)


def logit_norm(z, y, s=None, temperature=0.04):
    norm = math.sqrt(sum(v * v for v in z))
    return cross_entropy([v / norm / temperature for v in z], y)


def of_samples(one):
    def of_batch(logits, labels, weights, **options):
        return [one(z, y, s, **options) for z, y, s in zip(logits, labels, weights, strict=True)]

    return of_batch


def confidence_and_correct(logits, labels):
    probs = [softmax(z) for z in logits]
    return [max(p) for p in probs], [float(p.index(max(p)) == y) for p, y in zip(probs, labels, strict=True)]


def mmce(logits, labels, weights, alpha=1.0):
    q, a = confidence_and_correct(logits, labels)
    n, total = len(q), 0.0
    for i in range(n):
        for j in range(n):
            total += (a[i] - q[i]) * (a[j] - q[j]) * math.exp(-abs(q[i] - q[j]) / 0.4)
    return [cross_entropy(z, y) + alpha * math.sqrt(total) / n for z, y in zip(logits, labels, strict=True)]


def soft_ece(logits, labels, weights, alpha=1.0, num_bins=15, bin_temperature=0.01):
    q, a = confidence_and_correct(logits, labels)
    sizes, confidence, accuracy = np.zeros(num_bins), np.zeros(num_bins), np.zeros(num_bins)
    for i in range(len(q)):
        raw = [math.exp(-((q[i] - (b + 0.5) / num_bins) ** 2) / bin_temperature) for b in range(num_bins)]
        for b in range(num_bins):
            share = raw[b] / sum(raw)
            sizes[b] += share
            confidence[b] += share * q[i]
            accuracy[b] += share * a[i]
    total = 0.0
    for b in range(num_bins):
        held = max(sizes[b], 1e-5)
        total += sizes[b] / len(q) * (confidence[b] / held - accuracy[b] / held) ** 2
    return [cross_entropy(z, y) + alpha * math.sqrt(total) for z, y in zip(logits, labels, strict=True)]


def crl(logits, labels, weights, alpha=1.0):
    q, _ = confidence_and_correct(logits, labels)
    losses = []
    for i in range(len(q)):
        j = (i + 1) % len(q)
        sign = (weights[i] > weights[j]) - (weights[i] < weights[j])
        # The margin ranking loss of the published code: the second confidence is raised by the margin over the target.
        second = q[j] + abs(weights[i] - weights[j]) / (sign or 1)
        losses.append(cross_entropy(logits[i], labels[i]) + alpha * max(0.0, -sign * (q[i] - second)))
    return losses


LOSSES = {
    "cross-entropy": of_samples(cross_entropy),
    "label-smoothing": of_samples(label_smoothing),
    "entropy": of_samples(entropy_bonus),
    "difficulty-aware": of_samples(difficulty_aware),
    "difficulty-smoothing": of_samples(difficulty_smoothing),
    "difficulty-temperature": of_samples(difficulty_temperature),
    "focal": of_samples(focal),
    "flsd": of_samples(flsd),
    "dual-focal": of_samples(dual_focal),
    "inverse-focal": of_samples(inverse_focal),
    "l1": of_samples(l1),
    "poly": of_samples(poly),
    "mbls": of_samples(mbls),
    "logit-norm": of_samples(logit_norm),
    "crl": crl,
    "mmce": mmce,
    "soft-ece": soft_ece,
    "mixup": of_samples(cross_entropy),
    "regmixup": of_samples(cross_entropy),
}
