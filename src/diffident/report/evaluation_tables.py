"""Tables of evaluations: every metric, and what was found of detectors, calibrators, prediction sets and classes."""

import math
from collections.abc import Callable, Mapping, Sequence

from diffident.comparison import of_seeds, spread_of
from diffident.records import Estimate, Evaluation
from diffident.report.charts import Table, cell, plain_name, plain_names, slug

Found = Mapping[str, Mapping[str, Estimate]]
"""What was found of several things: name, then metric."""

_MOST_CLASSES = 100
_OF_CLASSES = ("accuracy", "nll", "brier", "ece", "aurc")


def by_method(evaluations: Sequence[tuple[str, int, Evaluation]]) -> dict[str, list[Evaluation]]:
    """The evaluations of all seeds of every method."""
    methods: dict[str, list[Evaluation]] = {}
    for name, _, evaluation in evaluations:
        methods.setdefault(name, []).append(evaluation)
    return methods


def evaluation_table(name: str, evaluation: Evaluation) -> Table:
    """Every metric of one run with its 95 % interval, if it has one."""
    estimates = _estimates(evaluation)
    with_intervals = any(e.has_interval for e in estimates.values())
    columns = ("value", "low", "high") if with_intervals else ("value",)
    rows = tuple((key, *(cell(getattr(e, column)) for column in columns)) for key, e in estimates.items())
    note = f"{evaluation.num_samples:,} samples, {evaluation.num_classes} classes"
    note += "; 95 % intervals." if with_intervals else "."
    return Table(f"metrics-{slug(name)}", f"Metrics: {plain_name(name)}", ("metric", *columns), rows, note)


def metrics_table(methods: Mapping[str, Sequence[Evaluation]]) -> Table:
    """Every metric of every method, one column a method."""
    found = [[_estimates(one) for one in seeds] for seeds in methods.values()]
    keys = dict.fromkeys(key for seeds in found for one in seeds for key in one)
    rows = tuple((key, *(_spread_cell(seeds, key) for seeds in found)) for key in keys)
    return Table("metrics", "All metrics", ("metric", *_titles(methods)), rows, _note(methods))


def further_tables(methods: Mapping[str, Sequence[Evaluation]]) -> list[Table]:
    """One table each, with all methods, of whatever else their evaluations hold."""
    tables = (
        _found_table("detectors", "Out-of-distribution detectors", "detector", methods, _detectors),
        _found_table("calibrated", "After calibration", "calibrator", methods, lambda one: one.calibrated),
        _found_table("conformal", "Prediction sets", "sets", methods, lambda one: one.conformal),
        _found_table("abstention", "Abstaining", "target error rate", methods, lambda one: one.abstention),
        _found_table("classes", "By class", "class (samples)", methods, _classes),
    )
    return [table for table in tables if table is not None]


def _detectors(evaluation: Evaluation) -> Found:
    return {
        f"{plain_name(outside)}: {detector}": metrics
        for outside, detectors in evaluation.ood_detectors.items()
        for detector, metrics in detectors.items()
    }


def _classes(evaluation: Evaluation) -> Found:
    names = plain_names([group.name or str(group.index) for group in evaluation.by_class])
    return {
        f"{name} ({group.num_samples:,})": {key: group.metrics[key] for key in _OF_CLASSES if key in group.metrics}
        for name, group in zip(names, evaluation.by_class, strict=True)
    }


def _found_table(
    key: str, title: str, what: str, methods: Mapping[str, Sequence[Evaluation]], find: Callable[[Evaluation], Found]
) -> Table | None:
    rows: list[tuple[str, str, list[Mapping[str, Estimate]]]] = []
    left_out = 0
    for name, seeds in zip(_titles(methods), methods.values(), strict=True):
        found = [find(one) for one in seeds]
        things = list(dict.fromkeys(thing for one in found for thing in one))
        shown = things[:_MOST_CLASSES] if key == "classes" else things
        left_out = max(left_out, len(things) - len(shown))
        rows += [(name, thing, [one.get(thing, {}) for one in found]) for thing in shown]
    if not rows:
        return None
    metrics = tuple(dict.fromkeys(metric for *_, seeds in rows for one in seeds for metric in one))
    cells = tuple((name, thing, *(_spread_cell(seeds, metric) for metric in metrics)) for name, thing, seeds in rows)
    note = _note(methods) + (f" The first {_MOST_CLASSES} classes; {left_out} are left out." if left_out else "")
    return Table(key, title, ("method", what, *metrics), cells, note)


def _estimates(evaluation: Evaluation) -> dict[str, Estimate]:
    estimates = dict(evaluation.metrics)
    for outside, metrics in evaluation.ood.items():
        estimates.update({f"{plain_name(outside)}: {key}": estimate for key, estimate in metrics.items()})
    return estimates


def _titles(methods: Mapping[str, Sequence[Evaluation]]) -> list[str]:
    names = plain_names(list(methods))
    if not _several(methods):
        return list(names)
    return [f"{name} ({len(seeds)})" for name, seeds in zip(names, methods.values(), strict=True)]


def _several(methods: Mapping[str, Sequence[Evaluation]]) -> bool:
    return any(len(seeds) > 1 for seeds in methods.values())


def _note(methods: Mapping[str, Sequence[Evaluation]]) -> str:
    estimates = (estimate for seeds in methods.values() for one in seeds for estimate in one.metrics.values())
    with_intervals = any(estimate.has_interval for estimate in estimates)
    if not _several(methods):
        return "In brackets the 95 % interval." if with_intervals else ""
    of_one = "the value and its 95 % interval" if with_intervals else "the value"
    return f"Mean ± standard deviation over seeds, in brackets behind the method their number; of one seed {of_one}."


def _spread_cell(seeds: Sequence[Mapping[str, Estimate]], metric: str) -> str:
    """Of one seed its value and interval; of several the mean, the standard deviation, and how many if not all."""
    there = [one[metric] for one in seeds if metric in one and not math.isnan(one[metric].value)]
    if not there:
        return "–"
    if len(there) == 1:
        shown = cell(there[0].value)
        interval = f" ({cell(there[0].low)} to {cell(there[0].high)})" if there[0].has_interval else ""
        return shown + interval + of_seeds(len(there), len(seeds))
    spread = spread_of([estimate.value for estimate in there])
    return f"{spread.mean:.4f} ± {spread.standard_deviation:.4f}{of_seeds(len(there), len(seeds))}"
