"""Accuracy and calibration of a classifier on corrupted data, by kind and severity."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffident.confidence import max_softmax
from diffident.corruptions import SEVERITIES, corrupted, kinds_of
from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.metrics import accuracy, ece
from diffident.metrics.inputs import check_labels, check_logits
from diffident.records import Predictions, positions_of
from diffident.storage.atomic import write_text

Predictor = Callable[[Dataset], Predictions]


@dataclass(frozen=True)
class CorruptionMetrics:
    """What a classifier is worth on one version of a data set.

    Attributes:
        accuracy: Share of right predictions.
        ece: Expected calibration error, 15 bins.
    """

    accuracy: float
    ece: float


@dataclass(frozen=True)
class Robustness:
    """What a classifier is worth on corrupted data.

    Attributes:
        clean: On the data as it is.
        corrupted: Kind, then severity, to the metrics there.
        num_samples: Size of the data set.
        seed: Of the corruptions.
    """

    clean: CorruptionMetrics
    corrupted: dict[str, dict[int, CorruptionMetrics]]
    num_samples: int
    seed: int

    @property
    def mean_corruption_error(self) -> float:
        """Mean corruption error: the mean over kinds of the mean error rate over severities."""
        return float(np.mean([_mean_error(severities) for severities in self.corrupted.values()]))

    @property
    def mean_ece(self) -> float:
        """Mean over kinds of the mean calibration error over severities."""
        return float(np.mean([np.mean([m.ece for m in severities.values()]) for severities in self.corrupted.values()]))

    def relative_corruption_error(self, baseline: "Robustness") -> float:
        """Mean over kinds of the error rate over severities as a part of the baseline's; below 1 is better than it.

        Raises:
            InputError: the baseline saw other kinds or severities, or makes no error on a kind.

        Reference:
            Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1, where the baseline is AlexNet.
        """
        seen = {kind: list(severities) for kind, severities in self.corrupted.items()}
        theirs = {kind: list(severities) for kind, severities in baseline.corrupted.items()}
        if seen != theirs:
            raise InputError("`baseline` must have the same kinds and severities; got others. Measure it likewise.")
        ratios = []
        for kind, severities in self.corrupted.items():
            reference = _mean_error(baseline.corrupted[kind])
            if not reference:
                raise InputError(f"`baseline` must make errors on every kind; got none on {kind!r}. Take another one.")
            ratios.append(_mean_error(severities) / reference)
        return float(np.mean(ratios))


def robustness(
    predict: Predictor,
    dataset: Dataset,
    *,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Predict the data set as it is and in every corrupted version.

    Args:
        predict: From a data set to its predictions; called once a version.
        dataset: Labelled images or texts, none of which was trained on.
        kinds: Corruptions; default: all of the modality.
        severities: Of 1 to 5.
        seed: Of the corruptions.
        progress: Called with the number of versions done and the number of all.

    Raises:
        InputError: data without labels, of another modality, or a wrong kind or severity.
        IdMismatchError: predictions of other samples.

    Example:
        >>> result = robustness(functools.partial(diffident.predict, "runs/a"), open_dataset("digits:test"))
        >>> result.corrupted["fog"][3].accuracy, result.mean_corruption_error
        (0.78, 0.21)
    """
    if dataset.labels is None or not len(dataset):
        raise InputError(f"`data` must have labels to be evaluated; got none at {dataset.name}. Give labelled data.")
    chosen = kinds_of(dataset.modality) if kinds is None else tuple(kinds)
    if not chosen or not severities:
        raise InputError("`kinds` and `severities` must name at least one; got none. Leave them out for all.")
    versions = [
        (kind, severity, corrupted(dataset, kind, severity, seed=seed)) for kind in chosen for severity in severities
    ]
    report = progress or (lambda done, total: None)
    clean = _measured(predict, dataset)
    table: dict[str, dict[int, CorruptionMetrics]] = {kind: {} for kind in chosen}
    for number, (kind, severity, version) in enumerate(versions, start=1):
        report(number, len(versions) + 1)
        table[kind][severity] = _measured(predict, version)
    report(len(versions) + 1, len(versions) + 1)
    return Robustness(clean, table, len(dataset), seed)


def robustness_to_dict(result: Robustness) -> dict[str, Any]:
    """Plain JSON values: clean, mean_corruption_error, mean_ece, and the metrics by kind and severity."""
    return {
        "num_samples": result.num_samples,
        "seed": result.seed,
        "mean_corruption_error": result.mean_corruption_error,
        "mean_ece": result.mean_ece,
        "clean": vars(result.clean),
        "corrupted": {
            kind: {str(severity): vars(metrics) for severity, metrics in severities.items()}
            for kind, severities in result.corrupted.items()
        },
    }


def write_robustness(result: Robustness, path: str | Path) -> None:
    """Write the result as JSON, atomically."""
    write_text(path, json.dumps(robustness_to_dict(result), indent=2, allow_nan=False) + "\n")


def _measured(predict: Predictor, dataset: Dataset) -> CorruptionMetrics:
    """Metrics of one version, its predictions joined by id; their labels are in the classes of the logits."""
    predictions = predict(dataset)
    rows = positions_of(predictions.ids, dataset.ids, what=dataset.name, where="the predictions")
    checked = check_logits(predictions.logits, "logits", probs_as="Give their logarithm.")
    logits = checked.values.double()[torch.from_numpy(rows)]
    given = dataset.labels if predictions.labels is None else predictions.labels.numpy()[rows]
    labels = check_labels(np.array(given), *logits.shape)
    errors = logits.argmax(dim=1) != labels
    return CorruptionMetrics(float(accuracy(errors)), float(ece(max_softmax(logits), errors)))


def _mean_error(severities: dict[int, CorruptionMetrics]) -> float:
    return float(np.mean([1 - metrics.accuracy for metrics in severities.values()]))
