"""Do probabilities mean what they say: reliability bins and the calibration errors made from them.

Bins are right-closed: a value v is in the bin with lo < v <= hi, all three in float64, to 12 decimals. So an edge
belongs to the bin below it, 1 to the last bin, and 0, which is on no bin's right, to the first. All sums come from one
table, cumulated in descending order of confidence. For the positive-class forms of a binary task give p(class 1) as
confidence and `labels != 1` as errors.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.bootstrap import MAX_ELEMENTS
from diffident.confidence import TIE_DECIMALS
from diffident.errors import InputError
from diffident.metrics.inputs import row_blocks
from diffident.metrics.ranking import CumulativeCounts, Ranking, one_or_all, rank_samples

NUM_BINS = 15
"""Bins of every binned error here, where nothing else is said."""


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


@dataclass(frozen=True)
class CalibrationSums:
    """Cumulative sums in descending order of confidence, one entry per group of ties and 0 first (r, g + 1).

    Attributes:
        totals: Samples.
        wrong: Wrong predictions.
        gaps: Confidences minus right predictions.
    """

    totals: Float[Tensor, "r g"]
    wrong: Float[Tensor, "r g"]
    gaps: Float[Tensor, "r g"]


@dataclass(frozen=True)
class BinSums:
    """Sums over bins (r, b), the bin of the lowest confidences first; attributes as of `CalibrationSums`."""

    sizes: Float[Tensor, "r b"]
    wrong: Float[Tensor, "r b"]
    gaps: Float[Tensor, "r b"]

    @property
    def hits(self) -> Float[Tensor, "r b"]:
        """Right predictions."""
        return self.sizes - self.wrong

    @property
    def scores(self) -> Float[Tensor, "r b"]:
        """Confidences."""
        return self.gaps + self.hits


def calibration_sums(
    ranking: Ranking, counts: Float[Tensor, "r n"] | None, cumulative: CumulativeCounts | None = None
) -> CalibrationSums:
    """Cumulate gaps beside what `ranking.cumulate(counts)` gives, which may be passed in."""
    cumulative = ranking.cumulate(counts) if cumulative is None else cumulative
    return CalibrationSums(cumulative.totals, cumulative.positives, ranking.cumulate_gaps(counts))


def bin_edges(num_bins: int, device: torch.device | None = None) -> Float[Tensor, " e"]:
    """Edges of equal bins on [0, 1], each the float nearest to i / num_bins."""
    if num_bins < 1 or num_bins != int(num_bins):
        raise InputError(f"`num_bins` must be a whole number, at least 1; got {num_bins}. The default is {NUM_BINS}.")
    return torch.arange(num_bins + 1, dtype=torch.float64, device=device) / num_bins


def inner_edges(num_bins: int, device: torch.device | None = None) -> Float[Tensor, " i"]:
    """Edges between bins as `in_decimals` has values, so that 10/15 is in the bin that ends there."""
    return in_decimals(bin_edges(num_bins, device)[1:-1])


def in_decimals(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Values as they are compared with edges, rounded to 12 decimals."""
    return values.to(torch.float64).round(decimals=TIE_DECIMALS)


def bin_of(values: Float[Tensor, "..."], num_bins: int) -> Int[Tensor, "..."]:
    """Number of the right-closed bin of every value in [0, 1]."""
    return torch.bucketize(in_decimals(values), inner_edges(num_bins, values.device))


def equal_width_cuts(ranking: Ranking, num_bins: int) -> Int[Tensor, " e"]:
    """Columns of `CalibrationSums` between which the equally wide bins lie, from the edge 1 down to the edge 0."""
    ascending = in_decimals(ranking.scores[ranking.ends].flip(0))
    inner = inner_edges(num_bins, ascending.device).flip(0)
    above = len(ascending) - torch.searchsorted(ascending, inner, right=True)
    return _between(above, len(ascending))


def equal_mass_cuts(ranking: Ranking, num_bins: int) -> Int[Tensor, " e"]:
    """As `equal_width_cuts` for bins with edges at the quantiles b / num_bins of the confidence.

    A quantile is the least confidence that at least that share of the samples do not exceed. Tied samples are in one
    bin, so bins differ in size where there are ties, and may be empty.
    """
    num_samples = len(ranking.scores)
    before = torch.nn.functional.pad(ranking.ends[:-1] + 1, (1, 0))  # samples above each group
    shares = torch.arange(1, num_bins, device=before.device)
    above = torch.searchsorted(before * num_bins, num_samples * shares, right=True) - 1
    return _between(above, len(ranking.ends))


def _between(inner: Int[Tensor, " i"], last: int) -> Int[Tensor, " e"]:
    return torch.cat([inner.new_zeros(1), inner, inner.new_full((1,), last)])


def bin_sums(sums: CalibrationSums, cuts: Int[Tensor, " e"]) -> BinSums:
    """The sums of every bin."""
    return BinSums(*(part.index_select(1, cuts).diff(dim=1).flip(1) for part in (sums.totals, sums.wrong, sums.gaps)))


def ece_from_bins(bins: BinSums) -> Float[Tensor, " r"]:
    """Sum over bins of |sum of confidences - right predictions|, divided by the number of samples."""
    return bins.gaps.abs().sum(dim=1) / bins.sizes.sum(dim=1)


