"""Every metric that is made of one set of terms a sample, on the samples or on resamples of them.

What several metrics share (the order, the bins, cumulative counts) is worked out once; a metric is then one line.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.metrics import calibration as cal
from diffident.metrics import detection, selective
from diffident.metrics.classwise import CLASSWISE_METRICS, ClasswiseSums, classwise_values
from diffident.metrics.ranking import CumulativeCounts, Ranking, bends, rank_samples, rank_unordered
from diffident.metrics.smoothing import cell_cuts, cell_gaps, smooth_width
from diffident.metrics.terms import SampleTerms

RISKS = {"coverage_at_risk_1": 0.01, "coverage_at_risk_5": 0.05}
COVERAGES = {"risk_at_coverage_80": 0.8, "risk_at_coverage_90": 0.9}


@dataclass(frozen=True)
class CalibrationSuite:
    """Confidences against outcomes, sorted once, and binned once when bins are first asked for.

    Attributes:
        ranking: Samples by confidence; positive are the wrong ones.
        seek_right: Whether curves are about finding the right ones, not the wrong ones.
    """

    ranking: Ranking
    seek_right: bool = False

    @cached_property
    def curve(self) -> Int[Tensor, " k"]:
        """Columns of the cumulative counts that curves bend at."""
        return bends(self.ranking, 1 - self.ranking.positive if self.seek_right else self.ranking.positive)

    @cached_property
    def cuts(self) -> Int[Tensor, " e"]:
        """Columns between the equally wide bins."""
        return cal.equal_width_cuts(self.ranking, cal.NUM_BINS)

    @cached_property
    def mass_cuts(self) -> Int[Tensor, " e"]:
        """Columns between the bins of equal mass."""
        return cal.equal_mass_cuts(self.ranking, cal.NUM_BINS)

    @cached_property
    def cells(self) -> Int[Tensor, " m"]:
        """Columns between the cells of the smooth error."""
        return cell_cuts(self.ranking)


@dataclass(frozen=True)
class Suite:
    """One set of samples, prepared for any number of resamples.

    Attributes:
        calibration: Of the prediction's confidence.
        positive: Of the positive class's probability; None unless the task is binary.
        terms: The samples.
    """

    calibration: CalibrationSuite
    positive: CalibrationSuite | None
    terms: SampleTerms

    @cached_property
    def means(self) -> Float[Tensor, "t n"]:
        """The terms of `_TERMS`, in their order."""
        return torch.stack([term(self.terms) for term in _TERMS.values()])


_TERMS: dict[str, Callable[[SampleTerms], Float[Tensor, " n"]]] = {
    "right": lambda terms: 1 - terms.errors.to(torch.float64),
    "wrong": lambda terms: terms.errors.to(torch.float64),
    "confidence if wrong": lambda terms: terms.errors * terms.confidence,
    "nll": lambda terms: _or_nan(terms.nll, terms),
    "brier": lambda terms: _or_nan(terms.brier, terms),
}
"""What has a mean that is a metric, or a part of one."""


def _or_nan(values: Float[Tensor, " n"] | None, terms: SampleTerms) -> Float[Tensor, " n"]:
    return torch.full_like(terms.confidence, torch.nan) if values is None else values


class DrawnCalibration:
    """What `CalibrationSuite` gives on some counts, each part worked out when it is first asked for."""

    def __init__(self, suite: CalibrationSuite, counts: Float[Tensor, "r n"] | None):
        self.suite, self.counts = suite, counts

    @cached_property
    def cumulative(self) -> CumulativeCounts:
        """Samples and wrong ones among the surest."""
        return self.suite.ranking.cumulate(self.counts)

    @cached_property
    def curve(self) -> CumulativeCounts:
        """The same where curves bend: all that the areas and rates of a curve need."""
        return self.cumulative.at(self.suite.curve)

    @cached_property
    def sums(self) -> cal.CalibrationSums:
        """The same with confidences."""
        return cal.calibration_sums(self.suite.ranking, self.counts, self.cumulative)

    @cached_property
    def flagged(self) -> CumulativeCounts:
        """Samples and wrong ones among the least sure."""
        return detection.errors_from_accepted(self.curve)

    @cached_property
    def bins(self) -> cal.BinSums:
        """Sums over equally wide bins."""
        return cal.bin_sums(self.sums, self.suite.cuts)

    @cached_property
    def mass_bins(self) -> cal.BinSums:
        """Sums over bins of equal mass."""
        return cal.bin_sums(self.sums, self.suite.mass_cuts)

    @cached_property
    def cells(self) -> Float[Tensor, "r m"]:
        """Gaps in the cells of the smooth error."""
        return cell_gaps(self.sums, self.suite.cells)


class Drawn(DrawnCalibration):
    """What `Suite` gives on some counts."""

    def __init__(self, suite: Suite, counts: Float[Tensor, "r n"] | None = None):
        super().__init__(suite.calibration, counts)
        self.whole = suite

    def mean(self, name: str) -> Float[Tensor, " r"]:
        """Mean of one of `_TERMS`."""
        if self.counts is None:
            return _TERMS[name](self.whole.terms).mean()[None]
        return self._means[list(_TERMS).index(name)]

    @cached_property
    def _means(self) -> Float[Tensor, "t r"]:
        assert self.counts is not None  # seen to by `mean`
        counts = self.counts.to(torch.float64)
        return self.whole.means @ counts.T / counts.sum(dim=1)

    @cached_property
    def aurc(self) -> Float[Tensor, " r"]:
        """Area under the risk-coverage curve."""
        return selective.aurc_from_counts(self.curve)

    @cached_property
    def positive(self) -> DrawnCalibration:
        """The positive-class forms of a binary task."""
        assert self.whole.positive is not None  # the names of `metric_names` say so
        return DrawnCalibration(self.whole.positive, self.counts)


CALIBRATION: dict[str, Callable[[DrawnCalibration], Tensor]] = {
    "ece": lambda drawn: cal.ece_from_bins(drawn.bins),
    "ece_equal_mass": lambda drawn: cal.ece_from_bins(drawn.mass_bins),
    "ece_debiased": lambda drawn: cal.ece_debiased_from_bins(drawn.bins),
    "ece_smooth": lambda drawn: smooth_width(drawn.cells),
    "mce": lambda drawn: cal.mce_from_bins(drawn.bins),
    "ks_error": lambda drawn: cal.ks_from_sums(drawn.sums),
}
"""Metrics of confidences against outcomes. Chance alone raises them, so their intervals are `deviations`."""

_MEANS: dict[str, Callable[[Drawn], Tensor]] = {
    "accuracy": lambda drawn: drawn.mean("right"),
    "nll": lambda drawn: drawn.mean("nll"),
    "brier": lambda drawn: drawn.mean("brier"),
    "overconfidence": lambda drawn: drawn.mean("confidence if wrong") / drawn.mean("wrong"),
}
_SELECTIVE: dict[str, Callable[[Drawn], Tensor]] = {
    "aurc": lambda drawn: drawn.aurc,
    "eaurc": lambda drawn: drawn.aurc - selective.least_aurc_from_counts(drawn.curve),
    "augrc": lambda drawn: selective.augrc_from_counts(drawn.curve),
    **{
        name: lambda drawn, risk=risk: selective.coverage_at_risk_from_counts(drawn.curve, risk)
        for name, risk in RISKS.items()
    },
    **{
        name: lambda drawn, coverage=coverage: selective.risk_at_coverage_from_counts(drawn.curve, coverage)
        for name, coverage in COVERAGES.items()
    },
    "auroc_errors": lambda drawn: detection.auroc_from_counts(drawn.flagged),
    "aupr_errors": lambda drawn: detection.aupr_from_counts(drawn.flagged),
    "fpr95_errors": lambda drawn: detection.fpr95_from_counts(drawn.flagged),
}
_POSITIVE: dict[str, Callable[[DrawnCalibration], Tensor]] = {
    # The ranking is by p(class 1) with class 0 as its wrong ones: class 1 among the most probable is what is sought.
    "auroc_positive": lambda drawn: detection.auroc_from_counts(_hits(drawn)),
    "aupr_positive": lambda drawn: detection.aupr_from_counts(_hits(drawn)),
}


def _hits(drawn: DrawnCalibration) -> CumulativeCounts:
    return CumulativeCounts(drawn.curve.totals, drawn.curve.negatives)


_ALL: dict[str, Callable[[Drawn], Tensor]] = {
    **_MEANS,
    **CALIBRATION,
    **_SELECTIVE,
    **{f"{name}_positive": lambda drawn, metric=metric: metric(drawn.positive) for name, metric in CALIBRATION.items()},
    **{name: lambda drawn, metric=metric: metric(drawn.positive) for name, metric in _POSITIVE.items()},
}


def metric_names(*, binary: bool) -> tuple[str, ...]:
    """The keys of `drawn_metrics`: with the positive-class forms where the task is binary."""
    return tuple(name for name in _ALL if binary or not name.endswith("_positive"))


def range_of(name: str) -> tuple[float, float]:
    """The least and the greatest value that a metric of `metric_names` can take."""
    return 0.0, {"nll": math.inf, "brier": 2.0}.get(name, 1.0)


def metric_order(*, binary: bool) -> tuple[str, ...]:
    """All keys of an evaluation's metrics, in the order in which they are printed."""
    names = metric_names(binary=binary)
    after = names.index("brier") + 1
    return (*names[:after], *CLASSWISE_METRICS, *names[after:])


