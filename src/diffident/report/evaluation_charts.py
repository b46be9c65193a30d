"""Plots of evaluations: metrics by decile of difficulty and by corruption; and the table of a comparison."""

import math
from collections.abc import Mapping, Sequence

from diffident.comparison import Comparison
from diffident.records import Estimate, Evaluation
from diffident.report.charts import Chart, Line, LineChart, Matrix, Table, numbers, plain_name, plain_names
from diffident.report.evaluation_tables import by_method

# Metrics that are drawn against difficulty, where an evaluation has them.
_TITLES = {"accuracy": "Accuracy", "nll": "NLL", "ece": "ECE", "aurc": "AURC"}
_SHOWN = ("accuracy", "nll", "brier", "ece", "classwise_ece", "aurc", "auroc_errors")


def evaluation_charts(evaluations: Sequence[tuple[str, int, Evaluation]]) -> list[Chart]:
    """Every metric by decile of difficulty, one line a method; heat maps of the corruptions of each method."""
    methods = by_method(evaluations)
    charts: list[Chart] = []
    for key in _TITLES:
        chart = difficulty_chart(methods, key)
        if chart is not None:
            charts.append(chart)
    return charts


def difficulty_chart(methods: Mapping[str, Sequence[Evaluation]], key: str) -> LineChart | None:
    """A metric by group of difficulty: of one seed with its interval, of several their mean and their range."""
    lines, places = [], 0
    ranges: set[str] = set()
    for name, seeds in methods.items():
        groups = [evaluation.by_difficulty for evaluation in seeds if evaluation.by_difficulty]
        if not groups or any(key not in group.metrics for one in groups for group in one):
            continue
        length = min(map(len, groups))
        places = max(places, length)
        columns = [[one[place].metrics[key] for one in groups] for place in range(length)]
        lines.append(_spread_line(plain_name(name), columns, [groups[0][place].num_samples for place in range(length)]))
        if lines[-1].low:
            ranges.add("a 95 % interval" if len(groups) == 1 else "that of the seeds")
    if not lines:
        return None
    range_of = f"; the range is {', or '.join(sorted(ranges))}" if ranges else ""
    return LineChart(
        key=f"{key.replace('_', '-')}-by-difficulty",
        title=f"{_TITLES[key]} by difficulty",
        note=f"Test samples in equal groups, easiest left{range_of}.",
        x_label="difficulty",
        y_label=key,
        lines=tuple(lines),
        categories=_deciles(places),
    )


def _deciles(count: int) -> tuple[str, ...]:
    return tuple("easiest" if n == 0 else "hardest" if n == count - 1 else str(n + 1) for n in range(count))


def _spread_line(name: str, columns: Sequence[Sequence[Estimate]], counts: Sequence[int]) -> Line:
    values = [[estimate.value for estimate in column] for column in columns]
    low, high = [], []
    if len(columns[0]) > 1:
        low, high = [min(column) for column in values], [max(column) for column in values]
    elif any(column[0].has_interval for column in columns):
        low, high = [column[0].low for column in columns], [column[0].high for column in columns]
    means = [math.fsum(column) / len(column) for column in values]
    return Line(name, numbers(range(len(columns))), numbers(means), numbers(low), numbers(high), numbers(counts))


Grid = Mapping[tuple[str, int], Mapping[str, float]]
"""Kind and severity of a corruption, then accuracy and ece."""


def corruption_charts(methods: Mapping[str, Grid]) -> list[Matrix]:
    """Accuracy and calibration error by corruption and severity, of every method."""
    charts = []
    for number, (name, grid) in enumerate(methods.items()):
        kinds = tuple(dict.fromkeys(kind for kind, _ in grid))
        severities = tuple(sorted({severity for _, severity in grid}))
        charts += [_corruption_chart(number, name, grid, kinds, severities, key) for key in ("accuracy", "ece")]
    return charts


def _corruption_chart(
    number: int, name: str, grid: Grid, kinds: tuple[str, ...], severities: tuple[int, ...], key: str
) -> Matrix:
    def value(kind: str, severity: int) -> float:
        return grid.get((kind, severity), {}).get(key, math.nan)

    return Matrix(
        key=f"{key}-by-corruption-{number}",
        title=f"{_TITLES[key]} by corruption: {plain_name(name)}",
        note="Each corruption at each severity; 1 is the mildest.",
        x_label="severity",
        y_label="corruption",
        rows=plain_names(kinds),
        columns=tuple(map(str, severities)),
        values=tuple(numbers([value(kind, severity) for severity in severities]) for kind in kinds),
        value_label=key,
    )


def comparison_table(comparison: Comparison) -> Table:
    """Every method's metrics, and under it the paired differences to the baseline."""
    shown = [key for key in _SHOWN if key in comparison.metrics]
    shown += [key for key in comparison.metrics if key.endswith("/auroc")]
    rows = []
    for row in comparison.rows:
        rows.append((f"{row.name} ({row.num_seeds})", *(row.metrics[key].shown() for key in shown)))
        if row.differences:
            differences = (row.differences[key].shown(sign="+") for key in shown)
            rows.append((f"{row.name} minus {comparison.baseline}", *differences))
    several = any(row.num_seeds > 1 for row in comparison.rows)
    what = "Mean ± standard deviation over seeds; in brackets the number of seeds." if several else "One seed each."
    return Table("comparison", "Methods", ("method", *shown), tuple(rows), what)
