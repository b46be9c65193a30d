"""Intervals of the metrics of samples, of one set of predictions or of the mean over several on the same samples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.bootstrap import Deviations, Draws, estimate_of
from diffident.metrics import suite as suites
from diffident.metrics.bounds import coverage_at_risk_bounds, share_of
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.selective import accepted_at_coverage
from diffident.records import Estimate

EXACT_ALONE = ("accuracy", *suites.RISKS)
"""Metrics whose interval in one run is the binomial one: where few errors were made, resamples are all alike."""


@dataclass(frozen=True)
class Measures:
    """The metrics of some samples, ready for any number of resamples.

    Attributes:
        values: On the samples, by name.
        exact: Binomial intervals of those metrics that have one.
        deviations: From resamples, how far off the calibration errors may be.
    """

    values: Mapping[str, float]
    exact: Mapping[str, Estimate]
    deviations: Callable[[suites.Drawn], dict[str, Deviations]]


def measure(suite: suites.Suite, names: Sequence[str], seed: int) -> Measures:
    """Prepare the named metrics.

    Args:
        suite: The samples.
        names: Keys of `metric_names`.
        seed: Seed of the outcomes that are drawn from the confidences.
    """
    values = {name: float(value) for name, value in suites.drawn_metrics(suites.Drawn(suite), names).items()}
    of_label = {name: values[name] for name in suites.CALIBRATION if name in values}
    of_class = {name: values[f"{name}_positive"] for name in suites.CALIBRATION if f"{name}_positive" in values}
    label = calibration_deviations(suite.calibration, of_label, seed)
    positive = None if suite.positive is None else calibration_deviations(suite.positive, of_class, seed)

    def deviations(drawn: suites.Drawn) -> dict[str, Deviations]:
        found = label(drawn)
        if positive is not None:
            found |= {f"{name}_positive": one for name, one in positive(drawn.positive).items()}
        return found

    return Measures(values, _exact(suite, values), deviations)


def _exact(suite: suites.Suite, values: Mapping[str, float]) -> dict[str, Estimate]:
    counts = suite.calibration.ranking.cumulate()
    size = counts.totals[0, -1]
    found: dict[str, Estimate] = {}
    for name, value in values.items():
        if name == "accuracy":
            found[name] = replace(share_of(float(counts.negatives[0, -1]), float(size)), value=value)
        elif name in suites.RISKS:
            found[name] = Estimate(value, *coverage_at_risk_bounds(counts, suites.RISKS[name]))
        elif name in suites.COVERAGES:
            accepted = float(accepted_at_coverage(size, suites.COVERAGES[name]))
            found[name] = share_of(value * accepted, accepted)
    return found


def mean_estimate(
    name: str, runs: Sequence[Measures], draws: Sequence[Draws], noise: Float[Tensor, " r"] | float = 0.0
) -> Estimate:
    """Mean of a metric over predictions of the same samples, with its 95 % interval; of one its value.

    In one run the metrics of `EXACT_ALONE` have their binomial interval, and need no draws. All other intervals are
    made of the draws, and are no narrower than the mean of the runs' binomial intervals, where the metric has such.

    Args:
        name: The metric.
        runs: The predictions.
        draws: Of every run on the same resamples: its deviations, or else its values.
        noise: What is added to the draws of the mean: the error over seeds, 0 of one.
    """
    exact = [run.exact[name] for run in runs if name in run.exact]
    if len(runs) == 1 and name in EXACT_ALONE:
        return exact[0]
    value = math.fsum(run.values[name] for run in runs) / len(runs)
    found = estimate_of(value, _within(_mean_draws(draws, noise), name))
    if not exact:
        return found
    low, high = (math.fsum(ends) / len(exact) for ends in ([one.low for one in exact], [one.high for one in exact]))
    return Estimate(value, min(found.low, low), max(found.high, high))


def _mean_draws(draws: Sequence[Draws], noise: Float[Tensor, " r"] | float) -> Draws:
    plain = [one for one in draws if isinstance(one, Tensor)]
    if len(plain) == len(draws):
        return torch.stack(plain).mean(dim=0) + noise
    parts = [one for one in draws if isinstance(one, Deviations)]
    fall, rise = (torch.stack(bounds).mean(dim=0) for bounds in ([p.fall for p in parts], [p.rise for p in parts]))
    return replace(parts[0], fall=fall + noise, rise=rise + noise)


def _within(draws: Draws, name: str) -> Draws:
    """Values that the metric can take: noise over few seeds leaves them."""
    return draws.clamp(*suites.range_of(name)) if isinstance(draws, Tensor) else draws
