"""Which differences between two methods are real: the same samples and seeds, resampled and swapped together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.bootstrap import Draws, estimate_of, join_draws, resampling_counts
from diffident.errors import IdMismatchError, InputError, ShapeError, did_you_mean
from diffident.metrics import suite as suites
from diffident.metrics.inputs import check_labels, check_logits
from diffident.metrics.intervals import Measures, mean_estimate, measure
from diffident.metrics.terms import SampleTerms, sample_terms
from diffident.progress import reporting
from diffident.records import Estimate, Predictions, positions_of
from diffident.significance import WORK_OF_PERMUTATION, Did, Values, holm, is_real, permutation_p_values, seed_p_value

DEFAULT_METRICS = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")

Run = tuple[str, int]
"""Method and seed."""


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


@dataclass(frozen=True)
class PairedComparison:
    """Methods on the same samples.

    Attributes:
        baseline: The method that the differences are against, or None.
        num_samples: Number of samples.
        metrics: The metrics that were compared.
        num_seeds: Seeds of every method.
        means: Method, then metric: mean over its seeds with a 95 % interval over samples and seeds.
        differences: One for every other method with a common seed and every metric.
    """

    baseline: str | None
    num_samples: int
    metrics: tuple[str, ...]
    num_seeds: dict[str, int]
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
    work = len(terms) + WORK_OF_PERMUTATION * sum(map(len, tested.values()))
    did = reporting(progress, work * num_resamples)
    resampled = _resample(terms, metrics, num_resamples, seed, did)
    noise = np.random.default_rng(seed)
    means = {name: resampled.means([(name, number) for number in seeds[name]], noise) for name in names}
    differences: list[PairedDifference] = []
    for name, common in tested.items():
        ours, theirs = [(name, number) for number in common], [(str(baseline), number) for number in common]
        p_values = permutation_p_values(
            [(terms[run], terms[other]) for run, other in zip(ours, theirs, strict=True)],
            metrics,
            num_resamples,
            seed,
            did,
        )
        differences += _differences(resampled, ours, theirs, p_values, noise)
    counts = {name: len(of_name) for name, of_name in seeds.items()}
    return PairedComparison(baseline, len(first), tuple(metrics), counts, means, tuple(differences))


def _common_seeds(seeds: dict[str, list[int]], baseline: str) -> dict[str, list[int]]:
    """The seeds that each other method shares with the baseline; methods without such are left out."""
    shared = {name: [number for number in of_name if number in seeds[baseline]] for name, of_name in seeds.items()}
    return {name: common for name, common in shared.items() if common and name != baseline}


@dataclass(frozen=True)
class _Resampled:
    """Metrics of every run, and what the same resamples say of all of them.

    Attributes:
        runs: Their values and exact intervals.
        values: Values on the resamples, which differences are made of.
        draws: What means are made of: the same, or how far off the value on the samples may be (`mean_estimate`).
        metrics: The keys.
    """

    runs: dict[Run, Measures]
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
        of_seeds = seed_p_value(resampled.each(metric, ours, theirs))
        p_values[metric] = math.nan if math.isnan(estimate.value) else max(over_samples[metric], of_seeds)
    adjusted = holm(p_values)
    name = ours[0][0]
    return [
        PairedDifference(name, metric, estimate, p_values[metric], adjusted[metric], len(ours))
        for metric, estimate in estimates.items()
    ]


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
            raise InputError(
                f"`metrics` must be for any number of classes; got `{name}`, which is for two. Leave it out."
            )
        if name not in known:
            raise InputError(
                f"`metrics` must be among those that can be paired; got `{name}`. {did_you_mean(name, known)}"
            )
    if not metrics:
        raise InputError("`metrics` must name at least one; got none. Leave it out for the usual ones.")


def _resample(
    terms: dict[Run, SampleTerms], metrics: Sequence[str], num_resamples: int, seed: int, did: Did
) -> _Resampled:
    prepared = {run: suites.prepare(one) for run, one in terms.items()}
    runs = {run: measure(suite, metrics, seed) for run, suite in prepared.items()}
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
    moved = draws - draws.nanmean() + value + _seeds_error(each, len(draws), noise)
    low, high = suites.range_of(metric)
    return estimate_of(value, moved.clamp(low - high, high - low))


def _seeds_error(each: list[float], num_draws: int, noise: np.random.Generator) -> Float[Tensor, " r"]:
    """Student's t times the standard error over seeds; 0 of one seed."""
    if len(each) < 2:
        return torch.zeros(num_draws, dtype=torch.float64)
    error = float(np.std(each, ddof=1)) / math.sqrt(len(each))
    return torch.from_numpy(noise.standard_t(len(each) - 1, num_draws)) * error
