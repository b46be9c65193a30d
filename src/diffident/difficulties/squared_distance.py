"""Squared Mahalanobis distance to the label's Gaussian alone, without a background: the control for `rmd`.

Measures how odd a sample is as well as how badly its label fits, so wrong labels hardly stand out by it; the margin,
in which the oddness cancels, is that of `rmd`.

Cost: two passes, a short one more where samples are few, two products of N x d x d.

Reference:
    Lee et al. 2018, arXiv 1807.03888 (opposite sign).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffident.difficulties import rmd
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_present,
    choose_nearest,
    join_scores,
    labelled_blocks,
    make_options,
    rows_from,
)
from diffident.gaussian import Gaussians, squared_distances


@dataclass(frozen=True)
class SquaredDistanceOptions:
    """Options of `squared-distance`.

    Attributes:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.
    """

    shrinkage: float | str = "auto"


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Gaussians:
    """Class Gaussians with a shared covariance; options: `SquaredDistanceOptions`."""
    chosen = make_options(SquaredDistanceOptions, "squared-distance", options)
    return rmd.gaussians_of(blocks, labels, num_classes, chosen.shrinkage)


def score(state: Gaussians, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """D2_y of every sample, the class of least D2_k, and how much nearer it is."""

    def parts():
        device = state.overall_mean.device
        for start, block, chosen in labelled_blocks(blocks, labels):
            check_present(state.counts, chosen, start)
            with rows_from(start, block, len(state.overall_mean)):
                distances = squared_distances(state, block.to(device))
            yield choose_nearest(distances, chosen.to(device))

    return join_scores(parts())


def describe(state: Gaussians) -> dict[str, Any]:
    """The same as for `rmd`."""
    return rmd.describe(state)
