"""Gaussians per class with a shared covariance, one background Gaussian, and the distances to them.

Everything is divided by N. The statistics take one pass and can be merged; the solution is the discriminant form, in
which only the directions that tell the classes apart are kept: with Sigma_t v = lambda Sigma_w v, v^T Sigma_w v = 1,
the directions with lambda = 1 cancel in the relative distance, and at most min(K - 1, d) others are left.
"""

from diffident.gaussian.distances import (
    background_squared_distance,
    nearest_classes,
    relative_squared_distance,
    relative_squared_distances,
    squared_distances,
)
from diffident.gaussian.fitting import fit_gaussians, solve_gaussians
from diffident.gaussian.leave_one_out import leave_one_out_distances
from diffident.gaussian.shrinkage import oracle_shrinkage, rows_to_judge
from diffident.gaussian.state import Gaussians
from diffident.gaussian.statistics import GaussianStatistics

__all__ = [
    "GaussianStatistics",
    "Gaussians",
    "background_squared_distance",
    "fit_gaussians",
    "leave_one_out_distances",
    "nearest_classes",
    "oracle_shrinkage",
    "relative_squared_distance",
    "relative_squared_distances",
    "rows_to_judge",
    "solve_gaussians",
    "squared_distances",
]
