"""How far an estimate of a calibration error can lie from the true one, from resamples.

A calibration error is a norm of gaps g (mean confidence minus accuracy, of bins, cells or thresholds). Its estimate is
the norm of g + e, which chance e makes larger, and a resample adds e a second time: percentiles of resampled values can
all lie above the estimate, and mirrored ones all below. So the error is bounded instead, with e* = resampled minus
estimated gaps in the place of e:

- it cannot exceed the estimate by more than the norm changes to first order: |g + e| >= |g| + sign(g) e (`rise`);
- it cannot fall short of it by more than |e| where a gap may be 0, and by sign(g) e where it is clearly not (`fall`).

A gap is clearly not 0 beyond sqrt(log n) standard errors (Andrews and Soares 2010, moment selection). The largest gap
of a bin, which may be that of a handful of samples, is bounded from below by exact binomial bounds instead. The
interval from value - quantile(fall) to value - quantile(rise) holds the value always, and the truth at its level.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.bootstrap import Deviations
from diffident.metrics.calibration import BinSums
from diffident.metrics.classwise import ClasswiseSums, brier_uncertainty_from_sums
from diffident.metrics.smoothing import NUM_CELLS, cell_gaps, smooth
from diffident.metrics.suite import CALIBRATION, CalibrationSuite, DrawnCalibration

_CELLS_A_WIDTH = 8
"""Cells of one kernel width that the smooth error's deviations are computed on."""


def norm_deviations(
    resampled: Float[Tensor, "r b"], estimated: Float[Tensor, " b"], standard_error: Float[Tensor, " b"], size: int
) -> Deviations:
    """Deviations of the sum of |gaps|, every gap divided by the number of samples."""
    noise = resampled - estimated
    linear = noise * estimated.sign()
    clear = estimated.abs() > math.sqrt(math.log(max(size, 2))) * standard_error
    return Deviations(torch.where(clear, linear, noise.abs()).sum(dim=1), linear.sum(dim=1))


def largest_deviations(noise: Float[Tensor, "r b"], estimated: Float[Tensor, " b"]) -> Deviations:
    """Deviations of the largest |gap|; noise is resampled minus estimated gaps."""
    low, high = noise.aminmax(dim=1)
    place = int(estimated.abs().argmax())
    return Deviations(torch.maximum(-low, high), noise[:, place] * estimated[place].sign())


def calibration_deviations(
    suite: CalibrationSuite, values: dict[str, float]
) -> Callable[[DrawnCalibration], dict[str, Deviations]]:
    """Deviations of all metrics of `CALIBRATION` for counts.

    Args:
        suite: The samples.
        values: The metrics on the samples themselves.
    """
    base = DrawnCalibration(suite, None)
    size = len(suite.ranking.scores)
    errors, mass_errors = _standard_errors(suite, suite.cuts), _standard_errors(suite, suite.mass_cuts)
    smoothing = _Smoothing(suite, values["ece_smooth"])
    cumulated = _share(base.sums.gaps, base)[0]
    mean_gaps = _mean_gaps(base.bins, base.bins)[0]
    least_mce = _least_mce(base.bins)

    def deviations(drawn: DrawnCalibration) -> dict[str, Deviations]:
        binned = norm_deviations(_share(drawn.bins.gaps, drawn), _share(base.bins.gaps, base)[0], errors, size)
        # One pass over what has a column for every sample, in the place of `_share` and a difference.
        noise = torch.addcdiv(-cumulated, drawn.sums.gaps, drawn.cumulative.totals[:, -1:])
        bias = values["ece"] - values["ece_debiased"]
        largest = largest_deviations(_mean_gaps(drawn.bins, base.bins) - mean_gaps, mean_gaps)
        found = {
            "ece": binned,
            "ece_equal_mass": norm_deviations(
                _share(drawn.mass_bins.gaps, drawn), _share(base.mass_bins.gaps, base)[0], mass_errors, size
            ),
            # The same number as `ece` is meant, so it has the same interval.
            "ece_debiased": replace(binned, fall=binned.fall - bias, rise=binned.rise - bias),
            "ece_smooth": smoothing.deviations(drawn),
            "mce": replace(largest, fall=torch.full_like(largest.fall, values["mce"] - least_mce)),
            "ks_error": largest_deviations(noise, cumulated),
        }
        return {name: found[name] for name in CALIBRATION}

    return deviations


def _share(gaps: Float[Tensor, "r b"], drawn: DrawnCalibration) -> Float[Tensor, "r b"]:
    return gaps / drawn.cumulative.totals[:, -1:]


def _mean_gaps(bins: BinSums, base: BinSums) -> Float[Tensor, "r b"]:
    """Mean gap of every bin; a bin that a resample leaves empty says nothing and keeps the estimate."""
    estimated = base.gaps / base.sizes.clamp_min(1)
    return torch.where(bins.sizes > 0, bins.gaps / bins.sizes.clamp_min(1), estimated)


