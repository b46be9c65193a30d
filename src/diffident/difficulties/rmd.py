"""Relative Mahalanobis distance: the label's Gaussian against the background.

Reference:
    Ren et al. 2021, arXiv 2106.09022; Cui et al. 2023, arXiv 2304.10127.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.gaussian import Gaussians, GaussianStatistics, nearest_classes, solve_gaussians


def fit(blocks: Iterable[Tensor], labels: np.ndarray, num_classes: int, shrinkage: float | str = "auto") -> Gaussians:
    """One pass over blocks of features [b, d], in the order of the labels (n,)."""
    statistics, start = None, 0
    for block in blocks:
        chosen = torch.from_numpy(labels[start : start + len(block)]).to(block.device)
        statistics = statistics or GaussianStatistics.start(block, num_classes)
        statistics = statistics.updated(block, chosen, first_row=start)
        start += len(block)
    if statistics is None or start != len(labels):
        raise ShapeError(f"`labels` must be one per feature row; got {len(labels)} for {start} rows. Match them by id.")
    return solve_gaussians(statistics, shrinkage)


def score(state: Gaussians, blocks: Iterable[Tensor], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pass: difficulty, nearest label and margin of every sample, each (n,).

    The margin is exactly 0 where the given label is the nearest, also among ties.
    """
    state_device = state.overall_mean.device
    parts, start = [], 0
    for block in blocks:
        block = block.to(state_device)
        chosen = torch.from_numpy(labels[start : start + len(block)]).to(state_device)
        parts.append([part.cpu().numpy() for part in nearest_classes(state, block, chosen)])
        start += len(block)
    if start != len(labels):
        raise ShapeError(f"`labels` must be one per feature row; got {len(labels)} for {start} rows. Match them by id.")
    if not parts:
        raise InputError("`blocks` must hold at least one sample; got none. Extract features first.")
    difficulty, nearest, margin = (np.concatenate(column) for column in zip(*parts, strict=True))
    return difficulty, nearest, margin
