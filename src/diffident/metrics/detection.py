"""How well a score separates positive from negative samples, ties counted by midrank.

Positive are the out-of-distribution samples, or for the `_errors` metrics the wrong predictions.
Undefined (NaN) without a positive or without a negative sample.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffident.metrics.ranking import CumulativeCounts, one_or_all, rank_samples


def auroc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`auroc` of every resample."""
    true, false = cumulative.positives, cumulative.negatives
    area = torch.linalg.vecdot(false.diff(dim=1), true[:, 1:] + true[:, :-1]) / 2
    return area / (true[:, -1] * false[:, -1])


def fpr95_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`fpr95` of every resample."""
    true, false = cumulative.positives, cumulative.negatives
    reached = 20 * true >= 19 * true[:, -1:]  # whole numbers: 0.95 itself has no exact float
    first = reached.to(torch.uint8).argmax(dim=1, keepdim=True)
    rate = false.gather(1, first).squeeze(1) / false[:, -1]
    return torch.where(true[:, -1] > 0, rate, torch.nan)


def aupr_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`aupr` of every resample."""
    true, false = cumulative.positives, cumulative.negatives
    precision = true[:, 1:] / cumulative.totals[:, 1:].clamp_min(1)
    average = torch.linalg.vecdot(cumulative.new_positives, precision) / true[:, -1]
    return torch.where(false[:, -1] > 0, average, torch.nan)


def auroc(
    scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Probability that a positive sample scores above a negative one; a tie counts one half.

    Args:
        scores: Higher means more likely positive.
        positive: Which samples are positive.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); NaN with one class only. Higher is better.
    """
    return one_or_all(auroc_from_counts(rank_samples(scores, positive).cumulate(counts)), counts)


def fpr95(
    scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Share of negatives at or above the highest threshold that catches at least 95 % of the positives.

    A threshold takes all samples tied with it; there is no interpolation between thresholds.

    Args:
        scores: Higher means more likely positive.
        positive: Which samples are positive.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); NaN with one class only. Lower is better.
    """
    return one_or_all(fpr95_from_counts(rank_samples(scores, positive).cumulate(counts)), counts)


def aupr(
    scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Average precision: the mean over positives of the precision at their threshold, ties in one step.

    Args:
        scores: Higher means more likely positive.
        positive: Which samples are positive.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); NaN with one class only. Higher is better; its chance level is
        the share of positives.
    """
    return one_or_all(aupr_from_counts(rank_samples(scores, positive).cumulate(counts)), counts)


def errors_from_accepted(cumulative: CumulativeCounts) -> CumulativeCounts:
    """Counts in descending order of 1 - confidence, from those in descending order of confidence: read backwards."""
    totals = (cumulative.totals[:, -1:] - cumulative.totals).flip(1)
    return CumulativeCounts(totals, (cumulative.positives[:, -1:] - cumulative.positives).flip(1))


def auroc_errors(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """`auroc` of finding wrong predictions (positive) by the score 1 - confidence.

    Ties are those of the confidence itself, before 1 - confidence can round two values into one.
    """
    cumulative = errors_from_accepted(rank_samples(confidence, errors).cumulate(counts))
    return one_or_all(auroc_from_counts(cumulative), counts)


def fpr95_errors(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """`fpr95` of finding wrong predictions (positive) by the score 1 - confidence.

    It is the share of right predictions that are flagged when at least 95 % of the wrong ones are.
    """
    cumulative = errors_from_accepted(rank_samples(confidence, errors).cumulate(counts))
    return one_or_all(fpr95_from_counts(cumulative), counts)


def aupr_errors(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """`aupr` of finding wrong predictions (positive) by 1 - confidence; its chance level is the error rate."""
    cumulative = errors_from_accepted(rank_samples(confidence, errors).cumulate(counts))
    return one_or_all(aupr_from_counts(cumulative), counts)
