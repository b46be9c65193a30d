"""Distance to the k-th nearest training sample, features brought to length 1: sqrt(2 - 2 cosine), in [0, 2].

The index is that of `diffident.neighbours` (optional extra `knn`). With fewer than k training samples the farthest
counts.

Reference:
    Sun et al. 2022, arXiv 2204.06507; k = 50 is theirs for CIFAR.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffident.detectors.protocol import Outputs, make_options, row_blocks
from diffident.errors import ShapeError
from diffident.neighbours import INDEXES, build_index
from diffident.options import check_choice, check_whole


@dataclass(frozen=True)
class KnnOptions:
    """Options of `knn`.

    Attributes:
        neighbours: k.
        index: `exact`, `approximate`, or `auto`: exact up to 50,000 rows.
    """

    neighbours: int = 50
    index: str = "auto"

    def __post_init__(self):
        check_whole("neighbours", self.neighbours, 1)
        check_choice("index", self.index, INDEXES)


@dataclass(frozen=True)
class Neighbours:
    """Training features in a search index.

    Attributes:
        index: faiss's index of the unit vectors.
        num_features: Width d.
        neighbours: k, at most the number of training samples.
        exact: Whether every row is compared.
    """

    index: Any
    num_features: int
    neighbours: int
    exact: bool


def fit(outputs: Outputs, **options: Any) -> Neighbours:
    """Index the training features; options: `KnnOptions`."""
    chosen = make_options(KnnOptions, "knn", options)
    features = outputs.given("features")
    size, width = features.shape
    index, exact = build_index(lambda: map(_unit, row_blocks(features, width)), width, size, chosen.index)
    return Neighbours(index, width, min(chosen.neighbours, size), exact)


def score(state: Neighbours, outputs: Outputs) -> Float[Tensor, " n"]:
    """In [0, 2]."""
    features = outputs.given("features")
    if features.shape[1] != state.num_features:
        raise ShapeError(
            f"`features` must be [n, {state.num_features}]; got {list(features.shape)}. "
            "Use features of the same encoder."
        )
    parts = []
    for block in row_blocks(features, features.shape[1]):
        similarity, found = state.index.search(_unit(block), state.neighbours)
        # An inverted file may visit too few rows: then the farthest that it found counts.
        farthest = np.where(found >= 0, similarity, np.inf).min(axis=1)
        parts.append(np.sqrt(np.maximum(2 - 2 * farthest.astype(np.float64), 0)))
    return torch.from_numpy(np.concatenate(parts))


def describe(state: Neighbours) -> dict[str, Any]:
    """k, and whether the search is exact."""
    return {"neighbours": state.neighbours, "exact": state.exact}


def _unit(block: Tensor) -> np.ndarray:
    return functional.normalize(block.float(), dim=1).numpy()
