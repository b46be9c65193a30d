"""How far an estimate of a calibration error can lie from the true one, from resamples.

A calibration error is a norm of gaps g (mean confidence minus accuracy, of bins, cells or thresholds). Its estimate is
the norm of g + e, which chance e makes larger, and a resample adds e a second time: percentiles of resampled values can
all lie above the estimate, and mirrored ones all below. So the error is bounded instead, with e* = resampled minus
estimated gaps in the place of e:

- it cannot exceed the estimate by more than the norm changes to first order: |g + e| >= |g| + sign(g) e (`rise`);
- it cannot fall short of it by more than |e| where a gap may be 0, and by sign(g) e where it is clearly not (`fall`).

A gap is clearly not 0 beyond sqrt(log n) standard errors (Andrews and Soares 2010, moment selection). Where fewer
errors were made than are expected, no resample has more of them, and e* says too little: there it is the error of
outcomes that are drawn from the confidences (consistency resampling, Bröcker and Smith 2007), where that varies more.
The largest gap of a bin, which may be that of a handful of samples, is bounded from below by exact binomial bounds
instead; and every error is at least the overall gap, so that no interval ends below what the binomial bounds of the
accuracy allow of it, nor begins above it where all are right or all wrong. The interval from value - quantile(fall) to
value - quantile(rise) holds the value always; how often it holds the truth is measured by
benchmarks/interval_coverage.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.bootstrap import Deviations, Draws
from diffident.metrics.bounds import least_mce, overall_gap_bounds
from diffident.metrics.calibration import BinSums
from diffident.metrics.classwise import ClasswiseSums, brier_uncertainty_from_sums
from diffident.metrics.smoothing import NUM_CELLS, cell_gaps, smooth
from diffident.metrics.suite import CALIBRATION, CalibrationSuite, DrawnCalibration

_CELLS_A_WIDTH = 8
"""Cells of one kernel width that the smooth error's deviations are computed on."""


@dataclass(frozen=True)
class Gaps:
    """Gaps of bins, cells or thresholds, with what chance does to them.

    Attributes:
        estimated: On the samples.
        seen: Standard error by the gaps of the samples.
        supposed: Standard error if each confidence is the probability of being right.
    """

    estimated: Float[Tensor, " b"]
    seen: Float[Tensor, " b"]
    supposed: Float[Tensor, " b"]

    def noise(self, resampled: Float[Tensor, "r b"], consistent: Float[Tensor, "r b"]) -> Float[Tensor, "r b"]:
        """Resampled minus estimated gaps, or the gaps of outcomes drawn from the confidences."""
        return torch.where(self.supposed > self.seen, consistent, resampled - self.estimated)

    def clear(self, size: int) -> Bool[Tensor, " b"]:
        """Which are not 0, whatever chance does to so many samples."""
        return self.estimated.abs() > math.sqrt(math.log(max(size, 2))) * torch.maximum(self.seen, self.supposed)

    def of_norm(self, noise: Float[Tensor, "r b"], size: int) -> Deviations:
        """Deviations of the sum of |gaps|, every gap divided by the number of samples."""
        linear = noise * self.estimated.sign()
        return Deviations(torch.where(self.clear(size), linear, noise.abs()).sum(dim=1), linear.sum(dim=1))


def largest_deviations(noise: Float[Tensor, "r b"], estimated: Float[Tensor, " b"]) -> Deviations:
    """Deviations of the largest |gap|."""
    low, high = noise.aminmax(dim=1)
    place = int(estimated.abs().argmax())
    return Deviations(torch.maximum(-low, high), noise[:, place] * estimated[place].sign())


def calibration_deviations(
    suite: CalibrationSuite, values: Mapping[str, float], seed: int = 0
) -> Callable[[DrawnCalibration], dict[str, Deviations]]:
    """Deviations of metrics of `CALIBRATION` for counts.

    Args:
        suite: The samples.
        values: The metrics on the samples themselves, by name; deviations are of these.
        seed: Seed of the outcomes that are drawn from the confidences.
    """
    if not values:
        return lambda drawn: {}
    base = _Estimated(suite, values)
    generator = torch.Generator().manual_seed(seed)
    least, greatest = overall_gap_bounds(base.drawn.bins)
    are_alike = float(base.drawn.bins.hits.sum()) in (0.0, float(base.size))  # then no resample differs in outcomes
    shared = {name: _SHARED.get(name, name) for name in values}
    biases = {name: base.value(shared[name]) - value for name, value in values.items()}
    made = {name: _DEVIATIONS[name](base) for name in dict.fromkeys(shared.values())}

    def deviations(drawn: DrawnCalibration) -> dict[str, Deviations]:
        consistent = suite.ranking.cumulate_consistent(len(drawn.cumulative.totals), generator) / base.size
        of_made = {name: deviate(drawn, consistent) for name, deviate in made.items()}
        found = {}
        for name, value in values.items():
            one = of_made[shared[name]]
            fall, rise = one.fall - biases[name], one.rise - biases[name]
            fall = fall.clamp_min(value - least) if are_alike else fall
            found[name] = replace(one, fall=fall, rise=rise.clamp_max(value - greatest))
        return found

    return deviations


