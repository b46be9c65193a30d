"""The entropy-regularized loss of small batches on the CPU: two loops over the rows, weights and strengths and all.

Tensor operations pay by the call, and some forty of them are most of the time where a batch is small: loops compiled by
Numba are two calls. Exponentials are left to NumPy, which takes several at once. What is one number a row
has 64 bits, but for its sums over classes.
"""

import math
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from diffident.losses.base import check_weights
from diffident.losses.weighting import WEIGHTS_FROM_DIFFICULTY, rivals

_TINY = float(np.finfo(np.float64).tiny)
# Below it exp(x) is 0 here: what NumPy may call an underflow, in either type of logits.
_LEAST = -87.0


def loss_and_gradient(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    reduction: str,
    alpha: float | None,
    doubt: float | None,
    others: float,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and its gradient for an outer gradient of 1; arguments as of `entropy_regularized`.

    Raises:
        InputError: a weight is not in [0, 2].
        IndexError: a label is not in [0, c).
    """
    num_samples, num_classes = logits.shape
    values = logits.detach().contiguous().numpy()
    losses, exps = np.empty(num_samples, values.dtype), np.empty(values.shape, values.dtype)
    highests = _shift(values, exps)
    np.exp(exps, out=exps)
    numbers = np.ones(num_samples, values.dtype) if weights is None else weights.detach().to(logits).numpy()
    option, by_doubt = (doubt or 0.0, True) if alpha is None else (alpha, False)
    scale = 1 / num_samples if reduction == "mean" else 1.0
    row, total = _rows(
        values, labels.contiguous().numpy(), np.ascontiguousarray(numbers), highests, losses, exps,
        float(option), by_doubt, rivals(num_classes, others), float(others), scale,
    )  # fmt: skip
    if row < num_samples:
        if weights is not None:
            check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY, most=2)
        raise IndexError(f"label {int(labels[row])} at row {row}, of {num_classes} classes")
    loss = torch.full((), total * scale, dtype=logits.dtype) if reduction == "mean" else torch.from_numpy(losses)
    return loss, torch.from_numpy(exps)


def _compiled(function: Any) -> Any:
    """The function compiled at its first call, which takes a second or two; later processes find it beside this file.

    Where neither that folder nor the user's cache can be written, every process compiles it.
    """
    # Sums in any order; NaN and infinities stay what they are.
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz", "arcp"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@_compiled
@no_type_check
def _shift(logits, shifted):
    """Fill in the logits minus their row's largest, and -inf where that is below _LEAST; the largest [n]."""
    num_samples, num_classes = logits.shape
    highests = np.empty(num_samples, logits.dtype)
    for row in range(num_samples):
        highest = logits[row, 0]
        for column in range(1, num_classes):
            highest = logits[row, column] if logits[row, column] > highest else highest
        highests[row] = highest
        for column in range(num_classes):
            value = logits[row, column] - highest
            shifted[row, column] = -np.inf if value < _LEAST else value
    return highests


@_compiled
@no_type_check
def _strength(weight, option, by_doubt, number):
    """Of the bonus, as `strengths_of_doubt` says; `number` of rivals."""
    strength = option * min(weight, 1.0)
    if not by_doubt:
        return strength
    left = strength * number / (1 + number)
    return 1 / ((1 - left) * math.log((1 - left) * number / left)) if left > 0 else 0.0


@_compiled
@no_type_check
def _rows(logits, labels, weights, highests, losses, exps, option, by_doubt, number, others, scale):
    """Fill in losses [n], and in the place of exp(logits - highests) `scale` times the gradient [n, c].

    Returns the first row whose label or weight is out of range, or n where none is, and the sum of the losses.
    """
    num_samples, num_classes = logits.shape
    total_loss = 0.0
    for row in range(num_samples):
        label, weight = labels[row], np.float64(weights[row])
        if not (0 <= label < num_classes and 0 <= weight <= 2):
            return row, total_loss
        counts = min(2 - weight, 1.0)
        if counts == 0:  # its label may be masked out
            losses[row], exps[row, :] = 0, 0
            continue
        highest = highests[row]
        zero = highest - highest  # of the logits' type, in which sums take several at once; NaN if the row is
        right, rest, moment = exps[row, label], zero, zero
        exps[row, label] = 0  # so that the rest is not a difference of two numbers near 1
        for column in range(num_classes):
            exp = exps[row, column]
            rest += exp
            moment += exp * (logits[row, column] - highest) if exp > 0 else zero  # masked classes have -inf
        at_label = np.float64(logits[row, label] - highest)
        total = np.float64(right) + rest
        mean = (moment + (right * at_label if right > 0 else 0.0)) / total
        log_total, log_wrong = math.log(total), math.log(max(rest / total, _TINY))
        likelihood = at_label - log_total
        # Right against wrong, as `_right_against_wrong` says.
        slope = right / total * (log_wrong - likelihood) if right > 0 else 0.0
        strength = _strength(weight, option, by_doubt, number)
        bonus = others * (log_total - mean) + (1 - others) * (slope - log_wrong)
        losses[row] = counts * (-likelihood - strength * bonus)
        total_loss += losses[row]
        factor = scale * counts * (1 + strength * (1 - others) * slope)
        scaled = scale * counts * strength * others
        first, second = logits.dtype.type((factor - scaled * mean) / total), logits.dtype.type(scaled / total)
        for column in range(num_classes):
            exp = exps[row, column]
            exps[row, column] = exp * (first + second * (logits[row, column] - highest)) if exp > 0 else exp
        # Not p - 1, which would be rounding alone where the network is sure.
        exps[row, label] = (scaled * right * (at_label - mean) if right > 0 else 0.0) / total - factor * rest / total
    return num_samples, total_loss
