"""Relative Mahalanobis distance: the label's Gaussian against the background.

Cost: two passes, a short one more where samples are few, one product of N x d x d and one of N x d x min(K - 1, d).

Reference:
    Ren et al. 2021, arXiv 2106.09022; Cui et al. 2023, arXiv 2304.10127.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_present,
    join_scores,
    labelled_blocks,
    make_options,
    rows_from,
)
from diffident.gaussian import Gaussians, GaussianStatistics, nearest_classes, rows_to_judge, solve_gaussians


@dataclass(frozen=True)
class RmdOptions:
    """Options of `rmd`.

    Attributes:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.
    """

    shrinkage: float | str = "auto"


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Gaussians:
    """Class Gaussians with a shared covariance and the background; options: `RmdOptions`."""
    chosen = make_options(RmdOptions, "rmd", options)
    return gaussians_of(blocks, labels, num_classes, chosen.shrinkage)


def score(state: Gaussians, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Relative squared distance of every sample; the same whether or not the rows were fitted."""

    def parts():
        device = state.overall_mean.device
        for start, block, chosen in labelled_blocks(blocks, labels):
            check_present(state.counts, chosen, start)
            with rows_from(start, block, len(state.overall_mean)):
                yield nearest_classes(state, block.to(device), chosen.to(device))

    return join_scores(parts())


def describe(state: Gaussians) -> dict[str, Any]:
    """Shrinkage, rank, condition number and what may make the Gaussians unreliable."""
    return {
        "num_features": len(state.overall_mean),
        "shrinkage": state.shrinkage,
        "shrinkage_choice": state.shrinkage_choice,
        "rank": state.rank,
        "condition_number": state.condition_number,
        "num_directions": len(state.ratios),
        "singleton_classes": len(state.singleton_classes),
        "absent_classes": len(state.absent_classes),
        "constant_features": state.constant_features,
    }


def gaussians_of(blocks: Blocks, labels: np.ndarray, num_classes: int, shrinkage: float | str) -> Gaussians:
    """A pass over the features, and where `auto` needs them another, then the Gaussians."""
    statistics = statistics_of(blocks, labels, num_classes)
    return solve_gaussians(statistics, shrinkage, judged_of(blocks, labels, num_classes))


def judged_of(
    blocks: Blocks, labels: np.ndarray, num_classes: int, fitted: Tensor | None = None
) -> Callable[[], tuple[Tensor, Tensor]]:
    """What `solve_gaussians` asks for where shrinkage is automatic: one more pass, in which some rows are picked.

    Args:
        blocks: The features.
        labels: Their classes.
        num_classes: K.
        fitted: Which rows the statistics hold (bool, n); None: all.
    """

    def judged() -> tuple[Tensor, Tensor]:
        of_all = torch.arange(len(labels)) if fitted is None else fitted.nonzero().flatten()
        rows = of_all[rows_to_judge(len(of_all), num_classes)]
        values, classes = [], []
        for start, block, chosen in labelled_blocks(blocks, labels):
            here = rows[(rows >= start) & (rows < start + len(block))].to(block.device) - start
            values.append(block[here])
            classes.append(chosen[here])
        return torch.cat(values), torch.cat(classes)

    return judged


def statistics_of(blocks: Blocks, labels: np.ndarray, num_classes: int, *, first_row: int = 0) -> GaussianStatistics:
    """One pass over the features; `first_row` numbers the first of them in errors."""
    statistics = None
    for start, block, chosen in labelled_blocks(blocks, labels):
        statistics = statistics or GaussianStatistics.start(block, num_classes)
        statistics = statistics.updated(block, chosen, first_row=first_row + start)
    assert statistics is not None
    return statistics