def all_values(terms: SampleTerms, sums: ClasswiseSums) -> dict[str, float]:
    """Every metric of the samples themselves, in the order of `metric_order`."""
    found = sample_values(terms)
    found |= classwise_values(sums, found["brier"])
    return {name: found[name] for name in metric_order(binary=terms.positive is not None)}


def sample_values(terms: SampleTerms, names: Iterable[str] | None = None) -> dict[str, float]:
    """The named metrics of the samples themselves; without names every one but the classwise ones."""
    names = metric_names(binary=terms.positive is not None) if names is None else names
    if not any(name.endswith("_positive") for name in names):
        terms = replace(terms, positive=None)
    found = drawn_metrics(Drawn(prepare(terms, rank_unordered)), names)
    return {name: float(value) for name, value in found.items()}


def prepare(terms: SampleTerms, rank: Callable[..., Ranking] = rank_samples) -> Suite:
    """Sort and bin once; with `rank_unordered` for values on the samples only."""
    positive = None
    if terms.positive is not None:
        positive = CalibrationSuite(rank(terms.positive, terms.labels != 1), seek_right=True)
    return Suite(CalibrationSuite(rank(terms.confidence, terms.errors)), positive, terms)


def in_place_order(suite: Suite) -> Suite:
    """The suite for counts of samples that already are in descending order of confidence: nothing is gathered."""
    return replace(suite, calibration=replace(suite.calibration, ranking=suite.calibration.ranking.in_place_order()))


def drawn_metrics(drawn: Drawn, names: Iterable[str]) -> dict[str, Float[Tensor, " r"]]:
    """The named metrics on some counts, one value a resample."""
    return {name: _ALL[name](drawn) for name in names}
