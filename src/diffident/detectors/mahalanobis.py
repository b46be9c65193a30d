"""Squared distance to the nearest class's Gaussian: min_k D2_k, with one covariance for all classes.

Reference:
    Lee et al. 2018, arXiv 1807.03888, without their perturbed inputs and several layers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.detectors import relative_mahalanobis
from diffident.detectors.protocol import Outputs, make_options, row_blocks
from diffident.gaussian import Gaussians, fit_gaussians, squared_distances


@dataclass(frozen=True)
class MahalanobisOptions:
    """Options of `mahalanobis`.

    Attributes:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.
    """

    shrinkage: float | str = "auto"


def fit(outputs: Outputs, **options: Any) -> Gaussians:
    """Class Gaussians of labelled features; options: `MahalanobisOptions`."""
    chosen = make_options(MahalanobisOptions, "mahalanobis", options)
    return fit_gaussians(outputs.given("features"), outputs.given("labels"), shrinkage=chosen.shrinkage)


def score(state: Gaussians, outputs: Outputs) -> Float[Tensor, " n"]:
    """At least 0, dimensionless."""
    blocks = row_blocks(outputs.given("features"), len(state.counts))
    return torch.cat([squared_distances(state, block).amin(dim=1) for block in blocks])


def describe(state: Gaussians) -> dict[str, Any]:
    """Shrinkage and rank."""
    return relative_mahalanobis.describe(state)
