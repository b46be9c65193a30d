"""Label disagreement among the nearest neighbours, weighted by cosine.

Features are centred, in the space `whitened` also whitened by the within-class covariance, and brought to unit length.
With w_j = exp(cos_j / T) over the k nearest neighbours, the share of class c is the part of the weight that carries it:
difficulty = 1 - share of the label, margin = largest share - share of the label, both in [0, 1]. A fitted row is never
its own neighbour. A sample without neighbours (n = 1) has difficulty 1 and margin 0. Among neighbours that are exactly
as near as the k-th, the index chooses.

The index is that of `diffident.neighbours`.

Cost: N x d float32 in memory, N^2 x d operations (exact), about a sixteenth of it beyond.

Reference:
    Wu et al. 2018, arXiv 1805.01978, and Caron et al. 2021, arXiv 2104.14294 (weights; k = 20, T = 0.07);
    Zhu et al. 2022, arXiv 2110.06283 (wrong labels by the vote of neighbours).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffident.difficulties import rmd
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_fitted,
    checked_blocks,
    choose_nearest,
    join_scores,
    make_options,
)
from diffident.gaussian.blocks import centred, working_type
from diffident.neighbours import INDEXES, build_index, load_faiss
from diffident.options import check_above_zero, check_choice, check_whole


@dataclass(frozen=True)
class KnnOptions:
    """Options of `knn`.

    Attributes:
        neighbours: k, the number of neighbours that vote.
        temperature: T of the weights; lower trusts the very nearest more.
        space: `cosine` of the centred features, or of the `whitened` ones.
        index: `exact`, `approximate`, or `auto`: exact up to 50,000 rows.
    """

    neighbours: int = 20
    temperature: float = 0.07
    space: str = "cosine"
    index: str = "auto"

    def __post_init__(self):
        check_whole("neighbours", self.neighbours, 1)
        check_above_zero("temperature", self.temperature)
        check_choice("space", self.space, ("cosine", "whitened"))
        check_choice("index", self.index, INDEXES)


@dataclass(frozen=True)
class Neighbours:
    """Fitted rows in a search index.

    Attributes:
        index: faiss's index of the unit vectors.
        labels: Classes of the indexed rows, int64 (n,).
        num_classes: Number of classes.
        mean: Subtracted from every feature (d,), float64.
        whitening: W (d, rank) of the space `whitened`, or None.
        options: As chosen.
        exact: Whether every row is compared.
    """

    index: Any
    labels: np.ndarray
    num_classes: int
    mean: Tensor
    whitening: Tensor | None
    options: KnnOptions
    exact: bool


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Neighbours:
    """Index the samples: a pass for the mean (and the covariance), then one or two for the index."""
    chosen = make_options(KnnOptions, "knn", options)
    load_faiss()  # before the work
    gaussians = rmd.gaussians_of(blocks, labels, num_classes, "auto") if chosen.space == "whitened" else None
    mean = _mean(blocks, labels, num_classes) if gaussians is None else gaussians.overall_mean
    whitening = None if gaussians is None else gaussians.whitening
    width = len(mean) if whitening is None else whitening.shape[1]
    index, exact = build_index(
        lambda: (_unit(block, mean, whitening) for block in blocks()), max(width, 1), len(labels), chosen.index
    )
    return Neighbours(index, labels.copy(), num_classes, mean, whitening, chosen, exact)


def score(state: Neighbours, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Weighted vote of the neighbours of every sample; a fitted row does not vote for itself."""
    if fitted:
        check_fitted(labels, len(state.labels))

    def parts():
        for start, block, chosen in checked_blocks(blocks, labels, state.num_classes, len(state.mean)):
            rows = np.arange(start, start + len(block)) if fitted else None
            shares = _shares(state, _unit(block, state.mean, state.whitening), rows)
            _, nearest, margin = choose_nearest(-shares, chosen.cpu())
            own = shares.gather(1, chosen.cpu()[:, None])[:, 0]
            yield 1 - own, nearest, margin

    return join_scores(parts())


def describe(state: Neighbours) -> dict[str, Any]:
    """The options, and whether the search is exact."""
    return {
        "num_features": len(state.mean),
        "neighbours": min(state.options.neighbours, len(state.labels)),
        "temperature": state.options.temperature,
        "space": state.options.space,
        "exact": state.exact,
    }


def _shares(state: Neighbours, vectors: np.ndarray, rows: np.ndarray | None) -> Tensor:
    """Share of the weight of every class (b, k), float64; `rows` are the vectors' own places in the index."""
    wanted = min(state.options.neighbours + (rows is not None), len(state.labels))
    similarity, found = state.index.search(vectors, wanted)
    valid = found >= 0  # an inverted file may visit too few rows
    if rows is not None:
        itself = found == rows[:, None]
        itself[~itself.any(axis=1), -1] = True  # lost among duplicates: leave out the farthest instead
        valid &= ~itself
    similarity = torch.from_numpy(similarity).double().masked_fill(~torch.from_numpy(valid), -torch.inf)
    weights = torch.exp((similarity - similarity.amax(dim=1, keepdim=True)) / state.options.temperature)
    weights = weights.nan_to_num(0.0)  # no neighbour at all
    votes = torch.zeros(len(vectors), state.num_classes, dtype=torch.float64)
    votes.scatter_add_(1, torch.from_numpy(state.labels[np.maximum(found, 0)]), weights)
    return votes / weights.sum(dim=1, keepdim=True).clamp(min=1e-300)


def _unit(block: Tensor, mean: Tensor, whitening: Tensor | None) -> np.ndarray:
    """Centred, perhaps whitened, vectors of length 1 (or 0), float32 (b, q)."""
    values = centred(block.to(mean.device), mean, working_type(block))
    if whitening is not None:
        values = values @ whitening.to(values.dtype)
    if not values.shape[1]:
        values = values.new_zeros(len(values), 1)
    # A power of two first, which changes no digit: the squares of what is large or small would not fit.
    exponents = torch.frexp(values.abs().amax(dim=1, keepdim=True)).exponent.clamp(-100, 100)
    return functional.normalize(values * torch.exp2(-exponents.to(values.dtype)), dim=1).float().cpu().numpy()


def _mean(blocks: Blocks, labels: np.ndarray, num_classes: int) -> Tensor:
    total = None
    for _, block, _ in checked_blocks(blocks, labels, num_classes):
        part = block.sum(dim=0, dtype=torch.float64)
        total = part if total is None else total + part
    assert total is not None
    return total / len(labels)
