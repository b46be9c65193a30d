"""Plots of predictions and of training: every curve is what the metric of its name is computed from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from diffident.confidence import max_softmax
from diffident.metrics.calibration import bin_edges, bin_of, ece, reliability_bins
from diffident.metrics.selective import aurc, risk_coverage
from diffident.records import Predictions
from diffident.report.audit_charts import confusion
from diffident.report.charts import Chart, Histogram, Line, LineChart, numbers, plain_name, plain_names

# Points of a risk-coverage curve that are drawn: a step of 1/200 is below a pixel.
_CURVE_POINTS = 200
_NUM_BINS = 15
_HISTOGRAM_BINS = 25


@dataclass(frozen=True)
class Method:
    """The predictions of one method on one test set, those of several seeds one after the other.

    Attributes:
        name: The method's name.
        logits: float (n, c).
        labels: int64 (n,).
        ood: Logits on out-of-distribution sets by name, float (m, c).
        label_names: Name of each class, or None.
        sizes: Samples of each seed.
    """

    name: str
    logits: Tensor
    labels: Tensor
    ood: dict[str, Tensor] = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    sizes: tuple[int, ...] = ()

    @property
    def errors(self) -> Tensor:
        """Which predictions are wrong, bool (n,)."""
        return self.logits.argmax(dim=1) != self.labels


def stack_predictions(name: str, seeds: Sequence[Predictions], ood: Sequence[Mapping[str, Predictions]]) -> Method:
    """The seeds of a method as one; out-of-distribution sets by name."""
    outside: dict[str, list[Tensor]] = {}
    for one in ood:
        for key, predictions in one.items():
            outside.setdefault(key, []).append(predictions.logits)
    labels = [one.labels for one in seeds if one.labels is not None]
    return Method(
        name,
        torch.cat([one.logits for one in seeds]),
        torch.cat(labels),
        {key: torch.cat(values) for key, values in outside.items()},
        seeds[0].label_names,
        tuple(len(one) for one in seeds),
    )


def _mean_over_seeds(
    measure: Callable[[Tensor, Tensor], Tensor], confidence: Tensor, errors: Tensor, sizes: tuple[int, ...]
) -> float:
    """Mean of a metric over the seeds, as tables have it."""
    return float(np.mean([float(measure(*pair)) for pair in _by_seed(confidence, errors, sizes)]))


def _by_seed(confidence: Tensor, errors: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    parts = list(sizes or (len(errors),))
    return list(zip(confidence.split(parts), errors.split(parts), strict=True))


def _wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of so many samples, which need not be whole."""
    z = float(norm.ppf(0.975))
    centre, scale = share + z**2 / (2 * count), 1 + z**2 / count
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def prediction_charts(methods: Sequence[Method]) -> list[Chart]:
    """Reliability and risk-coverage of all methods; confidence and confusion of each."""
    if not methods:
        return []
    charts: list[Chart] = [reliability_chart(methods), risk_coverage_chart(methods)]
    for number, method in enumerate(methods):
        charts.append(confidence_histogram(method, number))
    for number, method in enumerate(methods):
        charts.append(confusion_matrix(method, number))
    return charts


def reliability_chart(methods: Sequence[Method]) -> LineChart:
    """Accuracy against confidence in 15 bins with Wilson's 95 % intervals; its name has the ECE, mean over seeds."""
    several = any(len(method.sizes) > 1 for method in methods)
    lines = []
    for method in methods:
        confidence, errors = max_softmax(method.logits), method.errors
        bins = reliability_bins(confidence, errors, _NUM_BINS)
        filled = bins.counts > 0
        counts = bins.counts[filled].round().long().tolist()
        # Seeds see the same samples, which a bin has once each, on average.
        seen = zip(bins.accuracy[filled].tolist(), counts, strict=True)
        low, high = zip(*(_wilson(share, count / max(1, len(method.sizes))) for share, count in seen), strict=True)
        mean_ece = _mean_over_seeds(partial(ece, num_bins=_NUM_BINS), confidence, errors, method.sizes)
        lines.append(
            Line(
                name=f"{plain_name(method.name)} (ECE {mean_ece:.3f})",
                x=numbers(bins.mean_confidence[filled].numpy()),
                y=numbers(bins.accuracy[filled].numpy()),
                low=numbers(low),
                high=numbers(high),
                counts=numbers(counts),
            )
        )
    return LineChart(
        key="reliability",
        title="Reliability",
        note="On the dashed line, confidence is what it claims to be; below it, the classifier is too sure of itself."
        + (" Points are of all seeds together; the ECE is the seeds' mean." if several else ""),
        x_label="confidence",
        y_label="accuracy",
        lines=tuple(lines),
        diagonal=True,
    )


