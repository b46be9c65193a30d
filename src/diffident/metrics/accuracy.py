"""Means of one term a sample: accuracy, negative log-likelihood, Brier score, overconfidence."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def mean_of(terms: Float[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None) -> Float[Tensor, "..."]:
    """The mean of one term a sample, or one mean per resample (r,)."""
    if counts is None:
        return terms.mean()
    return counts.to(terms.dtype) @ terms / counts.sum(dim=1)


def accuracy(errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None) -> Float[Tensor, "..."]:
    """Share of right predictions, in [0, 1]; higher is better.

    Args:
        errors: Which predictions are wrong.
        counts: How often each sample occurs in each resample; None is once each.
    """
    return mean_of((~errors).to(torch.float64), counts)


def nll_of_logits(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`nll_terms` of logits, in float64."""
    return nll_terms(torch.log_softmax(logits.double(), dim=1), labels)


def nll_terms(log_probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Minus the log-probability of the label, in nats."""
    return -log_probs.gather(1, labels.long()[:, None]).squeeze(1)


def brier_terms(probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Sum over classes of (p_k - 1[label = k])^2, in [0, 2]."""
    of_label = probs.gather(1, labels.long()[:, None]).squeeze(1)
    squares = torch.linalg.vector_norm(probs, dim=1).square()  # nothing of size [n, c] is made
    return squares - of_label.square() + (1 - of_label).square()


def nll(
    log_probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Mean negative log-likelihood of the labels in nats; lower is better.

    Args:
        log_probs: log softmax of the logits.
        labels: Classes in [0, c).
        counts: How often each sample occurs in each resample; None is once each.
    """
    return mean_of(nll_terms(log_probs, labels), counts)


def brier(
    probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Mean Brier score, summed over classes, in [0, 2]; lower is better.

    Args:
        probs: Probabilities; rows sum to 1.
        labels: Classes in [0, c).
        counts: How often each sample occurs in each resample; None is once each.

    Reference:
        Brier 1950; some libraries halve or divide it by c.
    """
    return mean_of(brier_terms(probs, labels), counts)


def overconfidence(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Mean confidence of the wrong predictions, in [1/c, 1]; lower is better, NaN where none is wrong.

    Args:
        confidence: Probability given to the prediction.
        errors: Which predictions are wrong.
        counts: How often each sample occurs in each resample; None is once each.
    """
    wrong = errors.to(torch.float64)
    return mean_of(wrong * confidence, counts) / mean_of(wrong, counts)