def _least_mce(bins: BinSums, tail: float = 0.025) -> float:
    """The largest gap that some bin has for certain, by exact binomial bounds of its accuracy over all bins.

    Resampling a bin of a handful of samples says little about it, and such bins are what the largest gap is made of.
    """
    from scipy.special import betaincinv  # scipy.stats takes seconds to import

    filled = bins.sizes[0] > 0
    sizes, hits = bins.sizes[0][filled].numpy(), bins.hits[0][filled].numpy()
    confidence = bins.scores[0][filled].numpy() / sizes
    share = tail / len(sizes)
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), sizes - hits + 1, share), 0)
    high = np.where(hits < sizes, betaincinv(hits + 1, np.maximum(sizes - hits, 1), 1 - share), 1)
    return float(np.maximum(np.maximum(confidence - high, low - confidence), 0).max())


def _squares(suite: CalibrationSuite, cuts: Int[Tensor, " e"]) -> Float[Tensor, " b"]:
    """Sums of the squared gaps of the samples between the cuts."""
    ranking = suite.ranking
    cumulated = torch.nn.functional.pad(ranking.gaps.square().cumsum(0)[ranking.ends], (1, 0))
    return cumulated[cuts].diff().abs().flip(0)


def _standard_errors(suite: CalibrationSuite, cuts: Int[Tensor, " e"]) -> Float[Tensor, " b"]:
    return _squares(suite, cuts).sqrt() / len(suite.ranking.scores)


class _Smoothing:
    """The smooth error's gaps at the width of the estimate, on cells as coarse as that width allows."""

    def __init__(self, suite: CalibrationSuite, width: float):
        coarsest = max(1, int(NUM_CELLS * width / _CELLS_A_WIDTH))
        step = 1 << (coarsest.bit_length() - 1)  # a power of 2 divides the number of cells
        self.cuts = suite.cells[:: min(step, NUM_CELLS // 16)]
        self.width = torch.tensor([max(width, 1 / NUM_CELLS)], dtype=torch.float64)
        self.size = len(suite.ranking.scores)
        self.estimated = self._smooth(DrawnCalibration(suite, None))[0]
        # The square of a Gaussian of width s is one of width s / sqrt 2, divided by 2 sqrt(pi) s.
        squares = _squares(suite, self.cuts).flip(0)[None] / self.size**2
        cell = 1 / squares.shape[1]
        variance = smooth(squares, self.width / math.sqrt(2))[0] * cell / (2 * math.sqrt(math.pi) * self.width)
        self.standard_error = variance.clamp_min(0).sqrt()

    def _smooth(self, drawn: DrawnCalibration) -> Float[Tensor, "r m"]:
        gaps = cell_gaps(drawn.sums, self.cuts)
        return smooth(gaps, self.width.expand(len(gaps)))

    def deviations(self, drawn: DrawnCalibration) -> Deviations:
        return norm_deviations(self._smooth(drawn), self.estimated, self.standard_error, self.size)


def classwise_deviations(
    resampled: ClasswiseSums, estimated: ClasswiseSums, brier: Float[Tensor, " r"]
) -> dict[str, Deviations | Tensor]:
    """Deviations of the classwise error and of the Brier parts; the uncertainty's own values.

    Args:
        resampled: Sums of every resample.
        estimated: Sums of the samples.
        brier: Brier score of every resample.
    """
    size, drawn_size = estimated.labels.sum(), resampled.labels.sum(dim=0)
    num_classes = len(estimated.labels)
    ece = norm_deviations(
        (resampled.gaps / drawn_size).flatten(0, 1).T,
        (estimated.gaps / size).flatten(),
        (estimated.squares.clamp_min(0).sqrt() / size).flatten(),
        int(size),
    )
    mean = (estimated.gaps / estimated.sizes.clamp_min(1))[..., None]
    there = resampled.sizes > 0
    noise = torch.where(there, resampled.gaps / resampled.sizes.clamp_min(1) - mean, 0)
    weight = (estimated.sizes / size)[..., None]
    linear = 2 * (weight * mean * noise).sum(dim=(0, 1))
    square = (weight * noise.square()).sum(dim=(0, 1))
    uncertainty = brier_uncertainty_from_sums(resampled)
    others = uncertainty - brier_uncertainty_from_sums(estimated) - (brier - estimated.squares.sum() / size)
    return {
        "brier_reliability": Deviations(linear + square, linear, ceiling=math.inf),
        "brier_resolution": Deviations(linear + square + others, linear + others, -math.inf, math.inf),
        "brier_uncertainty": uncertainty,
        "classwise_ece": replace(ece, fall=ece.fall / num_classes, rise=ece.rise / num_classes),
    }