class _Estimated:
    """What the deviations of several metrics share: the samples as they are.

    Attributes:
        suite: The samples.
        values: Metrics on them.
    """

    def __init__(self, suite: CalibrationSuite, values: Mapping[str, float]):
        self.suite, self.values = suite, values
        self.drawn = DrawnCalibration(suite, None)
        self.size = len(suite.ranking.scores)

    def value(self, name: str) -> float:
        """A metric of `CALIBRATION`."""
        return self.values[name] if name in self.values else float(CALIBRATION[name](self.drawn))

    @cached_property
    def variances(self) -> tuple[Float[Tensor, " g"], Float[Tensor, " g"]]:
        """Squared standard errors of the cumulated gaps, divided by the number of samples: seen and supposed."""
        ranking = self.suite.ranking
        of_samples = ranking.gaps.square(), ranking.scores * (1 - ranking.scores)
        seen, supposed = (
            torch.nn.functional.pad(variance.cumsum(0)[ranking.ends], (1, 0)) / self.size**2 for variance in of_samples
        )
        return seen, supposed


_Deviate = Callable[[DrawnCalibration, Float[Tensor, "r g"]], Deviations]
"""From resamples and the cumulated gaps of outcomes drawn from the confidences."""
_SHARED = {"ece_debiased": "ece"}
"""Metrics that mean the same number as another, and so have its interval."""


def _of_bins(
    bins_of: Callable[[DrawnCalibration], BinSums], cuts_of: Callable[[CalibrationSuite], Int[Tensor, " e"]]
) -> Callable[[_Estimated], _Deviate]:
    """The sum of the |gaps| of bins."""

    def prepare(base: _Estimated) -> _Deviate:
        cuts = cuts_of(base.suite)
        seen, supposed = (_between(part[None], cuts)[0].clamp_min(0).sqrt() for part in base.variances)
        gaps = Gaps(bins_of(base.drawn).gaps[0] / base.size, seen, supposed)

        def deviate(drawn: DrawnCalibration, consistent: Float[Tensor, "r g"]) -> Deviations:
            resampled = bins_of(drawn).gaps / drawn.cumulative.totals[:, -1:]
            return gaps.of_norm(gaps.noise(resampled, _between(consistent, cuts)), base.size)

        return deviate

    return prepare


def _of_largest_bin(base: _Estimated) -> _Deviate:
    """The largest mean gap of a bin."""
    bins = base.drawn.bins
    mean_gaps = _mean_gaps(bins, bins)[0]
    most = base.value("mce") - least_mce(bins)

    def deviate(drawn: DrawnCalibration, consistent: Float[Tensor, "r g"]) -> Deviations:
        largest = largest_deviations(_mean_gaps(drawn.bins, bins) - mean_gaps, mean_gaps)
        return replace(largest, fall=torch.full_like(largest.fall, most))

    return deviate


def _of_thresholds(base: _Estimated) -> _Deviate:
    """The largest cumulated gap."""
    seen, supposed = base.variances
    gaps = Gaps(base.drawn.sums.gaps[0] / base.size, seen.sqrt(), supposed.sqrt())

    def deviate(drawn: DrawnCalibration, consistent: Float[Tensor, "r g"]) -> Deviations:
        resampled = drawn.sums.gaps / drawn.cumulative.totals[:, -1:]
        return largest_deviations(gaps.noise(resampled, consistent), gaps.estimated)

    return deviate


def _of_smoothed(base: _Estimated) -> _Deviate:
    """The smooth error's sum of |gaps|."""
    return _Smoothing(base).deviations


_DEVIATIONS: dict[str, Callable[[_Estimated], _Deviate]] = {
    "ece": _of_bins(lambda drawn: drawn.bins, lambda suite: suite.cuts),
    "ece_equal_mass": _of_bins(lambda drawn: drawn.mass_bins, lambda suite: suite.mass_cuts),
    "ece_smooth": _of_smoothed,
    "mce": _of_largest_bin,
    "ks_error": _of_thresholds,
}


def _mean_gaps(bins: BinSums, base: BinSums) -> Float[Tensor, "r b"]:
    """Mean gap of every bin; a bin that a resample leaves empty says nothing and keeps the estimate."""
    estimated = base.gaps / base.sizes.clamp_min(1)
    return torch.where(bins.sizes > 0, bins.gaps / bins.sizes.clamp_min(1), estimated)