def risk_coverage_chart(methods: Sequence[Method]) -> LineChart:
    """The error rate among the surest share of the samples, mean over seeds; the name carries the AURC."""
    lines = []
    for method in methods:
        confidence, errors = max_softmax(method.logits), method.errors
        coverage, risk = _mean_risk_coverage(_by_seed(confidence, errors, method.sizes))
        count = len(coverage)
        kept = np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(int))
        name = f"{plain_name(method.name)} (AURC {_mean_over_seeds(aurc, confidence, errors, method.sizes):.4f})"
        lines.append(Line(name, numbers(coverage[kept]), numbers(risk[kept]), counts=numbers(kept + 1)))
    return LineChart(
        key="risk-coverage",
        title="Risk against coverage",
        note="Error rate where only the surest samples are answered: lower is better; it should rise to the right.",
        x_label="coverage",
        y_label="selective risk",
        lines=tuple(lines),
    )


def _mean_risk_coverage(seeds: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Coverage, and the mean of the seeds' risks there: under it lies the mean of their AURC."""
    curves = [risk_coverage(*one) for one in seeds]
    coverage = max((found.numpy() for found, _ in curves), key=len)
    risks = np.stack([np.interp(coverage, found.numpy(), risk.numpy()) for found, risk in curves])
    return coverage, risks.mean(axis=0)


def confidence_histogram(method: Method, number: int) -> Histogram:
    """Shares of right, wrong and out-of-distribution predictions by confidence."""
    confidence, errors = max_softmax(method.logits), method.errors
    groups = {"right": confidence[~errors], "wrong": confidence[errors]}
    outside = zip(plain_names(list(method.ood)), method.ood.values(), strict=True)
    groups.update({f"out-of-distribution: {name}": max_softmax(logits) for name, logits in outside})
    counts = {
        name: torch.bincount(bin_of(values, _HISTOGRAM_BINS), minlength=_HISTOGRAM_BINS)
        for name, values in groups.items()
    }
    return Histogram(
        key=f"confidence-{number}",
        title=f"Confidence: {plain_name(method.name)}",
        note="Share of each group by confidence; wrong and out-of-distribution ones should lie to the left.",
        x_label="confidence",
        y_label="share of the group",
        edges=numbers(bin_edges(_HISTOGRAM_BINS).numpy()),
        groups=tuple((name, numbers((count / count.sum().clamp_min(1)).numpy())) for name, count in counts.items()),
        counts=tuple(numbers(count.numpy()) for count in counts.values()),
    )


def confusion_matrix(method: Method, number: int):
    """Share of each true class that is predicted as each class."""
    names = method.label_names or tuple(str(label) for label in range(method.logits.shape[1]))
    return confusion(
        method.labels.numpy(),
        method.logits.argmax(dim=1).numpy(),
        plain_names(names),
        key=f"confusion-{number}",
        title=f"Confusion: {plain_name(method.name)}",
        note="Share of the samples of a class (row) that are predicted as a class (column).",
        labels=("predicted class", "true class"),
    )


def training_charts(logs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> list[Chart]:
    """Mean over the seeds of every measured number by epoch; the least and the most of the seeds as its range.

    Args:
        logs: For each method, for each seed, the lines of `metrics.jsonl`.
    """
    titles = {
        "train_loss": "Training loss",
        "train_accuracy": "Training accuracy",
        "validation_loss": "Validation loss",
        "validation_accuracy": "Validation accuracy",
        "learning_rate": "Learning rate",
        "doubt": "Doubt",
        "share_shown": "Share of each class shown",
    }
    charts: list[Chart] = []
    for key, title in titles.items():
        lines = [_training_line(plain_name(name), seeds, key) for name, seeds in logs.items()]
        lines = [line for line in lines if line is not None]
        if lines:
            charts.append(
                LineChart(
                    key=key.replace("_", "-"),
                    title=title,
                    note="Mean over the seeds; low and high are the least and the most of them.",
                    x_label="epoch",
                    y_label=title.lower(),
                    lines=tuple(lines),
                )
            )
    return charts


def _training_line(name: str, seeds: Sequence[Sequence[Mapping[str, Any]]], key: str) -> Line | None:
    values: dict[int, list[float]] = {}
    for log in seeds:
        for line in log:
            if key in line and "epoch" in line:
                values.setdefault(int(line["epoch"]), []).append(float(line[key]))
    if not values:
        return None
    epochs = sorted(values)
    means = [float(np.mean(values[epoch])) for epoch in epochs]
    several = len(seeds) > 1
    low = numbers([min(values[epoch]) for epoch in epochs]) if several else ()
    high = numbers([max(values[epoch]) for epoch in epochs]) if several else ()
    return Line(name, numbers(epochs), numbers(means), low, high)
