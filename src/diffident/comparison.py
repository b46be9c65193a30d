"""Evaluations of several methods and seeds side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from diffident.errors import InputError, did_you_mean
from diffident.records import Evaluation


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one number over seeds.

    Attributes:
        mean: Mean over the seeds; NaN without any.
        standard_deviation: Sample standard deviation (divided by n - 1); NaN below two seeds.
        num_seeds: Number of seeds at which the number is there and defined.
    """

    mean: float
    standard_deviation: float
    num_seeds: int

    def shown(self, sign: str = "") -> str:
        """As tables show it: mean ± standard deviation, a dash where undefined; `sign` is "+" to show it always."""
        if self.num_seeds == 0:
            return "–"
        mean = f"{self.mean:{sign}z.4f}"
        return mean if self.num_seeds < 2 else f"{mean} ± {self.standard_deviation:.4f}"


@dataclass(frozen=True)
class ComparisonRow:
    """One method.

    Attributes:
        name: The method's name.
        seeds: Seeds of its runs, ascending.
        metrics: Spread of every metric; those of out-of-distribution sets as `ood/NAME/auroc`.
        differences: Spread of method minus baseline at the same seed, by metric; empty for the baseline itself.
    """

    name: str
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]
    differences: dict[str, Spread] = field(default_factory=dict)

    @property
    def num_seeds(self) -> int:
        """Number of runs."""
        return len(self.seeds)

    def shown(self, metric: str) -> str:
        """As tables show a metric: its spread, and of how many seeds if it is not defined at all of them."""
        spread = self.metrics[metric]
        return spread.shown() + of_seeds(spread.num_seeds, self.num_seeds)


@dataclass(frozen=True)
class Comparison:
    """Methods in the order in which they were first given.

    Attributes:
        rows: One per method.
        baseline: Name of the method that the differences are against, or None.
        metrics: Every metric that any method has, in the order of the first evaluation.
    """

    rows: tuple[ComparisonRow, ...]
    baseline: str | None
    metrics: tuple[str, ...]


def compare(evaluations: Sequence[tuple[str, int, Evaluation]], baseline: str | None = None) -> Comparison:
    """Mean and spread of every metric over seeds, and paired differences against a baseline.

    Args:
        evaluations: Method, seed and evaluation of every run; a pair of method and seed occurs once.
        baseline: Method to subtract, seed by seed; only seeds that both have count.

    Raises:
        InputError: no evaluations, a pair given twice, other samples or classes, or an unknown baseline.
    """
    values = _values_by_name(evaluations)
    if baseline is not None and baseline not in values:
        raise InputError(f"`baseline` must be one of the methods; got {baseline!r}. {did_you_mean(baseline, values)}")
    keys = tuple(dict.fromkeys(key for seeds in values.values() for metrics in seeds.values() for key in metrics))
    rows = []
    for name, seeds in values.items():
        metrics = {key: spread_of([run.get(key, math.nan) for run in seeds.values()]) for key in keys}
        differences = {}
        if baseline is not None and name != baseline:
            common = [(run, values[baseline][seed]) for seed, run in seeds.items() if seed in values[baseline]]
            for key in keys:
                differences[key] = spread_of([a.get(key, math.nan) - b.get(key, math.nan) for a, b in common])
        rows.append(ComparisonRow(name, tuple(sorted(seeds)), metrics, differences))
    return Comparison(tuple(rows), baseline, keys)


def flatten_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """The value of every metric by key; those of out-of-distribution sets as `ood/NAME/auroc`."""
    flat = {key: estimate.value for key, estimate in evaluation.metrics.items()}
    for name, metrics in evaluation.ood.items():
        flat.update({f"ood/{name}/{key}": estimate.value for key, estimate in metrics.items()})
    return flat


def _values_by_name(evaluations: Sequence[tuple[str, int, Evaluation]]) -> dict[str, dict[int, dict[str, float]]]:
    if not evaluations:
        raise InputError("`evaluations` must hold at least one run; got none. Give finished runs.")
    first_name, first_seed, first = evaluations[0]
    values: dict[str, dict[int, dict[str, float]]] = {}
    for name, seed, evaluation in evaluations:
        size, wanted = (evaluation.num_samples, evaluation.num_classes), (first.num_samples, first.num_classes)
        if size != wanted:
            raise InputError(
                f"`evaluations` must be of one test set; got {size[0]} samples and {size[1]} classes at {name!r}, "
                f"seed {seed}, but {wanted[0]} and {wanted[1]} at {first_name!r}, seed {first_seed}. "
                f"Evaluate all runs on the same split."
            )
        if seed in values.setdefault(name, {}):
            raise InputError(
                f"`evaluations` must hold each method and seed once; got {name!r}, seed {seed} twice. "
                f"Leave one out, or give the methods different names."
            )
        values[name][seed] = flatten_evaluation(evaluation)
    return values


def of_seeds(num_defined: int, num_seeds: int) -> str:
    """What follows a number in a table if it is defined at some of the seeds alone."""
    return f", {num_defined} of {num_seeds} seeds" if 0 < num_defined < num_seeds else ""


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and spread of the values that are defined."""
    defined = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    mean = float(defined.mean()) if len(defined) else math.nan
    deviation = float(defined.std(ddof=1)) if len(defined) > 1 else math.nan
    return Spread(mean, deviation, len(defined))
