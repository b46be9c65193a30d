"""Which differences between two methods are real: the same samples and seeds, resampled and swapped together."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffident.bootstrap import MAX_ELEMENTS, Draws, estimate_of, join_draws, resampling_counts
from diffident.errors import IdMismatchError, InputError, ShapeError, did_you_mean
from diffident.metrics import suite as suites
from diffident.metrics.inputs import check_labels, check_logits
from diffident.metrics.intervals import Measured, mean_estimate, measured
from diffident.metrics.terms import SampleTerms, concatenate_terms, sample_terms
from diffident.progress import reporting
from diffident.records import Estimate, Predictions, positions_of

DEFAULT_METRICS = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")
LEVEL = 0.05
"""Adjusted p-value below which a difference is called real."""

Values = dict[str, Float[Tensor, " r"]]
"""Of every metric on every resample."""
Run = tuple[str, int]
"""Method and seed."""

_Did = Callable[[int], None]
"""Is told how much work was done."""
# Two methods are measured on the samples of both: four times the work of a resample of one run.
_WORK_OF_PERMUTATION = 4


@dataclass(frozen=True)
class PairedDifference:
    """A method minus the baseline, by one metric.

    Attributes:
        name: The method.
        metric: The metric's key.
        difference: Mean over the common seeds, with its 95 % interval; below 0 where the method's value is lower.
        p_value: Probability of so large a difference if the methods were the same; NaN where it is undefined.
        adjusted_p: The same after Holm's correction over the metrics of this method.
        num_seeds: Seeds that both have.
    """

    name: str
    metric: str
    difference: Estimate
    p_value: float
    adjusted_p: float
    num_seeds: int

    @property
    def real(self) -> bool:
        """Whether the difference is told from chance: by its tests, and by an interval that leaves 0 out."""
        return is_real(self.difference.low, self.difference.high, self.adjusted_p)


def is_real(low: float, high: float, adjusted_p: float) -> bool:
    """Whether a difference with this interval and this p-value after Holm's correction is told from chance."""
    return adjusted_p < LEVEL and not low <= 0 <= high


@dataclass(frozen=True)
class PairedComparison:
    """Methods on the same samples.

    Attributes:
        baseline: The method that the differences are against, or None.
        num_samples: Number of samples.
        metrics: The metrics that were compared.
        means: Method, then metric: mean over its seeds with a 95 % interval over samples and seeds.
        differences: One for every other method with a common seed and every metric.
    """

    baseline: str | None
    num_samples: int
    metrics: tuple[str, ...]
    means: dict[str, dict[str, Estimate]]
    differences: tuple[PairedDifference, ...]


