"""Detectors of out-of-distribution samples, one file each, with the verbs `fit`, `score` and `describe` of `protocol`.

The registry loads a detector on first use, so that help and error messages import no tensor library.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffident.options import check_choice

if TYPE_CHECKING:
    from diffident.detectors.fitting import Detector, fit_detector, ood_score

__all__ = [
    "DETECTORS",
    "PEER_PREFIX",
    "Detector",
    "DetectorKind",
    "find_detector",
    "fit_detector",
    "ood_score",
    "open_detector",
]

PEER_PREFIX = "pytorch-ood:"


@dataclass(frozen=True)
class DetectorKind:
    """What can be asked of a detector by name.

    Attributes:
        module: Its file, without the ending.
        options: Names of its settings.
        summary: One line for lists of detectors.
        fits_on: What `fit` must be given, of `logits`, `features` and `labels`; nothing where there is nothing to fit.
        scores: What `score` must be given.
    """

    module: str
    options: tuple[str, ...]
    summary: str
    fits_on: tuple[str, ...]
    scores: tuple[str, ...]


_LOGITS, _FEATURES, _LABELLED = ("logits",), ("features",), ("features", "labels")

DETECTORS: dict[str, DetectorKind] = {
    "max-softmax": DetectorKind("max_softmax", (), "minus the largest probability", (), _LOGITS),
    "max-logit": DetectorKind("max_logit", (), "minus the largest logit", (), _LOGITS),
    "energy": DetectorKind("energy", ("temperature",), "minus the log of the sum of exp(logits)", (), _LOGITS),
    "entropy": DetectorKind("entropy", (), "entropy of the probabilities", (), _LOGITS),
    "generalized-entropy": DetectorKind(
        "generalized_entropy",
        ("gamma", "largest"),
        "sum of (p (1 - p))^gamma over the largest probabilities",
        (),
        _LOGITS,
    ),
    "relative-mahalanobis": DetectorKind(
        "relative_mahalanobis",
        ("shrinkage",),
        "squared distance to the nearest class's Gaussian minus that to the background",
        _LABELLED,
        _FEATURES,
    ),
    "mahalanobis": DetectorKind(
        "mahalanobis", ("shrinkage",), "squared distance to the nearest class's Gaussian", _LABELLED, _FEATURES
    ),
    "vim": DetectorKind(
        "vim",
        ("dimensions", "weights", "offsets"),
        "scaled distance from the principal subspace minus the log of the sum of exp(logits)",
        ("features", "logits"),
        ("features", "logits"),
    ),
    "knn": DetectorKind(
        "knn",
        ("neighbours", "index"),
        "distance to the k-th nearest training sample on the sphere",
        _FEATURES,
        _FEATURES,
    ),
}


def find_detector(name: str) -> DetectorKind:
    """What is known of a detector without loading it; of pytorch-ood's only after loading that.

    Raises:
        InputError: no such detector; names near ones.
        MissingDependencyError: pytorch-ood is not installed.
    """
    if name.startswith(PEER_PREFIX):
        from diffident.detectors.pytorch_ood import kind_of

        return kind_of(name.removeprefix(PEER_PREFIX))
    check_choice("detector", name, (*DETECTORS, f"{PEER_PREFIX}NAME"))
    return DETECTORS[name]


def open_detector(name: str) -> Any:
    """The module of a detector: `fit`, `score` and `describe`."""
    return importlib.import_module(f"diffident.detectors.{find_detector(name).module}")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'diffident.detectors' has no attribute {name!r}")
    return getattr(importlib.import_module("diffident.detectors.fitting"), name)
