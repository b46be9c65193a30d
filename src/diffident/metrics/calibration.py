"""Do probabilities mean what they say: reliability bins and the calibration errors made from them.

Bins are equally wide and right-closed: a value v is in the bin with lo < v <= hi. So an edge belongs to the bin below
it, 1 to the last bin, and 0, which is on no bin's right, to the first.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability diagram draws and `ece` sums. Leading dimension (r,) for resamples, none otherwise.

    Attributes:
        edges: Edges of the bins, 0 to 1 (b + 1,).
        counts: Samples in every bin (..., b).
        mean_confidence: Mean confidence in every bin, NaN where it is empty (..., b).
        accuracy: Share of right predictions in every bin, NaN where it is empty (..., b).
    """

    edges: Float[Tensor, " e"]
    counts: Float[Tensor, "... b"]
    mean_confidence: Float[Tensor, "... b"]
    accuracy: Float[Tensor, "... b"]


def bin_edges(num_bins: int, device: torch.device | None = None) -> Float[Tensor, " e"]:
    """Edges of equal bins on [0, 1], each the float nearest to i / num_bins."""
    return torch.arange(num_bins + 1, dtype=torch.float64, device=device) / num_bins


def bin_of(values: Float[Tensor, "..."], num_bins: int) -> Int[Tensor, "..."]:
    """Number of the right-closed bin of every value in [0, 1]."""
    return torch.bucketize(values.to(torch.float64), bin_edges(num_bins, values.device)[1:-1])


def reliability_bins(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = 15,
    counts: Float[Tensor, "r n"] | None = None,
) -> ReliabilityBins:
    """Confidence against accuracy in equally wide bins.

    Args:
        confidence: Probability given to the prediction, in [0, 1].
        errors: Which predictions are wrong.
        num_bins: Number of bins.
        counts: How often each sample occurs in each resample; None is once each.
    """
    member = torch.nn.functional.one_hot(bin_of(confidence, num_bins), num_bins).to(torch.float64)
    drawn = torch.ones(1, len(confidence), dtype=torch.float64, device=confidence.device) if counts is None else counts
    drawn = drawn.to(torch.float64)
    sizes = drawn @ member
    mean_confidence = drawn @ (member * confidence.to(torch.float64)[:, None]) / sizes
    accuracy = drawn @ (member * (~errors)[:, None]) / sizes
    edges = bin_edges(num_bins, confidence.device)
    if counts is None:
        return ReliabilityBins(edges, sizes[0], mean_confidence[0], accuracy[0])
    return ReliabilityBins(edges, sizes, mean_confidence, accuracy)


def ece(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = 15,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """Expected calibration error: mean over samples of |accuracy - mean confidence| of their bin.

    Arguments as for `reliability_bins`, from which it is summed.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better.

    Reference:
        Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    bins = reliability_bins(confidence, errors, num_bins, counts)
    gaps = torch.nan_to_num((bins.accuracy - bins.mean_confidence).abs())  # empty bins weigh nothing
    return (bins.counts * gaps).sum(dim=-1) / bins.counts.sum(dim=-1)


@dataclass(frozen=True)
class ClasswiseGaps:
    """p_k - 1[label = k] of every sample and class, with the entries beyond the first bin listed by bin.

    Nearly all p_k lie in the first bin: its sums are the class's total minus the other bins', so a resample costs one
    matrix product and a short list, whatever the number of bins.

    Attributes:
        gaps: The differences (n, c).
        rows: Sample of every entry beyond the first bin (m,).
        cells: Class times num_bins plus bin of those entries (m,).
        num_bins: Number of bins.
    """

    gaps: Float[Tensor, "n c"]
    rows: Int[Tensor, " m"]
    cells: Int[Tensor, " m"]
    num_bins: int


def classwise_gaps(probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"], num_bins: int = 15) -> ClasswiseGaps:
    """Bin once what `classwise_ece_from_gaps` sums for every resample."""
    gaps = probs.to(torch.float64, copy=True)
    rows, classes = (probs.to(torch.float64) > bin_edges(num_bins)[1].item()).nonzero(as_tuple=True)
    bins = bin_of(probs[rows, classes], num_bins)
    gaps.scatter_add_(1, labels.long()[:, None], gaps.new_full((len(labels), 1), -1.0))
    return ClasswiseGaps(gaps, rows, classes * num_bins + bins, num_bins)


def classwise_ece_from_gaps(state: ClasswiseGaps, counts: Float[Tensor, "r n"] | None = None) -> Float[Tensor, "..."]:
    """`classwise_ece` of the samples or of every resample."""
    num_samples, num_classes = state.gaps.shape
    drawn = state.gaps.new_ones(1, num_samples) if counts is None else counts.to(torch.float64)
    totals = (drawn @ state.gaps).T  # [c, r]
    entries = state.gaps[state.rows, state.cells // state.num_bins]
    sums = totals.new_zeros(num_classes * state.num_bins, len(drawn))
    sums.index_add_(0, state.cells, drawn.T[state.rows] * entries[:, None])
    sums = sums.view(num_classes, state.num_bins, len(drawn))
    first = totals - sums[:, 1:].sum(dim=1)
    absolute = first.abs() + sums[:, 1:].abs().sum(dim=1)
    values = absolute.mean(dim=0) / drawn.sum(dim=1)
    return values[0] if counts is None else values


def classwise_ece(
    probs: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    num_bins: int = 15,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """Mean over classes k of the binned calibration error of p_k against 1[label = k].

    Args:
        probs: Probabilities; rows sum to 1.
        labels: Classes in [0, c).
        num_bins: Number of bins, as for `ece`.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better. A class without samples counts like any other.

    Reference:
        Kull et al. 2019, arXiv 1910.12656, section 2.
    """
    return classwise_ece_from_gaps(classwise_gaps(probs, labels, num_bins), counts)
