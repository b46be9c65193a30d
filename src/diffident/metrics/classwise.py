"""Calibration of every class's probability against 1[label = class], binned: classwise ECE and the Brier parts.

Nearly all p_k lie in the first bin: its sums are the class's totals minus the other bins', so the work is one sum per
class and a short list of the entries beyond the first bin, whatever the number of bins.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.confidence import TIE_DECIMALS
from diffident.metrics.calibration import NUM_BINS, bin_edges, bin_of
from diffident.metrics.inputs import at

CLASSWISE_METRICS = ("brier_reliability", "brier_resolution", "brier_uncertainty", "classwise_ece")
"""Metrics about all classes at once; sums of one term a sample do not make them."""


@dataclass(frozen=True)
class ClasswiseSums:
    """Sums over the samples of every class and bin, with a last dimension (r,) for resamples and none otherwise.

    The sums of two sets of samples are merged by `+`.

    Attributes:
        gaps: p_k - 1[label = k] (c, b, ...).
        sizes: Samples (c, b, ...).
        labels: Samples with the label (c, ...).
        squares: Squares of the gaps (c, b); not resampled.
        probs: p_k (c, b); not resampled.
    """

    gaps: Float[Tensor, "c b ..."]
    sizes: Float[Tensor, "c b ..."]
    labels: Float[Tensor, "c ..."]
    squares: Float[Tensor, "c b"]
    probs: Float[Tensor, "c b"]

    def __add__(self, other: "ClasswiseSums") -> "ClasswiseSums":
        pairs = zip(self.parts, other.parts, strict=True)
        return ClasswiseSums(*(mine + theirs for mine, theirs in pairs))

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors, in the order of the attributes."""
        return self.gaps, self.sizes, self.labels, self.squares, self.probs


def classwise_sums(
    probs: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> ClasswiseSums:
    """The sums of one block of samples, or of every resample of it.

    Args:
        probs: Probabilities; rows sum to 1. They are put into bins by their first 12 decimals, as confidences are.
        labels: Classes in [0, c).
        num_bins: Number of bins, as for `ece`.
        counts: How often each sample occurs in each resample; None is once each.
    """
    num_samples, num_classes = probs.shape
    probs, labels = probs.to(torch.float64), labels.long()
    drawn = probs.new_ones(num_samples, 1) if counts is None else counts.to(torch.float64).T.contiguous()
    near = bin_edges(num_bins)[1].item() - 10.0**-TIE_DECIMALS  # entries that rounding may carry across the edge, too
    rows, classes = (probs > near).nonzero(as_tuple=True)
    cells = classes * num_bins + bin_of(probs[rows, classes], num_bins)
    entries = probs[rows, classes] - (labels[rows] == classes).to(torch.float64)
    weights = drawn[rows]
    binned_gaps = _grouped(weights * entries[:, None], cells, (num_classes, num_bins))
    binned_sizes = _grouped(weights, cells, (num_classes, num_bins))
    terms = torch.stack([entries.square(), probs[rows, classes]], dim=1)  # of no entry, bincount gives whole numbers
    squares, summed = _grouped(terms, cells, (num_classes, num_bins)).unbind(dim=-1)
    label_counts = _grouped(drawn, labels, (num_classes,))
    binned_gaps[:, 0] = probs.T @ drawn - label_counts - binned_gaps[:, 1:].sum(dim=1)
    binned_sizes[:, 0] = drawn.sum(dim=0) - binned_sizes[:, 1:].sum(dim=1)
    # (p - 1[label])^2 = p^2, and 1 - 2 p more where it is the label
    of_label = torch.bincount(labels, weights=1 - 2 * at(probs, labels), minlength=num_classes)
    squares[:, 0] = probs.square().sum(dim=0) + of_label - squares[:, 1:].sum(dim=1)
    summed[:, 0] = probs.sum(dim=0) - summed[:, 1:].sum(dim=1)
    if counts is None:
        return ClasswiseSums(binned_gaps[..., 0], binned_sizes[..., 0], label_counts[..., 0], squares, summed)
    return ClasswiseSums(binned_gaps, binned_sizes, label_counts, squares, summed)


def _grouped(values: Float[Tensor, "m r"], groups: Int[Tensor, " m"], shape: tuple[int, ...]) -> Float[Tensor, "..."]:
    """Sums of the rows by group (*shape, r)."""
    sums = values.new_zeros(math.prod(shape), values.shape[1])
    return sums.index_add_(0, groups, values).view(*shape, values.shape[1])


def classwise_ece_from_sums(sums: ClasswiseSums) -> Float[Tensor, "..."]:
    """`classwise_ece` of all samples summed so far."""
    return sums.gaps.abs().sum(dim=1).mean(dim=0) / sums.labels.sum(dim=0)


def brier_reliability_from_sums(sums: ClasswiseSums) -> Float[Tensor, "..."]:
    """The reliability of `brier_parts` of all samples summed so far."""
    return (sums.gaps.square() / sums.sizes.clamp_min(1)).sum(dim=(0, 1)) / sums.labels.sum(dim=0)


def brier_uncertainty_from_sums(sums: ClasswiseSums) -> Float[Tensor, "..."]:
    """The uncertainty of `brier_parts` of all samples summed so far."""
    share = sums.labels / sums.labels.sum(dim=0)
    return (share * (1 - share)).sum(dim=0)


def classwise_values(sums: ClasswiseSums, brier: float) -> dict[str, float]:
    """The metrics of `CLASSWISE_METRICS`.

    Args:
        sums: Sums of the samples.
        brier: Their Brier score.
    """
    reliability, uncertainty = float(brier_reliability_from_sums(sums)), float(brier_uncertainty_from_sums(sums))
    parts = (reliability, reliability + uncertainty - brier, uncertainty, float(classwise_ece_from_sums(sums)))
    return dict(zip(CLASSWISE_METRICS, parts, strict=True))


def classwise_ece(
    probs: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """Mean over classes k of the binned calibration error of p_k against 1[label = k].

    Arguments as for `classwise_sums`.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better. A class without samples counts like any other.

    Reference:
        Kull et al. 2019, arXiv 1910.12656, section 2.
    """
    return classwise_ece_from_sums(classwise_sums(probs, labels, num_bins, counts))


def brier_parts(
    probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"], num_bins: int = NUM_BINS
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Reliability, resolution and uncertainty, with brier = reliability - resolution + uncertainty exactly.

    Reliability is the mean over samples, summed over classes, of (mean p_k - share of label k)^2 of their bin (lower is
    better); uncertainty is the Brier score of always predicting the shares of the labels; resolution is how far the
    Brier score falls short of their sum, so that it holds what p_k tells within a bin too (higher is better).

    Arguments as for `classwise_sums`.

    Reference:
        Murphy 1973; Stephenson et al. 2008, "Two extra components in the Brier score decomposition" (the resolution
        here is their generalised resolution).
    """
    sums = classwise_sums(probs, labels, num_bins)
    reliability, uncertainty = brier_reliability_from_sums(sums), brier_uncertainty_from_sums(sums)
    return reliability, reliability + uncertainty - sums.squares.sum() / sums.labels.sum(), uncertainty