def compare_predictions(
    runs: Sequence[tuple[str, int, Predictions]],
    baseline: str | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    num_resamples: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PairedComparison:
    """Paired differences with intervals and p-values, from the predictions of every method and seed.

    Intervals: all runs are measured on the same bootstrap resamples of the samples, averaged over seeds; where there
    are several seeds, each draw is moved by Student's t times the standard error over seeds, as few seeds ask for.
    Means of one run have the intervals of an evaluation. The draws of differences are centred on the value, because a
    resample raises calibration errors (docs/metrics.md).

    p-values: a permutation test swaps the two methods' outputs on random samples, in all seeds at once. With several
    seeds a paired t-test over seeds is made too, and the larger p counts: a real difference holds on other samples and
    with other seeds. With one seed nothing is said of other seeds.

    Args:
        runs: Method, seed and predictions with labels of every run; a pair of method and seed occurs once. The samples
            are joined by id.
        baseline: Method to compare the others with; None gives the means only.
        metrics: Keys of an evaluation but those about all classes at once.
        num_resamples: Resamples, and permutations; at least 1.
        seed: Seed of both.
        progress: Called with (done, total), in resamples of one run; a permutation of one seed is as much as four.

    Raises:
        InputError: no runs, a pair given twice, no labels, other classes, an unknown baseline or metric.
        IdMismatchError: runs on other samples, or with other labels for the same ones.
    """
    terms = _joined_terms(runs)
    names = list(dict.fromkeys(name for name, _ in terms))
    if baseline is not None and baseline not in names:
        raise InputError(f"`baseline` must be one of the methods; got {baseline!r}. {did_you_mean(baseline, names)}")
    first = next(iter(terms.values()))
    metrics = tuple(dict.fromkeys(metrics))  # named twice, one would count twice
    _check_metrics(metrics, binary=first.positive is not None)
    if num_resamples < 1:
        raise InputError(f"`num_resamples` must be at least 1; got {num_resamples}. Intervals and tests need some.")
    seeds = {name: sorted(number for other, number in terms if other == name) for name in names}
    tested = {} if baseline is None else _common_seeds(seeds, baseline)
    work = len(terms) + _WORK_OF_PERMUTATION * sum(map(len, tested.values()))
    did = reporting(progress, work * num_resamples)
    resampled = _resample(terms, metrics, num_resamples, seed, did)
    noise = np.random.default_rng(seed)
    means = {name: resampled.means([(name, number) for number in seeds[name]], noise) for name in names}
    differences: list[PairedDifference] = []
    for name, common in tested.items():
        ours, theirs = [(name, number) for number in common], [(str(baseline), number) for number in common]
        p_values = _permutation_p_values(
            [(terms[run], terms[other]) for run, other in zip(ours, theirs, strict=True)],
            metrics,
            num_resamples,
            seed,
            did,
        )
        differences += _differences(resampled, ours, theirs, p_values, noise)
    return PairedComparison(baseline, len(first), tuple(metrics), means, tuple(differences))


def _common_seeds(seeds: dict[str, list[int]], baseline: str) -> dict[str, list[int]]:
    """The seeds that each other method shares with the baseline; methods without such are left out."""
    shared = {name: [number for number in of_name if number in seeds[baseline]] for name, of_name in seeds.items()}
    return {name: common for name, common in shared.items() if common and name != baseline}


@dataclass(frozen=True)
class _Resampled:
    """Metrics of every run, and what the same resamples say of all of them.

    Attributes:
        runs: Their values and exact intervals.
        draws: How far off each may be (`metrics.intervals`): for means.
        values: Values on the resamples: for differences.
        metrics: The keys.
    """

    runs: dict[Run, Measured]
    draws: dict[Run, dict[str, Draws]]
    values: dict[Run, Values]
    metrics: Sequence[str]

    def means(self, runs: list[Run], noise: np.random.Generator) -> dict[str, Estimate]:
        """Mean over seeds of every metric, with its interval."""
        found = {}
        for metric in self.metrics:
            each = [self.runs[run].values[metric] for run in runs]
            draws = [self.draws[run][metric] for run in runs]
            error = _seeds_error(each, len(self.values[runs[0]][metric]), noise)
            found[metric] = mean_estimate(metric, [self.runs[run] for run in runs], draws, error)
        return found

    def each(self, metric: str, ours: list[Run], theirs: list[Run]) -> list[float]:
        """Difference of every seed."""
        pairs = zip(ours, theirs, strict=True)
        return [self.runs[run].values[metric] - self.runs[other].values[metric] for run, other in pairs]

    def differences(self, ours: list[Run], theirs: list[Run], noise: np.random.Generator) -> dict[str, Estimate]:
        """Mean over seeds of the differences of every metric, with its interval."""
        found = {}
        for metric in self.metrics:
            mean, other = (torch.stack([self.values[run][metric] for run in runs]).mean(0) for runs in (ours, theirs))
            found[metric] = _centred(self.each(metric, ours, theirs), mean - other, metric, noise)
        return found


def _differences(
    resampled: _Resampled,
    ours: list[Run],
    theirs: list[Run],
    over_samples: dict[str, float],
    noise: np.random.Generator,
) -> list[PairedDifference]:
    """The differences of one method, with the p-values over samples and those over seeds made one."""
    estimates, p_values = resampled.differences(ours, theirs, noise), {}
    for metric, estimate in estimates.items():
        of_seeds = _seed_p_value(resampled.each(metric, ours, theirs))
        p_values[metric] = math.nan if math.isnan(estimate.value) else max(over_samples[metric], of_seeds)
    adjusted = holm(p_values)
    name = ours[0][0]
    return [
        PairedDifference(name, metric, estimate, p_values[metric], adjusted[metric], len(ours))
        for metric, estimate in estimates.items()
    ]


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction; undefined (NaN) p-values stay out of the count.

    Reference:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    defined = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, largest = dict.fromkeys(p_values, math.nan), 0.0
    for place, (p, name) in enumerate(defined):
        largest = max(largest, min(1.0, p * (len(defined) - place)))
        adjusted[name] = largest
    return adjusted


def _joined_terms(runs: Sequence[tuple[str, int, Predictions]]) -> dict[Run, SampleTerms]:
    """The terms of every run, in the first run's order of samples."""
    if not runs:
        raise InputError("`runs` must hold at least one run; got none. Give runs or files of predictions.")
    terms: dict[Run, SampleTerms] = {}
    first_name, _, first = runs[0]
    for name, seed, predictions in runs:
        called = f"{name!r}, seed {seed}"
        if (name, seed) in terms:
            raise InputError(
                f"`runs` must hold each method and seed once; got {called} twice. "
                f"Leave one out, or give the methods different names."
            )
        if predictions.labels is None:
            raise InputError(f"`runs` must have labels; got none at {called}. Predict labelled data.")
        if predictions.logits.shape[1] != first.logits.shape[1]:
            raise ShapeError(
                f"`runs` must have the same classes; got {predictions.logits.shape[1]} columns at {called} and "
                f"{first.logits.shape[1]} at {first_name!r}. Evaluate all runs on the same task."
            )
        rows = _rows_of(predictions, first, called, first_name)
        scores = check_logits(predictions.logits[rows], f"logits of {called}", probs_as="Read them as probabilities.")
        labels = check_labels(predictions.labels[rows], len(scores), scores.num_classes)
        terms[name, seed] = sample_terms(scores, labels)[0]
    return terms


def _rows_of(predictions: Predictions, first: Predictions, called: str, first_name: str) -> Tensor:
    """Rows of the predictions in the order of the first's."""
    rows = torch.from_numpy(positions_of(predictions.ids, first.ids, what=repr(first_name), where=called))
    if len(predictions) > len(first):
        positions_of(first.ids, predictions.ids, what=called, where=repr(first_name))  # names those that are too many
    assert predictions.labels is not None  # seen to by the caller
    if first.labels is not None and not torch.equal(predictions.labels[rows], first.labels):
        row = int((predictions.labels[rows] != first.labels).nonzero()[0])
        raise IdMismatchError(
            f"`labels` must be the same in all runs; got {int(predictions.labels[rows[row]])} at {called} and "
            f"{int(first.labels[row])} at {first_name!r} for {str(first.ids[row])!r}. Use the same data for all."
        )
    return rows


def _check_metrics(metrics: Sequence[str], *, binary: bool) -> None:
    known = suites.metric_names(binary=binary)
    for name in metrics:
        if name in suites.metric_names(binary=True) and name not in known:
            raise InputError(f"`metrics` must be of these classes; got `{name}`, which is of two. Leave it out.")
        if name not in known:
            raise InputError(
                f"`metrics` must be among those that can be paired; got `{name}`. {did_you_mean(name, known)}"
            )
    if not metrics:
        raise InputError("`metrics` must name at least one; got none. Leave it out for the usual ones.")


def _resample(
    terms: dict[Run, SampleTerms], metrics: Sequence[str], num_resamples: int, seed: int, did: _Did
) -> _Resampled:
    prepared = {run: suites.prepare(one) for run, one in terms.items()}
    runs = {run: measured(suite, metrics, seed) for run, suite in prepared.items()}
    draws: dict[Run, list[dict[str, Draws]]] = {run: [] for run in terms}
    values: dict[Run, list[Values]] = {run: [] for run in terms}
    size = len(next(iter(terms.values())))
    for counts in resampling_counts([size], num_resamples, torch.Generator().manual_seed(seed)):
        for run, suite in prepared.items():
            drawn = suites.Drawn(suite, counts)
            values[run].append(suites.drawn_metrics(drawn, metrics))
            draws[run].append({**values[run][-1], **runs[run].deviations(drawn)})
            did(len(counts))
    return _Resampled(
        runs,
        {run: {name: join_draws([one[name] for one in drawn]) for name in metrics} for run, drawn in draws.items()},
        {run: {name: torch.cat([one[name] for one in drawn]) for name in metrics} for run, drawn in values.items()},
        metrics,
    )


def _centred(each: list[float], draws: Float[Tensor, " r"], metric: str, noise: np.random.Generator) -> Estimate:
    """Mean difference over seeds, with an interval over samples and seeds.

    Args:
        each: Difference of every seed.
        draws: Mean over seeds on every resample.
        metric: Its name.
        noise: For the seeds' part.
    """
    value = math.fsum(each) / len(each)
    if math.isnan(value) or bool(draws.isnan().all()):
        return Estimate(value, math.nan, math.nan)
    moved = draws - draws.nanmean() + value
    error = _seeds_error(each, len(draws), noise)
    if error is not None:
        moved = moved + error
    low, high = suites.range_of(metric)
    return estimate_of(value, moved.clamp(low - high, high - low))


def _seeds_error(each: list[float], num_draws: int, noise: np.random.Generator) -> Float[Tensor, " r"] | None:
    """Student's t times the standard error over seeds; None of one seed."""
    if len(each) < 2:
        return None
    error = float(np.std(each, ddof=1)) / math.sqrt(len(each))
    return torch.from_numpy(noise.standard_t(len(each) - 1, num_draws)) * error


def _seed_p_value(differences: list[float]) -> float:
    """Two-sided paired t-test over seeds; 0 below two of them, which say nothing."""
    from scipy.special import stdtr  # scipy.stats takes seconds to import

    if len(differences) < 2:
        return 0.0
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / deviation * math.sqrt(len(differences))))


