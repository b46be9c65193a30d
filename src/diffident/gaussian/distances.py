"""Squared distances to the Gaussians, in blocks of rows."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError
from diffident.gaussian.blocks import (
    Labels,
    Values,
    blocks,
    checked,
    checked_values,
    not_finite,
    shifted_blocks,
    working_type,
)
from diffident.gaussian.state import Gaussians

# Rows of a block: few enough that it stays in the cache between its products.
_SCORE_ROWS = 2_048
# Columns of a panel of directions: a triangular whitening takes little more than half the work of a full one.
_PANEL_COLUMNS = 128


def relative_squared_distance(state: Gaussians, values: Values, labels: Labels) -> Float[Tensor, " n"]:
    """Squared distance to the label's Gaussian minus that to the background.

    Returns:
        Difficulty, dimensionless, unbounded, float64, mean 0 over the fitted data without shrinkage; higher is harder.

    Raises:
        ShapeError: feature width differs from `fit_gaussians`.
        InputError: a label out of range or of a class without samples.

    Reference:
        Ren et al. 2021, arXiv 2106.09022, eq. 3; Cui et al. 2023, arXiv 2304.10127 (opposite sign).
    """
    values, labels = checked(values, labels, len(state.overall_mean), len(state.counts))
    _check_fitted(state, labels)
    dtype = working_type(values)
    doubled, gains = (-2 * state.projected_means).to(dtype), (1 - 1 / state.ratios).to(dtype)
    lengths = state.projected_means.square().sum(dim=1)
    scratch = doubled.new_empty(min(_SCORE_ROWS, len(values)), doubled.shape[1])
    scores = [state.ratios.new_zeros(0)]
    for p, chosen in zip(_projections(state, values, state.directions), blocks(labels, _SCORE_ROWS), strict=True):
        # sum_j (p_j - m_yj)^2 - p_j^2 / lambda_j, with one pass over the projections and one over the label's means.
        mixed = torch.index_select(doubled, 0, chosen, out=scratch[: len(p)]).addcmul_(p, gains)
        scores.append(torch.linalg.vecdot(p, mixed).double() + lengths[chosen])
    return torch.cat(scores)


def nearest_classes(
    state: Gaussians, values: Values, labels: Labels
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Difficulty, and what the other classes say: one product with the class means a block, nothing of size [n, K].

    Returns:
        The difficulty of `relative_squared_distance`; the class of least distance, the label itself among ties; and the
        margin, difficulty minus the least over classes: at least 0, exactly 0 where the label is nearest. All (n,).

    Raises:
        As `relative_squared_distance`.
    """
    values, labels = checked(values, labels, len(state.overall_mean), len(state.counts))
    _check_fitted(state, labels)
    dtype = working_type(values)
    constant, means = _class_constants(state).to(dtype), state.projected_means.T.to(dtype)
    gains = (1 - 1 / state.ratios).to(dtype)
    difficulty, nearest, margin = [], [], []
    scratch = means.new_empty(min(_SCORE_ROWS, len(values)), means.shape[1])
    for p, chosen in zip(_projections(state, values, state.directions), blocks(labels, _SCORE_ROWS), strict=True):
        # Without the terms that all classes share: they change neither the nearest class nor the margin.
        every = torch.addmm(constant, p, means, alpha=-2, out=scratch[: len(p)])
        of_label, least = every.gather(1, chosen[:, None])[:, 0], every.amin(dim=1)
        nearest.append(_nearest(every, of_label, least, chosen))
        margin.append((of_label - least).double())
        difficulty.append(of_label.double() + p.square_().mv(gains))
    if not difficulty:
        return state.ratios.new_zeros(0), labels, state.ratios.new_zeros(0)
    return torch.cat(difficulty), torch.cat(nearest), torch.cat(margin)


def _nearest(every: Tensor, of_label: Tensor, least: Tensor, labels: Tensor) -> Tensor:
    """The class of least distance, the label itself among ties: looked up only where another class is nearer."""
    found, rows = labels.clone(), (of_label > least).nonzero()[:, 0]
    found[rows] = every[rows].argmin(dim=1)
    return found