def _between(cumulated: Float[Tensor, "r g"], cuts: Int[Tensor, " e"]) -> Float[Tensor, "r b"]:
    """Sums of every bin, the bin of the lowest confidences first."""
    return cumulated.index_select(1, cuts).diff(dim=1).flip(1)


class _Smoothing:
    """The smooth error's gaps at the width of the estimate, on cells as coarse as that width allows."""

    def __init__(self, base: _Estimated):
        suite, width = base.suite, base.value("ece_smooth")
        coarsest = max(1, int(NUM_CELLS * width / _CELLS_A_WIDTH))
        step = 1 << (coarsest.bit_length() - 1)  # a power of 2 divides the number of cells
        self.cuts = suite.cells[:: min(step, NUM_CELLS // 16)]
        self.width = torch.tensor([max(width, 1 / NUM_CELLS)], dtype=torch.float64)
        self.size = base.size
        seen, supposed = (self._standard_error(part) for part in base.variances)
        self.gaps = Gaps(self._smooth(cell_gaps(base.drawn.sums, self.cuts))[0], seen, supposed)

    def _standard_error(self, variances: Float[Tensor, " g"]) -> Float[Tensor, " m"]:
        cells = -variances.index_select(0, self.cuts).diff()[None]
        # The square of a Gaussian of width s is one of width s / sqrt 2, divided by 2 sqrt(pi) s.
        scale = cells.shape[1] * 2 * math.sqrt(math.pi) * self.width
        return (smooth(cells, self.width / math.sqrt(2))[0] / scale).clamp_min(0).sqrt()

    def _smooth(self, gaps: Float[Tensor, "r m"]) -> Float[Tensor, "r m"]:
        return smooth(gaps, self.width.expand(len(gaps)))

    def deviations(self, drawn: DrawnCalibration, consistent: Float[Tensor, "r g"]) -> Deviations:
        resampled = self._smooth(cell_gaps(drawn.sums, self.cuts))
        in_cells = -consistent.index_select(1, self.cuts).diff(dim=1)
        return self.gaps.of_norm(self.gaps.noise(resampled, self._smooth(in_cells)), self.size)


def classwise_deviations(
    resampled: ClasswiseSums, estimated: ClasswiseSums, brier: Float[Tensor, " r"], generator: torch.Generator
) -> dict[str, Draws]:
    """Deviations of the classwise error and of the Brier parts.

    Args:
        resampled: Sums of every resample.
        estimated: Sums of the samples.
        brier: Brier score of every resample.
        generator: Source of the outcomes that are drawn from the probabilities.
    """
    size, num_classes = estimated.labels.sum(), len(estimated.labels)
    sizes = estimated.sizes.flatten()
    mean_probs = (estimated.probs.flatten() / sizes.clamp_min(1)).clamp(0, 1)
    gaps = Gaps(
        estimated.gaps.flatten() / size,
        estimated.squares.flatten().clamp_min(0).sqrt() / size,
        (sizes * mean_probs * (1 - mean_probs)).sqrt() / size,
    )
    drawn = (resampled.gaps / resampled.labels.sum(dim=0)).flatten(0, 1).T
    unseen = gaps.supposed > gaps.seen
    consistent = torch.zeros_like(drawn)
    outcomes = torch.binomial(
        sizes[unseen].expand(len(drawn), -1), mean_probs[unseen].expand(len(drawn), -1), generator=generator
    )
    consistent[:, unseen] = ((sizes * mean_probs)[unseen] - outcomes) / size
    shares = gaps.noise(drawn, consistent)
    ece = gaps.of_norm(shares, int(size))
    mean = (estimated.gaps / estimated.sizes.clamp_min(1))[..., None]
    there = resampled.sizes > 0
    noise = torch.where(there, resampled.gaps / resampled.sizes.clamp_min(1) - mean, 0).flatten(0, 1).T
    # The mean gap of a few samples hardly differs between resamples, but their sum does.
    noise = torch.where(gaps.clear(int(size)) & ~unseen, noise, shares * size / sizes.clamp_min(1))
    linear, square = 2 * noise @ gaps.estimated, noise.square() @ (sizes / size)
    uncertainty = brier_uncertainty_from_sums(resampled) - brier_uncertainty_from_sums(estimated)
    others = uncertainty - (brier - estimated.squares.sum() / size)
    return {
        "brier_reliability": Deviations(linear + square, linear, ceiling=math.inf),
        "brier_resolution": Deviations(linear + square + others, linear + others, -math.inf, math.inf),
        # A resample lowers it as the samples do, and hardly moves it where classes are equally common: both ways.
        "brier_uncertainty": Deviations(uncertainty.abs(), -uncertainty.abs(), ceiling=1 - 1 / num_classes),
        "classwise_ece": replace(ece, fall=ece.fall / num_classes, rise=ece.rise / num_classes),
    }
