"""What is gained by answering only where the model is sure. Lower is better for every area here.

Tied confidences are one group: the risk inside it is the expected one over random orders, so that no value depends on
the order of the samples. A resample draws a sample several times; its copies are tied.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffident.errors import InputError
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
    accepted = torch.arange(1, len(confidence) + 1, dtype=torch.float64, device=confidence.device)
    expected = _expected_errors(curve.totals, curve.positives, accepted[None])[0]
    return accepted / len(confidence), expected / accepted


def aurc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`aurc` of every resample.

    An error at place k of n adds 1/k + ... + 1/n = h_n - h_(k-1) with harmonic numbers h, and one of a group of ties
    from a to b the mean of that over its places; the sum of h_(k-1) over k = a + 1 ... b is b (h_b - 1) - a (h_a - 1).
    """
    totals = cumulative.totals.long()
    harmonic, sums = _harmonic_numbers(cumulative.totals)
    means = sums[totals].diff(dim=1) / cumulative.sizes.clamp_min(1)
    all_wrong = cumulative.positives[:, -1]
    added = all_wrong * harmonic[totals[:, -1]] - torch.linalg.vecdot(cumulative.new_positives, means)
    return added / cumulative.totals[:, -1]


def least_aurc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`aurc` of the best order of every resample: all errors last."""
    totals, wrong = cumulative.totals[:, -1], cumulative.positives[:, -1]
    harmonic, _ = _harmonic_numbers(cumulative.totals)
    right = totals - wrong
    return (wrong - right * (harmonic[totals.long()] - harmonic[right.long()])) / totals


def eaurc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`eaurc` of every resample."""
    return aurc_from_counts(cumulative) - least_aurc_from_counts(cumulative)


def coverage_at_risk_from_counts(cumulative: CumulativeCounts, risk: float) -> Float[Tensor, " r"]:
    """`coverage_at_risk` of every resample."""
    totals = cumulative.totals
    return torch.where(within_risk(cumulative, risk), totals, 0).amax(dim=1) / totals[:, -1]


def within_risk(cumulative: CumulativeCounts, risk: float) -> Bool[Tensor, "r g"]:
    """Which thresholds accept samples with at most this error rate."""
    # 1 in 20 is a risk of 0.05, whatever 0.05 * 20 rounds to
    return cumulative.positives <= cumulative.totals * (risk * (1 + 1e-12))


def risk_at_coverage_from_counts(cumulative: CumulativeCounts, coverage: float) -> Float[Tensor, " r"]:
    """`risk_at_coverage` of every resample."""
    totals, wrong = cumulative.totals.contiguous(), cumulative.positives
    accepted = accepted_at_coverage(totals[:, -1:], coverage)
    return (_expected_errors(totals, wrong, accepted) / accepted).squeeze(1)


def accepted_at_coverage(sizes: Float[Tensor, "..."], coverage: float) -> Float[Tensor, "..."]:
    """How many of so many samples are at least this share, and at least one."""
    return (coverage * sizes * (1 - 1e-12)).ceil().clamp_min(1)


def _expected_errors(
    totals: Float[Tensor, "r g"], wrong: Float[Tensor, "r g"], accepted: Float[Tensor, "r k"]
) -> Float[Tensor, "r k"]:
    """Expected errors among the surest; inside a group of ties, in proportion to how much of it is accepted."""
    group = torch.searchsorted(totals, accepted)  # totals[group - 1] < accepted <= totals[group]
    before, errors = totals.gather(1, group - 1), wrong.gather(1, group - 1)
    rate = (wrong.gather(1, group) - errors) / (totals.gather(1, group) - before)
    return errors + (accepted - before) * rate


def augrc_from_counts(cumulative: CumulativeCounts) -> Float[Tensor, " r"]:
    """`augrc` of every resample."""
    wrong = cumulative.positives
    area = torch.linalg.vecdot(cumulative.sizes, wrong[:, 1:] + wrong[:, :-1]) / 2
    return area / cumulative.totals[:, -1] ** 2


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


def coverage_at_risk(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    risk: float,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """The largest share of samples that a threshold on the confidence accepts with at most this error rate.

    A threshold accepts all samples tied with it. Where even the surest are wrong more often the coverage is 0, not
    undefined; where all samples are wrong seldom enough it is 1.

    Args:
        confidence: Higher is surer.
        errors: Which predictions are wrong.
        risk: The error rate allowed among the accepted, in [0, 1].
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); higher is better.
    """
    return one_or_all(
        coverage_at_risk_from_counts(rank_samples(confidence, errors).cumulate(counts), _fraction("risk", risk)), counts
    )


def risk_at_coverage(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    coverage: float,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """The error rate among the surest samples: the least number of them that is at least this share of all.

    It is the point of `risk_coverage` at ceil(coverage * n), so ties count by expectation.

    Args:
        confidence: Higher is surer.
        errors: Which predictions are wrong.
        coverage: The share to accept, in [0, 1]; at least one sample is.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better.
    """
    cumulative = rank_samples(confidence, errors).cumulate(counts)
    return one_or_all(risk_at_coverage_from_counts(cumulative, _fraction("coverage", coverage)), counts)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"`{name}` must be in [0, 1]; got {value}. Give a fraction, not per cent.")
    return value


def _harmonic_numbers(totals: Float[Tensor, "r g"]) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """h_k = 1 + ... + 1/k and k (h_k - 1), for k from 0 to the largest total."""
    return _harmonic_numbers_to(int(totals[:, -1].max()), totals.device)


@lru_cache(maxsize=1)  # all resamples of one set of samples need the same
def _harmonic_numbers_to(largest: int, device: torch.device) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    numbers = torch.arange(largest + 1, dtype=torch.float64, device=device)
    harmonic = torch.nn.functional.pad(numbers[1:].reciprocal().cumsum(0), (1, 0))
    return harmonic, numbers * (harmonic - 1)