def relative_squared_distances(state: Gaussians, values: Values) -> Float[Tensor, "n k"]:
    """Squared distance to every class's Gaussian minus that to the background; infinite for classes without samples.

    One matrix product over the discriminant directions. The least over classes is the out-of-distribution score.
    """
    values = checked_values(values, len(state.overall_mean))
    constant = _class_constants(state)
    gains = 1 - 1 / state.ratios
    scores = [state.ratios.new_zeros(0, len(state.counts))]
    for p in _projections(state, values, state.directions):
        p = p.double()
        scores.append(torch.addmm(constant + (p.square() @ gains)[:, None], p, state.projected_means.T, alpha=-2))
    return torch.cat(scores)


def squared_distances(state: Gaussians, values: Values) -> Float[Tensor, "n k"]:
    """D2_k: squared Mahalanobis distance to every class's Gaussian, float64; infinite for classes without samples."""
    values = checked_values(values, len(state.overall_mean))
    means = (state.means - state.overall_mean) @ state.whitening
    constant = torch.where(state.counts > 0, means.square().sum(dim=1), torch.inf)
    distances = [constant.new_zeros(0, len(constant))]
    for q in _projections(state, values, state.whitening):
        q = q.double()
        distances.append(torch.addmm(constant + q.square().sum(dim=1)[:, None], q, means.T, alpha=-2).clamp(min=0))
    return torch.cat(distances)


def background_squared_distance(state: Gaussians, values: Values) -> Float[Tensor, " n"]:
    """D2_0: squared Mahalanobis distance to the background Gaussian, float64."""
    values = checked_values(values, len(state.overall_mean))
    gains = 1 - 1 / state.ratios
    none = state.ratios.new_zeros(0)
    whitened = [q.double().square().sum(dim=1) for q in _projections(state, values, state.whitening)]
    gained = [p.double().square() @ gains for p in _projections(state, values, state.directions)]
    return torch.cat([none, *whitened]) - torch.cat([none, *gained])


def _projections(state: Gaussians, values: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """Centred features on directions (block, m), in the working type, in blocks; the next overwrites the last."""
    dtype = working_type(values)
    # Columns are scaled to unit length, so that float32 neither over- nor underflows.
    lengths = directions.norm(dim=0).clamp(min=1e-300)
    unit = directions / lengths
    # What the working type cannot hold of the mean is taken from the projections, so that no block is subtracted twice.
    shift = state.overall_mean.to(dtype)
    rest = ((shift.double() - state.overall_mean) @ unit).to(dtype)
    narrow, lengths = unit.to(dtype), lengths.to(dtype)
    panels = _panels(narrow)
    scratch = narrow.new_empty(min(_SCORE_ROWS, len(values)), narrow.shape[1])
    starts = range(0, len(values), _SCORE_ROWS)
    for start, block in zip(starts, shifted_blocks(values, shift, _SCORE_ROWS), strict=True):
        p = scratch[: len(block)]
        for rows, columns in panels:
            torch.addmm(rest[columns], block[:, rows], narrow[rows, columns], out=p[:, columns])
        p.mul_(lengths)
        if not bool(p.sum().isfinite()):
            raise not_finite(values[start : start + _SCORE_ROWS], start)
        yield p


def _panels(directions: Tensor) -> list[tuple[slice, slice]]:
    """Rows and columns of the parts of a matrix that are not 0: one part, or panels if it is upper triangular."""
    height, width = directions.shape
    if height != width or bool(directions.tril(-1).any()):
        return [(slice(0, height), slice(0, width))]
    ends = [min(start + _PANEL_COLUMNS, width) for start in range(0, width, _PANEL_COLUMNS)]
    return [(slice(0, end), slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]


def _class_constants(state: Gaussians) -> Tensor:
    """Squared length of each class's projected mean; infinite for classes without samples."""
    return torch.where(state.counts > 0, state.projected_means.square().sum(dim=1), torch.inf)


def _check_fitted(state: Gaussians, labels: Tensor) -> None:
    absent = (state.counts[labels] == 0).nonzero()
    if len(absent):
        row = int(absent[0])
        raise InputError(
            f"`labels` must be of classes with samples; got class {int(labels[row])} at row {row}, which was fitted "
            "on nothing. Fit with samples of it, or leave the row out."
        )