def ece_debiased_from_bins(bins: BinSums) -> Float[Tensor, " r"]:
    """`ece_debiased` of every resample."""
    sizes = bins.sizes.clamp_min(1)
    gaps, accuracy = bins.gaps / sizes, bins.hits / sizes
    deviation = (accuracy * (1 - accuracy) / sizes).clamp_min(0).sqrt()
    spread = deviation.clamp_min(torch.finfo(torch.float64).tiny) * math.sqrt(2)
    # E|N(g, s^2)| = s sqrt(2 / pi) exp(-g^2 / 2 s^2) + g erf(g / s sqrt 2)
    scaled = gaps / spread
    expected = deviation * math.sqrt(2 / math.pi) * torch.exp(-scaled.square()) + gaps * torch.erf(scaled)
    value = (bins.sizes * (2 * gaps.abs() - expected)).sum(dim=1) / bins.sizes.sum(dim=1)
    return value.clamp_min(0)


def mce_from_bins(bins: BinSums) -> Float[Tensor, " r"]:
    """`mce` of every resample."""
    return (bins.gaps.abs() / bins.sizes.clamp_min(1)).amax(dim=1)


def ks_from_sums(sums: CalibrationSums) -> Float[Tensor, " r"]:
    """`ks_error` of every resample."""
    return sums.gaps.abs().amax(dim=1) / sums.totals[:, -1]


def reliability_bins(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> ReliabilityBins:
    """Confidence against accuracy in equally wide bins.

    Args:
        confidence: Probability given to the prediction, in [0, 1].
        errors: Which predictions are wrong.
        num_bins: Number of bins.
        counts: How often each sample occurs in each resample; None is once each.
    """
    bins = _equal_width(confidence, errors, num_bins, counts)
    edges = bin_edges(num_bins, confidence.device)
    parts = (bins.sizes, bins.scores / bins.sizes, bins.hits / bins.sizes)
    return ReliabilityBins(edges, *(part[0] if counts is None else part for part in parts))


def ece(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """Expected calibration error: mean over samples of |accuracy - mean confidence| of their bin.

    Arguments as for `reliability_bins`, from whose sums it is made.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better.

    Reference:
        Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    return one_or_all(ece_from_bins(_equal_width(confidence, errors, num_bins, counts)), counts)


def ece_equal_mass(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """`ece` with bins of about as many samples each, by `equal_mass_cuts` of the samples (not of a resample).

    Reference:
        Nguyen and O'Connor 2015, arXiv 1508.05154; Nixon et al. 2019, arXiv 1904.01685.
    """
    ranking = rank_samples(confidence, errors)
    bins = bin_sums(calibration_sums(ranking, counts), equal_mass_cuts(ranking, num_bins))
    return one_or_all(ece_from_bins(bins), counts)


def ece_debiased(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """`ece` minus its bias: chance alone makes every bin's gap larger than it is. Arguments as for `ece`; cut at 0.

    The bias is E|N(g, s^2)| - |g| in every bin, with its gap g and the standard error s of its accuracy.

    Reference:
        Kumar et al. 2019, arXiv 1909.10155, the published code's Gaussian debiasing, here in closed form.
    """
    return one_or_all(ece_debiased_from_bins(_equal_width(confidence, errors, num_bins, counts)), counts)


def ece_of_chance(
    confidence: Float[Tensor, " n"], num_bins: int = NUM_BINS, *, num_draws: int = 100, seed: int = 0
) -> Float[Tensor, ""]:
    """The `ece` that calibrated predictions with these confidences have by chance, on so many samples.

    An `ece` near it is no evidence of miscalibration, and half of it cannot be had.

    Args:
        confidence: Confidences in [0, 1].
        num_bins: Number of equally wide bins.
        num_draws: Sets of outcomes that are drawn, each prediction right with the probability that it states.
        seed: Seed of the draws.

    Returns:
        The mean over the draws, in [0, 1].

    Reference:
        Bröcker and Smith 2007, "Increasing the reliability of reliability diagrams" (consistency resampling).
    """
    ranking = rank_samples(confidence, torch.zeros_like(confidence, dtype=torch.bool))
    cuts = equal_width_cuts(ranking, num_bins)
    generator, total = torch.Generator().manual_seed(seed), torch.zeros((), dtype=torch.float64)
    for rows in row_blocks(num_draws, len(confidence), MAX_ELEMENTS):
        drawn = ranking.cumulate_consistent(rows.stop - rows.start, generator)
        total = total + drawn.index_select(1, cuts).diff(dim=1).abs().sum()
    return total / (num_draws * len(confidence))


def mce(
    confidence: Float[Tensor, " n"],
    errors: Bool[Tensor, " n"],
    num_bins: int = NUM_BINS,
    counts: Float[Tensor, "r n"] | None = None,
) -> Float[Tensor, "..."]:
    """Maximum calibration error: the largest |accuracy - mean confidence| of a bin, however few samples it has.

    Arguments as for `ece`.

    Reference:
        Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning".
    """
    return one_or_all(mce_from_bins(_equal_width(confidence, errors, num_bins, counts)), counts)


def ks_error(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Kolmogorov-Smirnov calibration error: the largest |cumulated confidence - cumulated right predictions| / n.

    Cumulated over thresholds of the confidence, so without bins; tied samples enter together.

    Reference:
        Gupta et al. 2021, arXiv 2006.12800, eq. 5.
    """
    ranking = rank_samples(confidence, errors)
    return one_or_all(ks_from_sums(calibration_sums(ranking, counts)), counts)


def _equal_width(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], num_bins: int, counts: Float[Tensor, "r n"] | None
) -> BinSums:
    ranking = rank_samples(confidence, errors)
    return bin_sums(calibration_sums(ranking, counts), equal_width_cuts(ranking, num_bins))
