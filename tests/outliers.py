"""Labelled features with logits, outliers to them, and detectors fitted to the former."""

import torch

from diffident.detectors import fit_detector, ood_score


def blobs(n=240, d=8, k=3, seed=0, dtype=torch.float64):
    """Features around k means, logits by distance to them, labels; the outliers lie elsewhere and are unsure."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.zeros(k, d, dtype=torch.float64)
    means[torch.arange(k), torch.arange(k)] = 8.0
    labels = torch.arange(n) % k
    inside = means[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    outside = torch.randn(n, d, generator=generator, dtype=torch.float64)
    outside[:, -2:] += 5.0
    logits = [-torch.cdist(values, means).square() / 2 + 40 for values in (inside, outside)]
    return (inside.to(dtype), logits[0], labels), (outside.to(dtype), logits[1])


def fitted(name, known, **options):
    features, logits, labels = known
    return fit_detector(name, features=features, logits=logits, labels=labels, **options)


def score(detector, features, logits):
    return ood_score(detector, features=features, logits=logits)
