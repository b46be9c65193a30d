"""What a plot shows, as numbers: the one source of the page's plots, of the figures for papers and of their tables."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """Points in their order, joined.

    Attributes:
        name: In the legend.
        x: Abscissa of each point, or its place in `LineChart.categories`.
        y: Ordinate; NaN leaves a gap.
        low: Lower ends of the 95 % intervals, or empty.
        high: Upper ends, or empty.
        counts: Samples behind each point, or empty.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    counts: Numbers = ()


@dataclass(frozen=True)
class LineChart:
    """Lines on common axes.

    Attributes:
        key: Name of the figure's file; lower case and hyphens.
        title: What it is.
        note: How to read it, in a sentence.
        x_label: Of the abscissa.
        y_label: Of the ordinate.
        lines: At least one.
        diagonal: Whether y = x is where a perfect one lies.
        categories: Names of x = 0, 1, ..., or empty where x is a number.
    """

    key: str
    title: str
    note: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    diagonal: bool = False
    categories: tuple[str, ...] = ()
    kind: str = "lines"


@dataclass(frozen=True)
class Histogram:
    """Counts of several groups in the same bins.

    Attributes:
        edges: Edges of the bins (b + 1,).
        groups: Name and share or count of each group by bin.
        counts: Samples of each group by bin, which the pointer shows.
    """

    key: str
    title: str
    note: str
    x_label: str
    y_label: str
    edges: Numbers
    groups: tuple[tuple[str, Numbers], ...]
    counts: tuple[Numbers, ...]
    kind: str = "histogram"


@dataclass(frozen=True)
class Ranges:
    """Spread of one number by class: 5, 25, 50, 75 and 95 % quantiles.

    Attributes:
        names: Of the rows, top to bottom.
        quantiles: Five numbers for each row.
        counts: Samples of each row.
        marks: A further number of each row, named `mark_label`.
    """

    key: str
    title: str
    note: str
    x_label: str
    y_label: str
    names: tuple[str, ...]
    quantiles: tuple[Numbers, ...]
    counts: Numbers
    marks: Numbers = ()
    mark_label: str = ""
    kind: str = "ranges"


@dataclass(frozen=True)
class Matrix:
    """A heat map.

    Attributes:
        rows: Names, top to bottom.
        columns: Names, left to right.
        values: What the colour shows, a tuple for each row; NaN is blank.
        counts: Samples behind each cell, or empty.
        value_label: What the values are.
    """

    key: str
    title: str
    note: str
    x_label: str
    y_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[Numbers, ...]
    counts: tuple[Numbers, ...] = ()
    value_label: str = "share"
    kind: str = "matrix"


@dataclass(frozen=True)
class Points:
    """Named points in the plane, with a colour and an area.

    Attributes:
        names: Of the points.
        x: Abscissa.
        y: Ordinate.
        colours: What the colour shows.
        sizes: What the area shows.
        links: Pairs of points and what the line's width shows, largest first.
    """

    key: str
    title: str
    note: str
    x_label: str
    y_label: str
    names: tuple[str, ...]
    x: Numbers
    y: Numbers
    colours: Numbers
    sizes: Numbers
    colour_label: str
    size_label: str
    links: tuple[tuple[int, int, float], ...] = ()
    kind: str = "points"


Chart = LineChart | Histogram | Ranges | Matrix | Points


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first row's cells name the columns, and the first column is left-aligned.

    Attributes:
        key: Name of its file; lower case and hyphens.
        title: What it is.
        header: One name for each column.
        rows: As many cells each.
        note: How to read it, or empty.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def numbers(values: Sequence[Any] | np.ndarray, digits: int = 5) -> Numbers:
    """Counts as they are; floats with so many significant digits: more than a plot shows, and the page stays small."""
    found = np.asarray(values)
    if found.dtype.kind in "iu":
        return tuple(map(float, found.tolist()))
    array = found.astype(np.float64).tolist()
    return tuple(float(f"{value:.{digits}g}") if math.isfinite(value) else math.nan for value in array)


def plain_name(name: str, most: int = 40) -> str:
    """A name that can stand in a plot: one short line, nothing that turns the direction of what is beside it."""
    shown = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in name[: 4 * most])
    shown = "".join(c for c in shown if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn"))
    shown = " ".join(shown.split()) or "(no name)"
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def slug(name: str) -> str:
    """A name as part of a file's name: lower case, digits and hyphens."""
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in name[:200].lower())
    return "-".join(kept.split())[:60] or "unnamed"


def plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """`plain_name` of each, numbered where two have become one."""
    shown = [plain_name(name) for name in names]
    twice = {name for name in shown if shown.count(name) > 1} if len(set(shown)) < len(shown) else set()
    return tuple(f"{name} ({number})" if name in twice else name for number, name in enumerate(shown))


def table_of_chart(chart: Chart) -> Table:
    """The numbers of a plot as a table, for those who read rather than look."""
    header, rows = _TABLES[chart.kind](chart)
    return Table(chart.key, chart.title, header, tuple(rows), chart.note)


def cell(value: float, digits: int = 4) -> str:
    """A number in a table; a dash where there is none."""
    if math.isnan(value):
        return "–"
    if float(value).is_integer() and abs(value) >= 1:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}" if abs(value) >= 10.0**-digits or not value else f"{value:.2g}"


def _line_rows(chart: LineChart):
    has_interval = any(line.low for line in chart.lines)
    has_counts = any(line.counts for line in chart.lines)
    header = ["", chart.x_label, chart.y_label]
    header += ["low", "high"] if has_interval else []
    header += ["samples"] if has_counts else []
    rows = []
    for line in chart.lines:
        for place, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            row = [line.name, chart.categories[int(x)] if chart.categories else cell(x), cell(y)]
            if has_interval:
                row += [cell(line.low[place]), cell(line.high[place])] if line.low else ["–", "–"]
            if has_counts:
                row.append(cell(line.counts[place]) if line.counts else "–")
            rows.append(tuple(row))
    return tuple(header), rows


def _histogram_rows(chart: Histogram):
    header = ("from", "to", *(name for name, _ in chart.groups))
    return header, [
        (cell(low), cell(high), *(cell(group[place]) for group in chart.counts))
        for place, (low, high) in enumerate(zip(chart.edges, chart.edges[1:], strict=False))
    ]


def _range_rows(chart: Ranges):
    header = ["", "5 %", "25 %", "median", "75 %", "95 %", "samples"]
    rows = []
    for place, name in enumerate(chart.names):
        row = [name, *(cell(value, 2) for value in chart.quantiles[place]), cell(chart.counts[place])]
        rows.append(tuple([*row, cell(chart.marks[place])] if chart.marks else row))
    return tuple([*header, chart.mark_label] if chart.marks else header), rows


def _matrix_rows(chart: Matrix):
    rows = [(name, *(cell(v, 3) for v in row)) for name, row in zip(chart.rows, chart.values, strict=True)]
    return ("", *chart.columns), rows


def _point_rows(chart: Points):
    header = ("", chart.x_label, chart.y_label, chart.colour_label, chart.size_label)
    columns = zip(chart.x, chart.y, chart.colours, chart.sizes, strict=True)
    return header, [(name, *map(cell, row)) for name, row in zip(chart.names, columns, strict=True)]


_TABLES = {
    "lines": _line_rows,
    "histogram": _histogram_rows,
    "ranges": _range_rows,
    "matrix": _matrix_rows,
    "points": _point_rows,
}
