"""The verdict of a report: what difficulty-aware training changed against each baseline, in words and as a table."""

import math
from collections.abc import Callable, Sequence

from diffident.cli.common import amount
from diffident.cli.comparison_output import higher_is_better, seeds_note, verdict
from diffident.comparison import compare
from diffident.errors import InputError, did_you_mean
from diffident.paired import DEFAULT_METRICS, PairedComparison, PairedDifference, compare_predictions
from diffident.records import Estimate, Evaluation, Predictions
from diffident.report.charts import Table, cell
from diffident.report.evaluation_charts import comparison_table
from diffident.report.evaluation_tables import by_method, evaluation_table, further_tables, metrics_table

OURS = "difficulty-aware"
_MOST_SINGLE_TABLES = 3
"""Methods of one run each that have a table of metrics of their own; more share one."""


def verdict_of(
    evaluations: Sequence[tuple[str, int, Evaluation]],
    predictions: Sequence[tuple[str, int, Predictions]],
    baseline: str | None,
    num_resamples: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], list[Table]]:
    """Sentences, most important first, and tables, the verdict's first.

    Args:
        evaluations: Method, seed and evaluation of every input.
        predictions: The same inputs' predictions, as far as they are there; only with all of them can differences be
            told from chance sample by sample.
        baseline: The only method to compare with; None compares difficulty-aware methods with each of the others, or
            where there are none every method with cross-entropy or else the first.
        num_resamples: Resamples and permutations.
        progress: Called with (done, total) for one comparison after the other.
    """
    names = list(dict.fromkeys(name for name, _, _ in evaluations))
    if baseline is not None and baseline not in names:
        raise InputError(f"`--baseline` must be one of the methods; got {baseline!r}. {did_you_mean(baseline, names)}")
    if not names:
        return [], []
    pairs = comparisons_of(names, baseline)
    methods = by_method(evaluations)
    if len(evaluations) == len(names) <= _MOST_SINGLE_TABLES:
        single = [evaluation_table(name, one) for name, _, one in evaluations]
    else:
        single = [metrics_table(methods)]
    single += further_tables(methods)
    if len(names) == 1:
        return [], single
    if len(predictions) < len(evaluations):
        sentences, tables = _from_evaluations(evaluations, pairs)
    else:
        sentences, tables = _from_predictions(predictions, pairs, num_resamples, progress)
    return sentences, [*tables, *single]


def comparisons_of(names: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Pairs of a method and what it is compared with."""
    ours = [name for name in names if name.split()[0].rstrip(":") == OURS]
    if baseline is None and ours:
        return [(one, other) for one in ours for other in names if other not in ours] or [
            (one, ours[0]) for one in ours[1:]
        ]
    if baseline is None:
        baseline = "cross-entropy" if "cross-entropy" in names else names[0]
    return [(name, baseline) for name in names if name != baseline]


def _from_evaluations(evaluations, pairs) -> tuple[list[str], list[Table]]:
    """What the seeds alone say."""
    sentences = []
    for name, baseline in pairs:
        comparison = compare([one for one in evaluations if one[0] in (name, baseline)], baseline)
        sentences += [verdict(row, baseline) for row in comparison.rows if row.differences]
    baselines = {baseline for _, baseline in pairs}
    return sentences, [comparison_table(compare(evaluations, baselines.pop() if len(baselines) == 1 else None))]


def _from_predictions(predictions, pairs, num_resamples: int, progress) -> tuple[list[str], list[Table]]:
    """What the samples and the seeds say together."""
    options = {"num_resamples": num_resamples, "progress": progress}
    found = []
    for name, baseline in pairs:
        both = [one for one in predictions if one[0] in (name, baseline)]
        found.append((name, compare_predictions(both, baseline, **options)))
    means = compare_predictions(predictions, None, **options)
    sentences = [summary(name, paired) for name, paired in found]
    return sentences, [difference_table([paired for _, paired in found]), means_table(means)]


def summary(name: str, paired: PairedComparison) -> str:
    """A method against the baseline in one sentence, what is real first."""
    title = f"{name} against {paired.baseline}"
    if not paired.differences:
        return f"{title}: no common seed, so nothing can be told."
    groups: dict[str, list[str]] = {
        "better beyond chance in": [],
        "worse beyond chance in": [],
        "not told from chance in": [],
    }
    for one in paired.differences:
        if math.isnan(one.difference.value):
            continue
        groups[f"{_judge(one)} in"].append(f"{one.metric} ({one.difference.value:+z.4f})")
    parts = [f"{said} {', '.join(metrics)}" for said, metrics in groups.items() if metrics]
    note = seeds_note(paired, name)
    samples = amount(paired.num_samples, "sample")
    return f"{title}, {samples}, {note}: {'; '.join(parts)}."


def difference_table(found: Sequence[PairedComparison]) -> Table:
    """Every difference with its interval, its p-value and whether it is real."""
    rows = []
    for paired in found:
        for one in paired.differences:
            value = one.difference
            interval = (f"{value.value:+z.4f}", f"{value.low:+z.4f}", f"{value.high:+z.4f}", f"{one.adjusted_p:.2g}")
            shown = ("–",) * 5 if math.isnan(value.value) else (*interval, _judge(one))
            rows.append((f"{one.name} minus {paired.baseline}", one.metric, *shown))
    return Table(
        "verdict",
        "What changed",
        ("methods", "metric", "difference", "low", "high", "p", "verdict"),
        tuple(rows),
        "95 % intervals over samples and seeds. p is the larger of a test over samples and one over seeds, after "
        "Holm's correction over the metrics: so it may be large where an interval leaves 0 out. Beyond chance: p below "
        "0.05, and an interval that leaves 0 out.",
    )


def means_table(paired: PairedComparison) -> Table:
    """Every method's metrics with their intervals."""
    rows = [(name, *(_interval(metrics[key]) for key in paired.metrics)) for name, metrics in paired.means.items()]
    samples = amount(paired.num_samples, "sample")
    note = f"Mean over the seeds; in brackets the 95 % interval over samples and seeds; {samples}."
    return Table("methods", "Methods", ("method", *DEFAULT_METRICS), tuple(rows), note)


def _judge(one: PairedDifference) -> str:
    if not one.real:
        return "not told from chance"
    return (
        "better beyond chance" if (one.difference.value > 0) == higher_is_better(one.metric) else "worse beyond chance"
    )


def _interval(value: Estimate) -> str:
    return f"{cell(value.value)} ({cell(value.low)} to {cell(value.high)})"
