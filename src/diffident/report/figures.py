"""The plots of a report as files for papers, drawn with matplotlib from the numbers that the page draws."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from diffident.report.building import Report
from diffident.report.charts import Chart, Histogram, LineChart, Matrix, Points, Ranges
from diffident.report.tables import write_tables
from diffident.storage.atomic import atomic_path

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's colours, safe for colour-blind readers; the page has the same in charts.js.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_DASHES = ("-", "--", ":", "-.")
_SCHEME = "cividis"
# More points than these are a curve: its range is an area and it has no dots.
_FEW_POINTS = 30
# A dollar sign in a class's name is no formula; the same numbers give the same bytes.
_SETTINGS: Any = {"text.parse_math": False, "svg.hashsalt": "diffident", "pdf.fonttype": 42}


def write_figures(report: Report, folder: str | Path) -> list[str]:
    """Write every plot as PNG, SVG and PDF, and every table as Markdown and LaTeX; the files' names."""
    folder = Path(folder)
    names = []
    for chart in report.charts:
        names += save_figure(draw_charts([chart]), folder / chart.key)
    return names + write_tables(report.tables, folder)


def draw_charts(charts: Sequence[Chart]) -> Figure:
    """A figure with a panel for each of the plots, side by side.

    Example:
        >>> figure = draw_charts([reliability_chart(methods), risk_coverage_chart(methods)])
    """
    widths = [max(4.6, 1.6 + 0.22 * len(chart.columns)) if isinstance(chart, Matrix) else 5.0 for chart in charts]
    heights = [_height(chart) for chart in charts]
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(sum(widths), max(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(charts), squeeze=False, width_ratios=widths)[0]
        for axes, chart in zip(panels, charts, strict=True):
            _DRAWERS[chart.kind](axes, chart)
            axes.set_title(chart.title)
            axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, stem: str | Path, formats: Sequence[str] = FORMATS) -> list[str]:
    """Write a figure in every format, atomically; the files' names."""
    names = []
    for kind in formats:
        path = Path(f"{stem}.{kind}")
        date = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        with matplotlib.rc_context(_SETTINGS), atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, metadata=date)
        names.append(path.name)
    return names


def _height(chart: Chart) -> float:
    if isinstance(chart, Ranges):
        return max(2.4, 1.2 + 0.22 * len(chart.names))
    return max(4.2, 1.4 + 0.22 * len(chart.rows)) if isinstance(chart, Matrix) else 4.2


def _draw_lines(axes: Axes, chart: LineChart) -> None:
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=1, linestyle="--")
    largest = max((count for line in chart.lines for count in line.counts), default=1.0)
    few = max(len(line.x) for line in chart.lines) <= _FEW_POINTS
    for number, line in enumerate(chart.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        style = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        x, y = np.asarray(line.x), np.asarray(line.y)
        axes.plot(x, y, color=colour, linestyle=style, linewidth=1.4, label=None if few else line.name)
        if line.low and few:
            axes.vlines(x, line.low, line.high, color=colour, linewidth=1, alpha=0.6)
        elif line.low:
            axes.fill_between(x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        if few:
            # The area is the share of the samples: bins of a handful are seen for what they are.
            sizes = 6 + 90 * np.asarray(line.counts) / largest if line.counts else 18
            axes.scatter(x, y, s=sizes, color=colour, label=line.name, linewidths=0)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    if chart.diagonal:
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
    if chart.categories:
        axes.set_xticks(range(len(chart.categories)), chart.categories)
    legend = axes.legend(frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([24])


def _draw_histogram(axes: Axes, chart: Histogram) -> None:
    edges = np.asarray(chart.edges)
    for number, (name, values) in enumerate(chart.groups):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.stairs(values, edges, color=colour, fill=True, alpha=0.35)
        axes.stairs(values, edges, color=colour, label=name)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.legend(frameon=False, fontsize=8)


def _draw_ranges(axes: Axes, chart: Ranges) -> None:
    places = np.arange(len(chart.names))
    least, low, median, high, most = np.asarray(chart.quantiles).T
    axes.hlines(places, least, most, color=_COLOURS[0], linewidth=1.2)
    axes.hlines(places, low, high, color=_COLOURS[0], linewidth=6, alpha=0.5)
    axes.plot(median, places, "o", color=_COLOURS[1], markersize=4)
    axes.set_yticks(places, chart.names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=chart.x_label)


def _draw_matrix(axes: Axes, chart: Matrix) -> None:
    values = np.asarray(chart.values)
    share = chart.value_label == "share"
    # The square root, so that rare confusions are seen beside a strong diagonal.
    scale = PowerNorm(0.5, 0, 1) if share else Normalize()
    image = axes.imshow(values, cmap=_SCHEME, aspect="auto", interpolation="nearest", norm=scale)
    size = 8 if len(chart.columns) <= 15 else 5
    axes.set_xticks(range(len(chart.columns)), chart.columns, rotation=60, ha="right", fontsize=size)
    axes.set_yticks(range(len(chart.rows)), chart.rows, fontsize=size)
    if values.size <= 225:
        for (row, column), value in np.ndenumerate(values):
            if math.isfinite(value):
                text = f"{100 * value:.0f}" if share else f"{value:.2f}"
                ink = "white" if float(scale(value)) < 0.6 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=6, color=ink)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label)
    axes.figure.colorbar(image, ax=axes, label=chart.value_label)


def _draw_points(axes: Axes, chart: Points) -> None:
    largest = max(chart.sizes, default=1.0)
    strongest = max((weight for _, _, weight in chart.links), default=1.0)
    for first, second, weight in chart.links:
        ends = [chart.x[first], chart.x[second]], [chart.y[first], chart.y[second]]
        axes.plot(*ends, color="#606468", alpha=0.35, linewidth=0.4 + 5 * weight / strongest, zorder=1)
    sizes = 10 + 110 * np.asarray(chart.sizes) / largest
    dots = axes.scatter(chart.x, chart.y, s=sizes, c=chart.colours, cmap=_SCHEME, edgecolors="#303438", zorder=2)
    if len(chart.names) <= 60:
        for name, x, y in zip(chart.names, chart.x, chart.y, strict=True):
            axes.annotate(name, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=7, zorder=3)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, xticks=[], yticks=[])
    axes.margins(0.15)
    axes.figure.colorbar(dots, ax=axes, label=chart.colour_label)


_DRAWERS = {
    "lines": _draw_lines,
    "histogram": _draw_histogram,
    "ranges": _draw_ranges,
    "matrix": _draw_matrix,
    "points": _draw_points,
}
