"""Difficulty methods, one file each, all with the verbs `fit`, `score` and `describe` of `protocol`.

The registry loads a method on first use, so that help and error messages import no tensor library.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffident.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from diffident.difficulties.combination import score_combined
    from diffident.difficulties.scoring import difficulty, score_features

__all__ = ["METHODS", "MethodKind", "difficulty", "find_method", "open_method", "score_combined", "score_features"]

_HOME = {"difficulty": "scoring", "score_features": "scoring", "score_combined": "combination"}


@dataclass(frozen=True)
class MethodKind:
    """What can be asked of a method by name.

    Attributes:
        module: Its file, without the ending.
        options: Names of its settings.
        summary: One line for lists of methods.
        needs: Name of what `fit` must be given beside features and labels, if anything.
        iterates: Whether `fit` passes over the samples in memory many times, and therefore takes `progress` too.
    """

    module: str
    options: tuple[str, ...]
    summary: str
    needs: str | None = None
    iterates: bool = False


METHODS: dict[str, MethodKind] = {
    "rmd": MethodKind(
        "rmd", ("shrinkage",), "relative Mahalanobis distance: the label's Gaussian minus the background"
    ),
    "posterior": MethodKind(
        "posterior",
        ("shrinkage", "robust"),
        "negative log-posterior of the label under the Gaussians, fitted again without wrong labels",
    ),
    "squared-distance": MethodKind(
        "squared_distance", ("shrinkage",), "squared Mahalanobis distance to the label's Gaussian alone"
    ),
    "knn": MethodKind(
        "knn", ("neighbours", "temperature", "space", "index"), "label disagreement among the nearest neighbours"
    ),
    "kmeans": MethodKind(
        "kmeans", ("clusters", "dimensions"), "squared distance to the label's centroids minus that to another class's"
    ),
    "gmm": MethodKind(
        "gmm",
        ("components", "dimensions"),
        "log-likelihood of a background mixture minus that of the label's mixture",
        iterates=True,
    ),
    "self-confidence": MethodKind(
        "self_confidence",
        ("folds", "ridge", "seed"),
        "negative log-probability of a cross-validated linear probe",
        iterates=True,
    ),
    "zero-shot": MethodKind(
        "zero_shot",
        (),
        "cosine with the best other class's text minus that with the label's text",
        "label_features",
    ),
    "training-dynamics": MethodKind(
        "training_dynamics", ("statistic",), "area under the margin, forgetting or EL2N of a training run", "dynamics"
    ),
}


def find_method(name: str) -> MethodKind:
    """What is known of a method without loading it.

    Raises:
        InputError: no such method; names near ones.
    """
    if name not in METHODS:
        raise InputError(f"`method` must be a difficulty method; got {name!r}. {did_you_mean(name, METHODS)}")
    return METHODS[name]


def open_method(name: str) -> Any:
    """The module of a method: `fit`, `score` and `describe`."""
    return importlib.import_module(f"diffident.difficulties.{find_method(name).module}")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffident.difficulties' has no attribute {name!r}")
    return getattr(importlib.import_module(f"diffident.difficulties.{_HOME[name]}"), name)
