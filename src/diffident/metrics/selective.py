"""What is gained by answering only where the model is sure. Lower is better for every area here.

Tied confidences are one group: the risk inside it is the expected one over random orders, so that no value depends on
the order of the samples. A resample draws a sample several times; its copies are tied.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffident.metrics.ranking import CumulativeCounts, one_or_all, rank_samples


def risk_coverage(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The risk-coverage curve: the error rate among the k surest samples, for k = 1 to n.

    Returns:
        coverage: k / n, ascending to 1 (n,).
        selective_risk: Expected share of errors among the k surest (n,).
    """
    curve = rank_samples(confidence, errors).cumulate()
    totals, wrong = curve.totals[0], curve.positives[0]
    accepted = torch.arange(1, len(confidence) + 1, dtype=torch.float64, device=confidence.device)
    group = torch.searchsorted(totals, accepted)  # totals[group - 1] < accepted <= totals[group]
    rate = (wrong[group] - wrong[group - 1]) / (totals[group] - totals[group - 1])
    expected = wrong[group - 1] + (accepted - totals[group - 1]) * rate
    return accepted / len(confidence), expected / accepted


def aurc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`aurc` of every resample.

    In a group from a to b accepted, with E errors before it and rate e, the sum of (E + (k - a) e) / k over
    k = a + 1 ... b is e (b - a) + (E - a e) (h_b - h_a) with harmonic numbers h.
    """
    totals, wrong = cumulative.totals, cumulative.positives
    harmonic = _harmonic_numbers(totals)
    size, new = totals.diff(dim=1), wrong.diff(dim=1)
    rate = new / size.clamp_min(1)
    sums = new + (wrong[:, :-1] - totals[:, :-1] * rate) * harmonic[totals.long()].diff(dim=1)
    return sums.sum(dim=1) / totals[:, -1]


def eaurc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`eaurc` of every resample."""
    totals, wrong = cumulative.totals[:, -1], cumulative.positives[:, -1]
    harmonic = _harmonic_numbers(cumulative.totals)
    right = totals - wrong
    best = (wrong - right * (harmonic[totals.long()] - harmonic[right.long()])) / totals
    return aurc_from_counts(cumulative) - best


def augrc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`augrc` of every resample."""
    totals, wrong = cumulative.totals, cumulative.positives
    area = (totals.diff(dim=1) * (wrong[:, 1:] + wrong[:, :-1]) / 2).sum(dim=1)
    return area / totals[:, -1] ** 2


def aurc(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Area under the risk-coverage curve: the mean of `risk_coverage` over coverages 1/n ... 1.

    Args:
        confidence: Higher is surer.
        errors: Which predictions are wrong.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,).

    Reference:
        Geifman and El-Yaniv 2017, arXiv 1705.08500; Geifman et al. 2019, arXiv 1805.08206.
    """
    if counts is None:
        return risk_coverage(confidence, errors)[1].mean()
    return aurc_from_counts(rank_samples(confidence, errors).cumulate(counts))


def eaurc(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Excess `aurc`: minus the aurc of the best order, which has all errors last, at the same error rate.

    Arguments as for `aurc`; 0 is a perfect order.

    Reference:
        Geifman et al. 2019, arXiv 1805.08206, with the exact sum in place of their approximation of the best aurc.
    """
    return one_or_all(eaurc_from_counts(rank_samples(confidence, errors).cumulate(counts)), counts)


def augrc(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Area under the generalised risk-coverage curve: errors among the accepted as a share of all samples.

    Trapezoids from (0, 0) through one point per distinct confidence, so that exactly
    augrc = (1 - auroc_errors) * accuracy * error_rate + error_rate^2 / 2. Arguments as for `aurc`; in [0, 1/2].

    Reference:
        Traub et al. 2024, arXiv 2407.01032.
    """
    return one_or_all(augrc_from_counts(rank_samples(confidence, errors).cumulate(counts)), counts)


def _harmonic_numbers(totals: Float[Tensor, "r g"]) -> Float[Tensor, " m"]:
    largest = int(totals[:, -1].max())
    steps = torch.arange(1, largest + 1, dtype=torch.float64, device=totals.device)
    return torch.nn.functional.pad(steps.reciprocal().cumsum(0), (1, 0))
