"""Difficulty of every sample of a data set, by any method."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties import find_method, open_method
from diffident.difficulties.protocol import Blocks, counted_passes
from diffident.difficulties.weights import scaled_rank
from diffident.errors import InputError, ShapeError
from diffident.gaussian import Gaussians, relative_squared_distance
from diffident.gaussian.blocks import Labels, integers_of
from diffident.records import DifficultyTable, first_repeated


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
    blocks: Blocks,
    ids: np.ndarray | Sequence[Any],
    labels: Labels,
    *,
    num_classes: int | None = None,
    method: str = "rmd",
    encoder: str = "unknown",
    label_names: tuple[str, ...] | None = None,
    verbs: Any = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> DifficultyTable:
    """Difficulty of every sample of a data set: fit a method to it, then score it.

    Args:
        blocks: Gives the features anew at each call, in blocks [b, d] in the order of `ids`.
        ids: Stable sample ids (n,), unique; numbers are taken as text.
        labels: Classes, integers (n,), an array or a tensor.
        num_classes: Default: one per label name, else the largest label plus one.
        method: A name in `METHODS`.
        encoder: The encoder's name, for the metadata.
        label_names: Name of each class, or None.
        verbs: What has the method's `fit`, `score` and `describe` in its stead, for example to do them elsewhere.
        progress: Called with (done, total) in every pass over the samples, anew from 0.
        options: Of the method, by name; the others keep their defaults.

    Raises:
        InputError: an unknown method or option, no samples, an id that occurs twice, features or labels that cannot be
            used.

    Example:
        >>> table = score_features(source.blocks, source.ids, source.labels, method="knn", neighbours=10)
    """
    chosen = open_method(method) if verbs is None else verbs
    if not len(ids):
        raise InputError("`ids` must name at least one sample; got none. Extract features first.")
    if len(labels) != len(ids):
        raise ShapeError(f"`labels` must be one per id; got {len(labels)} for {len(ids)}. Match them by id.")
    ids, labels = _unique(ids), integers_of(labels).cpu().numpy()
    if labels.min() == labels.max():
        raise InputError(
            f"`labels` must be of at least 2 classes to tell hard from easy; got class {labels[0]} alone. "
            "Add samples of another."
        )
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if label_names is None else len(label_names)
    if progress is not None:
        blocks = counted_passes(blocks, len(ids), progress)
        if find_method(method).iterates:
            options["progress"] = progress
    state = chosen.fit(blocks, labels, num_classes, **options)
    scores = chosen.score(state, blocks, labels, fitted=True)
    metadata = {
        "method": method,
        "encoder": encoder,
        "num_samples": len(ids),
        "num_classes": num_classes,
        **chosen.describe(state),
    }
    rank = scaled_rank(scores.difficulty)
    columns = ids, labels, scores.difficulty, rank, scores.nearest, scores.margin
    of_belief = scores.distrust, scores.likely, scores.candidates, scores.candidate_probs
    return DifficultyTable(*columns, metadata, label_names, *of_belief)


def _unique(ids: np.ndarray | Sequence[Any]) -> np.ndarray:
    """The ids as text, which are joined by."""
    texts = list(map(str, ids.tolist() if isinstance(ids, np.ndarray) else ids))
    twice = first_repeated(texts)
    if twice is not None:
        first, last = twice
        raise InputError(
            f"`ids` must be unique; got {texts[first]!r} at rows {first} and {last}. Name each sample once."
        )
    return np.array(texts, dtype=object)
