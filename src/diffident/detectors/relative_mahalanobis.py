"""Squared distance to the nearest class's Gaussian minus that to the background: min_k D2_k - D2_0.

Reference:
    Ren et al. 2021, arXiv 2106.09022. Unlike theirs the background's covariance is shrunk with the classes', so that
    directions in which no class differs cancel exactly; see `diffident.gaussian`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.detectors.protocol import Outputs, make_options, row_blocks
from diffident.gaussian import Gaussians, fit_gaussians, relative_squared_distances


@dataclass(frozen=True)
class RelativeMahalanobisOptions:
    """Options of `relative-mahalanobis`.

    Attributes:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.
    """

    shrinkage: float | str = "auto"


def fit(outputs: Outputs, **options: Any) -> Gaussians:
    """Class Gaussians and the background of labelled features; options: `RelativeMahalanobisOptions`."""
    chosen = make_options(RelativeMahalanobisOptions, "relative-mahalanobis", options)
    return fit_gaussians(outputs.given("features"), outputs.given("labels"), shrinkage=chosen.shrinkage)


def score(state: Gaussians, outputs: Outputs) -> Float[Tensor, " n"]:
    """Unbounded, dimensionless."""
    blocks = row_blocks(outputs.given("features"), len(state.counts))
    return torch.cat([relative_squared_distances(state, block).amin(dim=1) for block in blocks])


def describe(state: Gaussians) -> dict[str, Any]:
    """Shrinkage and rank."""
    return {"shrinkage": state.shrinkage, "shrinkage_choice": state.shrinkage_choice, "rank": state.rank}
