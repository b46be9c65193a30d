"""The pictures of the results: bars of methods, and lines of what varies, with 95 % intervals over seeds."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from diffident.report.charts import Line, LineChart
from diffident.report.figures import draw_charts, save_figure
from experiments.summary import COLUMNS, Column, Mean, means_of
from experiments.sweeps import Sweep, sweeps_of

MOST_BYTES = 100_000
SHOWN = ("ece", "nll", "aurc")
# Of Okabe and Ito's colours, safe for colour-blind readers; controls and ensembles are hatched as well.
_COLOURS = {"ours": "#D55E00", "loss": "#0072B2", "control": "#E69F00", "ensemble": "#009E73", "ablation": "#0072B2"}
_HATCHES = {"control": "//", "ensemble": ".."}
_LOGARITHMIC = ("alpha", "temperature", "data.limit")


def images_of(results: dict[str, Any]) -> dict[str, str]:
    """The names of a recipe's pictures, with what they show."""
    names = ", ".join(column.title for column in _columns())
    images = {f"{results['recipe']}.png": f"{results['title']}: {names} of every method, 95 % intervals over seeds"}
    for sweep in sweeps_of(results):
        images[f"{results['recipe']}{sweep.image}"] = f"{results['title']}: {names} against {sweep.vary}"
    return images


def write_images(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw a recipe's pictures; each at most 100 kB."""
    names = list(images_of(results))
    plain = {name: method for name, method in results["methods"].items() if "point" not in method}
    figures = [draw_bars(plain, results["ours"])]
    for sweep in sweeps_of(results):
        several = {f"{name}, {sweep.shown(value)}": one for (name, value), one in sweep.methods.items()}
        figures.append(draw_lines(sweep) if sweep.is_numeric else draw_bars(several))
    paths = []
    for name, figure in zip(names, figures, strict=True):
        save_figure(figure, folder / name.removesuffix(".png"), ["png"])
        paths.append(_few_colours(folder / name))
    return paths


def draw_bars(methods: dict[str, dict[str, Any]], ours: str = "") -> Figure:
    """A panel for each of the metrics, a bar for each of the methods; that of ours stands out."""
    columns, names = _columns(), list(methods)
    figure = Figure(figsize=(11, 1.2 + 0.3 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))
    for axes, column in zip(panels, columns, strict=True):
        means = [means_of(method, "before").get(column.key) for method in methods.values()]
        for place, name, mean in zip(places, names, means, strict=True):
            role = "ours" if name == ours else methods[name]["role"]
            value, low, high = _scaled(column, mean)
            axes.barh(place, value, color=_COLOURS[role], hatch=_HATCHES.get(role), alpha=0.75, edgecolor="white")
            axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.set_yticks(places, names, fontsize=8)
        axes.set_xlabel(column.title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    return figure


def draw_lines(sweep: Sweep) -> Figure:
    """A panel for each of the metrics, a line for each of the methods."""
    columns = _columns()
    charts = []
    for column in columns:
        lines = []
        for method in dict.fromkeys(name for name, _ in sweep.methods):
            own = {value: one for (name, value), one in sweep.methods.items() if name == method}
            ends = [_scaled(column, means_of(one, "before").get(column.key)) for one in own.values()]
            value, low, high = (tuple(part) for part in zip(*ends, strict=True))
            lines.append(Line(method, tuple(map(float, own)), value, low, high))
        title = f"{column.title} against {sweep.vary}"
        charts.append(LineChart(column.key, title, "", sweep.vary, column.title, tuple(lines)))
    figure = draw_charts(charts)
    for axes in figure.axes:
        if sweep.vary in _LOGARITHMIC:
            axes.set_xscale("log")
            values = sorted({value for _, value in sweep.methods})
            axes.set_xticks(values, map(sweep.shown, values))  # usual ones are formulas, and shown as they are written
            axes.set_xticks([], minor=True)
    return figure


def _columns() -> list[Column]:
    return [column for column in COLUMNS if column.key in SHOWN]


def _scaled(column: Column, mean: Mean | None) -> tuple[float, float, float]:
    """The mean and the ends of its interval, as the column shows them; with one seed the ends are the mean."""
    if mean is None:
        return (np.nan, np.nan, np.nan)
    factor = 100 if column.percent else 1
    low, high = (mean.mean if np.isnan(end) else end for end in (mean.low, mean.high))
    return mean.mean * factor, low * factor, high * factor


def _few_colours(path: Path) -> Path:
    """The picture with a palette, which is a third of the size."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(48)
    small.save(path, optimize=True)
    return path
