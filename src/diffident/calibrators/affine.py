"""Log softmax(W x + b), off-diagonal and offsets regularised (ODIR): the solver of `matrix` and `dirichlet`.

The objective is the mean negative log-likelihood plus lambda times (the mean of the squared off-diagonal entries of W
plus the mean of the squared offsets) plus ridge / 2n sum((W_kk - 1)^2). It is convex, and nothing is added at W = I,
b = 0, so the fit is never worse than none. lambda `auto` is the one of nine from strong to weak that makes a held-out
third of the calibration split most likely; the parts depend on what is in a row, not on its place.

Cost: L-BFGS, some 50 to 300 passes with two products of n x c x c; `auto` about seven times that. With c = 1,000 there
are a million parameters: give lambda, or take `vector`.

Reference:
    Kull et al. 2019, arXiv 1910.12656, section 3.2 and supplement C (there lambda and mu apart, by 5 folds).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.protocol import check_width, make_options, mean_nll, minimised, row_blocks, zero_sum
from diffident.folds import row_keys
from diffident.options import check_above_zero, check_choice

# Means over c (c - 1) entries: with many classes only large ones weigh anything.
_PATH = (1e6, 1e5, 1e4, 1e3, 100.0, 10.0, 1.0, 0.1, 0.01)
_PATH_ITERATIONS = 100
_PARTS = 3

Inputs = Callable[[Float[Tensor, "n c"]], Float[Tensor, "n c"]]


@dataclass(frozen=True)
class AffineOptions:
    """Options of `matrix` and `dirichlet`.

    Attributes:
        off_diagonal: lambda, or `auto`.
        ridge: Weight of the prior of the diagonal, in samples.
    """

    off_diagonal: float | str = "auto"
    ridge: float = 1.0

    def __post_init__(self):
        if isinstance(self.off_diagonal, str):
            check_choice("off_diagonal", self.off_diagonal, ("auto",))
        else:
            check_above_zero("off_diagonal", self.off_diagonal)
        check_above_zero("ridge", self.ridge)


@dataclass(frozen=True)
class AffineMap:
    """The map of the inputs.

    Attributes:
        weights: W (c, c), float64: row k makes the new logit of class k.
        offsets: b (c,), float64.
        off_diagonal: lambda.
    """

    weights: Float[Tensor, "c c"]
    offsets: Float[Tensor, " c"]
    off_diagonal: float


def fit_affine(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], inputs: Inputs, calibrator: str, options: dict[str, Any]
) -> AffineMap:
    """The map that makes the labels most likely.

    Args:
        logits: Of the calibration split.
        labels: Of the same samples.
        inputs: What is mapped, from the logits.
        calibrator: Its name, for errors.
        options: `AffineOptions`.
    """
    chosen = make_options(AffineOptions, calibrator, options)
    width = logits.shape[1]
    start = np.concatenate([np.eye(width), np.zeros((width, 1))], axis=1).ravel()
    if isinstance(chosen.off_diagonal, str):
        amount, start = _chosen_amount(logits, labels, inputs, chosen.ridge, start)
    else:
        amount = float(chosen.off_diagonal)
    found = _solved(logits, labels, inputs, amount, chosen.ridge, start)
    parameters = torch.from_numpy(found).reshape(width, width + 1)
    return AffineMap(parameters[:, :-1].clone(), parameters[:, -1].clone(), amount)


def apply_affine(state: AffineMap, logits: Float[Tensor, "n c"], inputs: Inputs) -> Float[Tensor, "n c"]:
    """Log-probabilities of W x + b."""
    check_width(logits, len(state.offsets))
    return torch.log_softmax(inputs(logits) @ state.weights.T + state.offsets, dim=1)


def describe_affine(state: AffineMap) -> dict[str, Any]:
    """lambda, and how far the map is from none."""
    diagonal = state.weights.diagonal()
    return {
        "off_diagonal": state.off_diagonal,
        "diagonal": [float(diagonal.min()), float(diagonal.max())],
        "largest_off_diagonal": float((state.weights - torch.diag(diagonal)).abs().max()),
        "offsets": [float(state.offsets.min()), float(state.offsets.max())],
    }


def _chosen_amount(
    logits: Tensor, labels: Tensor, inputs: Inputs, ridge: float, start: np.ndarray
) -> tuple[float, np.ndarray]:
    """The amount that makes the held-out part most likely, and a good start for the whole."""
    held_out = _held_out(logits)
    if bool(held_out.all()) or not bool(held_out.any()):
        return _PATH[0], start
    best, chosen, chosen_start = np.inf, _PATH[0], start
    for amount in _PATH:
        start = _solved(logits[~held_out], labels[~held_out], inputs, amount, ridge, start, _PATH_ITERATIONS)
        parameters = torch.from_numpy(start).reshape(logits.shape[1], -1)
        state = AffineMap(parameters[:, :-1], parameters[:, -1], amount)
        loss = mean_nll(apply_affine(state, logits[held_out], inputs), labels[held_out])
        if loss < best:
            best, chosen, chosen_start = loss, amount, start
    return chosen, chosen_start


def _held_out(logits: Tensor) -> Tensor:
    """A third of the rows, by what is in them up to a millionth of the largest and a number added to the row."""
    values = zero_sum(logits)
    largest = values.abs().max().clamp(min=1e-30)
    return torch.from_numpy(row_keys((values / torch.exp2(largest.log2().ceil()) * 2**20).round_(), 0) % _PARTS == 0)


def _solved(
    logits: Tensor,
    labels: Tensor,
    inputs: Inputs,
    amount: float,
    ridge: float,
    start: np.ndarray,
    iterations: int = 500,
) -> np.ndarray:
    """Parameters [W, b], flat; never worse than none. Solved in coordinates in which the curvature is nearly even."""
    size, width = logits.shape
    none = np.concatenate([np.eye(width), np.zeros((width, 1))], axis=1)
    penalties = np.full((width, width + 1), amount / max(1, width * (width - 1)))
    penalties[:, -1] = amount / width
    np.fill_diagonal(penalties, ridge / 2 / size)
    into, back = _coordinates(logits, inputs, 2 * penalties.mean(axis=0))

    def objective(moved: np.ndarray) -> tuple[float, np.ndarray]:
        changes = moved.reshape(width, width + 1) @ back
        weights = torch.from_numpy(none + changes)
        value, slopes = 0.0, torch.zeros(width, width + 1, dtype=torch.float64)
        for rows in row_blocks(size, width):
            values = inputs(logits[rows])
            log_probs = torch.log_softmax(values @ weights[:, :-1].T + weights[:, -1], dim=1)
            value -= float(log_probs.gather(1, labels[rows, None]).sum())
            residuals = log_probs.exp_()
            residuals.scatter_add_(1, labels[rows, None], residuals.new_full((len(residuals), 1), -1.0))
            slopes[:, :-1] += residuals.T @ values
            slopes[:, -1] += residuals.sum(dim=0)
        value = value / size + float((penalties * changes**2).sum())
        return value, ((slopes.numpy() / size + 2 * penalties * changes) @ back.T).ravel()

    first = ((start.reshape(none.shape) - none) @ into).ravel()
    found = minimised(objective, first, iterations=iterations)
    if not objective(found)[0] < objective(np.zeros_like(found))[0]:
        return none.ravel()
    return (none + found.reshape(none.shape) @ back).ravel()


def _coordinates(logits: Tensor, inputs: Inputs, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square root and inverse root of the curvature of a class's row: about a c-th of the inputs' second moments."""
    width = logits.shape[1]
    moments = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    for rows in row_blocks(*logits.shape):
        values = torch.nn.functional.pad(inputs(logits[rows]), (0, 1), value=1.0)
        moments += values.T @ values
    curvature = moments / len(logits) / width + torch.diag(torch.from_numpy(penalties))
    values, vectors = torch.linalg.eigh(curvature)
    roots = values.clamp(min=1e-12 * float(values.max())).sqrt()
    return (vectors * roots @ vectors.T).numpy(), (vectors / roots @ vectors.T).numpy()
