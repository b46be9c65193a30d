"""Squared distances of fitted samples to Gaussians that were estimated without them.

A sample is part of its own label's mean and of the covariance, which draws the label nearer than the other classes: by
little with hundreds of samples a class, by far too much with five. Nothing is fitted again for that: leaving one sample
out changes the covariance by a matrix of rank one, for which there is a closed form.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.gaussian.blocks import Labels, Values, blocks, checked
from diffident.gaussian.distances import background_squared_distance, relative_squared_distances
from diffident.gaussian.state import Gaussians
from diffident.records import tensor_of

# Rows of a block: the matrices that are made on the way to one of distances have so many rows.
_ROWS = 2_048
# What is left of a sample's own leverage at the least; below it the closed form would divide by nearly nothing.
_LEAST_REST = 1e-3


def leave_one_out_distances(
    state: Gaussians,
    values: Values,
    labels: Labels,
    fitted: Bool[Tensor, " n"] | Bool[np.ndarray, " n"],
) -> Float[Tensor, "n k"]:
    """Predictive squared distance to every class, without the sample itself, minus that to the background.

    D2_k / (1 + 1 / n_k) - D2_0, where D2_k and n_k leave the sample out if it was fitted, and D2_0, which all classes
    share, does not. The divisor is the variance of the distance to a mean of n_k samples, which would otherwise be
    larger for the label, that has one sample less.

    Args:
        state: Gaussians; the amount of shrinkage and its target stay as they are.
        values: Features.
        labels: Classes in [0, K).
        fitted: Whether the row is among the samples that `state` was fitted to, under this label.

    Returns:
        float64; infinite for classes without samples. A class of one sample keeps it.

    Raises:
        ShapeError: another feature width, or not one label a row.
        InputError: a label out of range, or a feature that is not finite.

    Reference:
        Sherman and Morrison 1950: the inverse after a change of rank one.
    """
    values, labels = checked(values, labels, len(state.overall_mean), len(state.counts))
    fitted = tensor_of(fitted, "fitted")
    between = torch.cdist(state.projected_means, state.projected_means).square()
    distances = relative_squared_distances(state, values), background_squared_distance(state, values)
    parts = zip(*(blocks(one, _ROWS) for one in (*distances, labels, fitted)), strict=True)
    kept = 1 - state.shrinkage
    found = [
        without_themselves(relative + background[:, None], between, state.counts, given, here, kept)
        - background[:, None]
        for relative, background, given, here in parts
    ]
    return torch.cat([state.ratios.new_zeros(0, len(state.counts)), *found])


def without_themselves(
    distances: Float[Tensor, "n k"],
    between: Float[Tensor, "k k"],
    counts: Int[Tensor, " k"],
    labels: Int[Tensor, " n"],
    fitted: Bool[Tensor, " n"],
    kept: float,
) -> Float[Tensor, "n k"]:
    """Predictive squared distances of one block; infinite for classes without samples.

    With a = z - mu_y, the covariance loses c a a^T, so that D2_k gains c b_k^2 / (1 - c D2_y).

    Args:
        distances: D2_k of all samples together.
        between: The same from class mean to class mean.
        counts: Samples of each class.
        labels: Classes.
        fitted: Whether the row is among these samples.
        kept: Part of the covariance that shrinkage leaves.
    """
    column = labels[:, None]
    sizes = counts.double()
    size = sizes[labels]
    left = fitted & (size > 1)
    growth = torch.where(left, size / (size - 1).clamp(min=1), 1.0)
    loss = torch.where(left, kept * growth / sizes.sum(), 0.0)
    own = distances.gather(1, column)[:, 0].clamp(min=0)
    gain = loss / (1 - loss * own).clamp(min=_LEAST_REST)
    # b_k = a^T Sigma_w^-1 (z - mu_k), from the three squared sides of a triangle.
    sides = own[:, None] + (distances - own[:, None] - between[labels]) / 2
    every = distances + gain[:, None] * sides.square()
    every = every / (1 + 1 / sizes.clamp(min=1))
    without = growth.square() * (own + gain * own.square())
    rest = torch.where(left, size - 1, size)
    every.scatter_(1, column, (without / (1 + 1 / rest))[:, None])
    return every.masked_fill_(counts == 0, torch.inf)  # infinity minus infinity is no distance
