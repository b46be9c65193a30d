"""Difficulty methods, one file each, all with `fit(blocks, labels, ...)` and `score(state, blocks, labels)`."""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties import rmd
from diffident.difficulties.weights import scaled_rank
from diffident.errors import InputError, ShapeError, did_you_mean
from diffident.gaussian import Gaussians, relative_squared_distance
from diffident.records import DifficultyTable

METHODS = {"rmd": rmd}


def difficulty(gaussians: Gaussians, values: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Difficulty of labelled samples: squared distance to the label's Gaussian minus that to the background.

    Returns:
        float64 (n,); higher is harder; mean 0 over the fitted data without shrinkage.

    Example:
        >>> gaussians = fit_gaussians(features.values, features.labels)
        >>> difficulty(gaussians, features.values, features.labels).shape
        torch.Size([50000])
    """
    return relative_squared_distance(gaussians, values, labels)


def score_features(
    blocks: Callable[[], Iterable[Tensor]],
    ids: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int | None = None,
    method: str = "rmd",
    shrinkage: float | str = "auto",
    encoder: str = "unknown",
    label_names: tuple[str, ...] | None = None,
) -> DifficultyTable:
    """Difficulty of every sample of a data set: one pass over its features to fit, one to score.

    Args:
        blocks: Gives the features anew at each call, in blocks [b, d] in the order of `ids`.
        ids: Stable sample ids (n,).
        labels: Classes, int64 (n,).
        num_classes: Default: one per label name, else the largest label plus one.
        method: A name in `METHODS`.
        shrinkage: In [0, 1] or `auto`.
        encoder: The encoder's name, for the metadata.
        label_names: Name of each class, or None.

    Raises:
        InputError: an unknown method, no samples, features or labels that cannot be used.
    """
    if method not in METHODS:
        raise InputError(f"`method` must be a difficulty method; got {method!r}. {did_you_mean(method, METHODS)}")
    if not len(ids):
        raise InputError("`ids` must name at least one sample; got none. Extract features first.")
    if len(labels) != len(ids):
        raise ShapeError(f"`labels` must be one per id; got {len(labels)} for {len(ids)}. Match them by id.")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if label_names is None else len(label_names)
    state = METHODS[method].fit(blocks(), labels, num_classes, shrinkage)
    values, nearest, margin = METHODS[method].score(state, blocks(), labels)
    metadata = {
        "method": method,
        "encoder": encoder,
        "num_samples": len(ids),
        "num_features": len(state.overall_mean),
        "num_classes": num_classes,
        "shrinkage": state.shrinkage,
        "shrinkage_choice": state.shrinkage_choice,
        "rank": state.rank,
        "condition_number": state.condition_number,
        "num_directions": len(state.ratios),
        "singleton_classes": len(state.singleton_classes),
        "absent_classes": len(state.absent_classes),
        "constant_features": state.constant_features,
    }
    return DifficultyTable(ids, labels, values, scaled_rank(values), nearest, margin, metadata, label_names)