def _permutation_p_values(
    pairs: list[tuple[SampleTerms, SampleTerms]],
    metrics: Sequence[str],
    num_permutations: int,
    seed: int,
    did: _Did,
) -> dict[str, float]:
    """Share of swaps, the one at hand included, that differ by at least as much.

    Both methods' samples are sorted together once: a swap then is a choice of n of the 2 n.

    Args:
        pairs: Terms of the method and of the baseline for every common seed.
        metrics: The metrics.
        num_permutations: Number of random swaps.
        seed: Their seed.
        did: Is told how much work was done.
    """
    pooled = [suites.prepare(concatenate_terms(list(pair))) for pair in pairs]
    size = len(pairs[0][0])
    found = _difference(pooled, torch.zeros(1, size, dtype=torch.bool), metrics)
    as_large = dict.fromkeys(metrics, 0)
    for swapped in _swaps(size, num_permutations, torch.Generator().manual_seed(seed)):
        drawn = _difference(pooled, swapped, metrics)
        for name in metrics:
            # What rounding makes of equal differences counts as equal; an undefined one counts as large.
            smaller = drawn[name].abs() < found[name].abs() * (1 - 1e-9) - 1e-15
            as_large[name] += int((~smaller).sum())
        did(_WORK_OF_PERMUTATION * len(pairs) * len(swapped))
    return {name: (1 + as_large[name]) / (1 + num_permutations) for name in metrics}


