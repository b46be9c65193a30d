"""Figures for people, drawn from the same functions that compute the numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from torch import Tensor

from diffident.confidence import max_softmax
from diffident.metrics.calibration import ece, reliability_bins
from diffident.metrics.selective import aurc, risk_coverage
from diffident.storage.atomic import atomic_path

# Okabe and Ito's colours, safe for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def reliability_and_risk_figure(predictions: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Reliability diagram and risk-coverage curve of several classifiers.

    Args:
        predictions: Name to (logits (n, c), labels (n,)); several seeds of one method may be stacked.

    Returns:
        A figure with two panels; the legends carry the expected calibration error and the area under the curve.
    """
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    reliability, risk = figure.subplots(1, 2)
    reliability.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=1, linestyle="--")
    for (name, (logits, labels)), colour in zip(predictions.items(), _COLOURS, strict=False):
        confidence = max_softmax(logits)
        errors = logits.argmax(dim=1) != labels
        bins = reliability_bins(confidence, errors)
        filled = np.asarray(bins.counts) > 0
        label = f"{name} (ECE {float(ece(confidence, errors)):.3f})"
        x, y = np.asarray(bins.mean_confidence)[filled], np.asarray(bins.accuracy)[filled]
        counts = np.asarray(bins.counts)[filled]
        reliability.plot(x, y, color=colour, linewidth=1, alpha=0.6)
        # The area is the bin's share of the samples: bins of a handful are seen for what they are.
        reliability.scatter(x, y, s=4 + 300 * counts / counts.sum(), color=colour, label=label, alpha=0.8, linewidths=0)
        coverage, selective_risk = risk_coverage(confidence, errors)
        label = f"{name} (AURC {float(aurc(confidence, errors)):.4f})"
        risk.plot(np.asarray(coverage), np.asarray(selective_risk), color=colour, label=label)
    reliability.set(
        xlabel="confidence (area: share of samples)",
        ylabel="accuracy",
        title="Reliability",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    risk.set(xlabel="coverage", ylabel="selective risk", title="Risk against coverage", xlim=(0, 1))
    for axes in (reliability, risk):
        legend = axes.legend(frameon=False, fontsize=8)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([24])
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
