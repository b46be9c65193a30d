"""Softmax regression on every fold's complement at once, by passes over blocks of features: for `self-confidence`.

All folds share one matrix product a block, so that cross-validation costs little more than one fit. Features are
standardised; the penalty is lambda / 2 times the squared weights of the standardised features and the squared offsets
(a class that a fold lacks keeps one), beside the mean cross-entropy. L-BFGS runs in coordinates in which the Hessian at
the start is nearly the identity: with R = U s U^T the correlation matrix, weights are U (c s + lambda)^(-1/2) v. A
class's logit starts at the log of its smoothed frequency.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from diffident.difficulties.protocol import Blocks, labelled_blocks
from diffident.gaussian.blocks import centred, working_type
from diffident.progress import counted

# From strong to weak, of the mean cross-entropy: the way stops where held-out cross-entropy rises.
RIDGES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_BLOCK_NUMBERS = 2**22
_KEPT_NUMBERS = 2**28  # centred features up to 1 GiB in float32 are kept in memory, larger ones are read in every pass
_MAX_ITERATIONS = 100
_MEMORY = 10


@dataclass(frozen=True)
class Probe:
    """One linear classifier a fold, fitted without that fold.

    Attributes:
        mean: Of the features (d,), float64.
        weights: Of centred features (d, f, k), float64.
        offsets: (f, k), float64.
        ridge: lambda.
        held_out_loss: Mean cross-entropy of the rows under the classifier that did not see them, in nats.
        iterations: Passes that the optimiser took in all.
    """

    mean: Float[Tensor, " d"]
    weights: Float[Tensor, "d f k"]
    offsets: Float[Tensor, "f k"]
    ridge: float
    held_out_loss: float
    iterations: int

    def log_probs(self, block: Float[Tensor, "b d"]) -> Float[Tensor, "b f k"]:
        """Log-probabilities under every fold's classifier, float64."""
        values = centred(block.to(self.mean.device), self.mean, working_type(block))
        logits = values @ self.weights.flatten(1).to(values.dtype)
        logits = logits.double().unflatten(1, tuple(self.offsets.shape)) + self.offsets
        return torch.log_softmax(logits, dim=2)

    def split(self, block: Tensor) -> tuple[Tensor, ...]:
        """Features or labels in parts whose logits fit into memory."""
        return block.split(max(1, _BLOCK_NUMBERS // self.offsets.numel()))


@dataclass(frozen=True)
class _Problem:
    """Samples, folds and the geometry in which to optimise."""

    samples: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]
    size: int
    sizes: Float[Tensor, " f"]
    prior: Float[Tensor, "f k"]
    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d q"]
    spectrum: Float[Tensor, " q"]
    curvature: float

    def scale(self, ridge: float) -> Float[Tensor, " q"]:
        return (self.curvature * self.spectrum + ridge).rsqrt()


def fit_probe(
    blocks: Blocks,
    labels: Int[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    *,
    num_folds: int,
    mean: Float[Tensor, " d"],
    covariance: Float[Tensor, "d d"],
    num_classes: int,
    ridge: float | None,
    progress: Callable[[int, int], None] | None = None,
) -> Probe:
    """Fit all folds; `ridge` None takes the one of `RIDGES` with the least held-out cross-entropy.

    `progress` is called with (done, total) in every pass over features that are kept in memory.
    """
    problem = _pose(blocks, labels, folds, num_folds, mean, covariance, num_classes, progress)
    weights = torch.zeros(len(problem.spectrum), *problem.prior.shape, dtype=torch.float64, device=mean.device)
    offsets, best, iterations = torch.zeros_like(problem.prior), None, 0
    for candidate in RIDGES if ridge is None else (ridge,):
        weights, offsets, passes = _minimise(problem, candidate, weights, offsets)
        iterations += passes
        raw = torch.einsum("dq,qfk->dfk", problem.axes, weights)
        held_out = _evaluate(problem, raw, offsets)[3]
        if best is not None and held_out >= best.held_out_loss:
            break
        best = Probe(mean, raw, problem.prior + offsets, candidate, held_out, iterations)
    assert best is not None
    return Probe(**{**vars(best), "iterations": iterations})


def _pose(
    blocks: Blocks,
    labels: np.ndarray,
    folds: np.ndarray,
    num_folds: int,
    mean: Tensor,
    covariance: Tensor,
    num_classes: int,
    progress: Callable[[int, int], None] | None,
) -> _Problem:
    variances = covariance.diagonal()
    varying = variances > 1e-12 * variances.max()
    inverse = torch.where(varying, variances.clamp(min=1e-300).rsqrt(), 0.0)
    spectrum, vectors = torch.linalg.eigh(covariance * inverse[:, None] * inverse)
    places = torch.from_numpy(folds).to(mean.device)
    classes = torch.from_numpy(labels).to(mean.device)
    held = torch.bincount(places * num_classes + classes, minlength=num_folds * num_classes)
    held = held.reshape(num_folds, num_classes)
    counts = (held.sum(dim=0) - held).double()
    sizes = counts.sum(dim=1)
    prior = ((counts + 1) / (sizes[:, None] + num_classes)).log()
    frequencies = prior.exp().mean(dim=0)
    curvature = float((1 - frequencies.square().sum()) / num_classes)
    return _Problem(
        _prepared(blocks, labels, places, mean, max(1, _BLOCK_NUMBERS // prior.numel()), progress),
        len(labels),
        sizes.clamp(min=1),
        prior,
        mean,
        inverse[:, None] * vectors,
        spectrum.clamp(min=0),
        curvature,
    )


def _prepared(
    blocks: Blocks,
    labels: np.ndarray,
    folds: Tensor,
    mean: Tensor,
    rows: int,
    progress: Callable[[int, int], None] | None,
) -> Callable[[], Iterable[tuple[Tensor, Tensor, Tensor]]]:
    """Centred features, labels and folds in parts of so many rows; kept in memory where they fit."""

    def read() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start, block, chosen in labelled_blocks(blocks, labels):
            places = folds[start : start + len(block)]
            parts = (block.split(rows), chosen.split(rows), places.split(rows))
            for values, label, place in zip(*parts, strict=True):
                yield centred(values.to(mean.device), mean, working_type(block)), label.to(mean.device), place

    if len(labels) * len(mean) > _KEPT_NUMBERS:
        return read
    kept = list(read())
    return lambda: counted(kept, len(labels), progress, lambda part: len(part[0]))


def _minimise(problem: _Problem, ridge: float, weights: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, int]:
    """Weights on the correlation matrix's axes (q, f, k), offsets (f, k) and passes, from these starting values."""
    scale = problem.scale(ridge)[:, None, None]
    shape, size = weights.shape, weights.numel()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).to(problem.mean.device)
        inner, shift = point[:size].reshape(shape), point[size:].reshape(offsets.shape)
        onto = inner * scale
        raw = torch.einsum("dq,qfk->dfk", problem.axes, onto)
        loss, slope, shift_slope, _ = _evaluate(problem, raw, shift)
        loss += 0.5 * ridge * float(onto.square().sum() + shift.square().sum())
        slope = (torch.einsum("dq,dfk->qfk", problem.axes, slope) + ridge * onto) * scale
        slopes = torch.cat([slope.flatten(), (shift_slope + ridge * shift).flatten()])
        return loss, slopes.cpu().numpy()

    start = torch.cat([(weights / scale).flatten(), offsets.flatten()]).cpu().numpy()
    options = {"maxiter": _MAX_ITERATIONS, "maxcor": _MEMORY, "ftol": 1e-6, "gtol": 1e-6}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    point = torch.from_numpy(found.x).to(problem.mean.device)
    return point[:size].reshape(shape) * scale, point[size:].reshape(offsets.shape), int(found.nfev)


def _evaluate(
    problem: _Problem, weights: Float[Tensor, "d f k"], offsets: Float[Tensor, "f k"]
) -> tuple[float, Float[Tensor, "d f k"], Float[Tensor, "f k"], float]:
    """Sum over folds of the mean cross-entropy of the rows outside them, its slopes, and that of the rows inside."""
    slope, shift_slope = torch.zeros_like(weights), torch.zeros_like(offsets)
    loss, held_out = torch.zeros((), dtype=torch.float64, device=weights.device), 0.0
    every = torch.arange(len(problem.sizes), device=weights.device)
    shift, flat = problem.prior + offsets, weights.flatten(1)
    for values, label, fold in problem.samples():
        logits = (values @ flat.to(values.dtype)).unflatten(1, tuple(offsets.shape)) + shift.to(values.dtype)
        probs = torch.log_softmax(logits, dim=2)
        column = label[:, None, None].expand(-1, len(every), 1)
        own = probs.gather(2, column)[:, :, 0]
        share = (fold[:, None] != every) / problem.sizes
        loss -= (own.double() * share).sum()
        held_out -= float(own.gather(1, fold[:, None]).sum(dtype=torch.float64))
        residual = probs.exp_().scatter_add_(2, column, -torch.ones_like(own)[:, :, None])
        residual *= share[:, :, None].to(residual.dtype)
        slope += (values.T @ residual.flatten(1)).double().reshape(slope.shape)
        shift_slope += residual.sum(dim=0, dtype=torch.float64)
    return float(loss), slope, shift_slope, held_out / problem.size