def _swaps(size: int, num_permutations: int, generator: torch.Generator) -> Iterator[Bool[Tensor, "r n"]]:
    left = num_permutations
    while left:
        rows = min(left, max(1, MAX_ELEMENTS // size))
        yield torch.randint(2, (rows, size), generator=generator, dtype=torch.uint8).bool()
        left -= rows


def _difference(pooled: list[suites.Suite], swapped: Bool[Tensor, "r n"], metrics: Sequence[str]) -> Values:
    """The method minus the baseline, mean over seeds, with the swapped samples' outputs exchanged."""
    totals: Values = {}
    counts = torch.cat([~swapped, swapped], dim=1).to(torch.float64)
    for suite in pooled:
        ours = suites.drawn_metrics(suites.Drawn(suite, counts), metrics)
        theirs = suites.drawn_metrics(suites.Drawn(suite, 1 - counts), metrics)
        for name in metrics:
            totals[name] = totals.get(name, torch.zeros(())) + (ours[name] - theirs[name]) / len(pooled)
    return totals


def mean_ranks(values: Sequence[dict[str, float]], *, higher_is_better: bool) -> dict[str, float]:
    """Mean rank of every method over data sets, 1 the best; tied methods share their mean rank.

    Args:
        values: Method to value, one mapping per data set; all hold the same methods.
        higher_is_better: The direction.

    Raises:
        InputError: a method that one of the data sets lacks.

    Reference:
        Demšar 2006, "Statistical comparisons of classifiers over multiple data sets".
    """
    from scipy.stats import rankdata

    names = list(values[0])
    for number, one in enumerate(values):
        for name in set(names) ^ set(one):
            raise InputError(
                f"`values` must hold the same methods for every data set; got {name!r} only in some (data set "
                f"{number}). Leave it out, or run it on all."
            )
    sign = -1 if higher_is_better else 1
    ranks = [rankdata([sign * one[name] for name in names], nan_policy="propagate") for one in values]
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))
