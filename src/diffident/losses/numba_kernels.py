"""The entropy-regularized loss of small batches on the CPU: two loops over the rows, weights and strengths and all.

Tensor operations pay by the call, and some forty of them are most of the time where a batch is small: loops compiled by
Numba are two calls. Exponentials are left to NumPy, which takes several at once. A row's own numbers have 64 bits.
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
    count, classes = logits.shape
    values = logits.detach().contiguous().numpy()
    losses, exps = np.empty(count, values.dtype), np.empty(values.shape, values.dtype)
    highests = _shift(values, exps)
    np.exp(exps, out=exps)
    numbers = np.ones(count, values.dtype) if weights is None else weights.detach().to(logits).numpy()
    option, by_doubt = (doubt or 0.0, True) if alpha is None else (alpha, False)
    scale = 1 / count if reduction == "mean" else 1.0
    row, total = _rows(
        values, labels.contiguous().numpy(), np.ascontiguousarray(numbers), highests, losses, exps,
        float(option), by_doubt, rivals(classes, others), float(others), scale,
    )  # fmt: skip
    if row < count:
        if weights is not None:
            check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY, most=2)
        raise IndexError(f"label {int(labels[row])} at row {row}, of {classes} classes")
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
    number, classes = logits.shape
    highests = np.empty(number, logits.dtype)
    for row in range(number):
        highest = logits[row, 0]
        for column in range(1, classes):
            highest = logits[row, column] if logits[row, column] > highest else highest
        highests[row] = highest
        for column in range(classes):
            value = logits[row, column] - highest
            shifted[row, column] = -np.inf if value < _LEAST else value
    return highests


@_compiled
@no_type_check
def _rows(logits, labels, weights, highests, losses, exps, option, by_doubt, rivals, others, scale):
    """Fill in losses [n], and in the place of exp(logits - highests) `scale` times the gradient [n, c].

    Returns the first row whose label or weight is out of range, or n where none is, and the sum of the losses.
    """
    number, classes = logits.shape
    everything = 0.0
    for row in range(number):
        label, weight = labels[row], np.float64(weights[row])
        if not (0 <= label < classes and 0 <= weight <= 2):
            return row, everything
        count = min(2 - weight, 1.0)
        if count == 0:  # its label may be masked out
            losses[row] = 0
            exps[row, :] = 0
            continue
        highest = highests[row]
        zero = highest - highest
        right, rest, moment = exps[row, label], zero, zero
        exps[row, label] = 0  # so that the rest is not a difference of two numbers near 1
        for column in range(classes):
            exp = exps[row, column]
            rest += exp
            moment += exp * (logits[row, column] - highest) if exp > 0 else zero  # masked classes have -inf
        exps[row, label] = right
        at_label = np.float64(logits[row, label] - highest)
        total = np.float64(right) + rest
        mean = (moment + (right * at_label if right > 0 else 0.0)) / total
        log_total = math.log(total)
        # The strength of the bonus, as `strengths_of_doubt` says.
        strength = option * min(weight, 1.0)
        if by_doubt:
            left = strength * rivals / (1 + rivals)
            strength = 1 / ((1 - left) * math.log((1 - left) * rivals / left)) if left > 0 else 0.0
        # Right against wrong, as `_right_against_wrong` says.
        likelihood = at_label - log_total
        log_wrong = math.log(max(rest / total, _TINY))
        slope = right / total * (log_wrong - likelihood) if right > 0 else 0.0
        entropy = others * (log_total - mean) + (1 - others) * (slope - log_wrong)
        loss = count * (-likelihood - strength * entropy)
        losses[row] = loss
        everything += loss
        factor = scale * count * (1 + strength * (1 - others) * slope)
        scaled = scale * count * strength * others
        first = logits.dtype.type((factor - scaled * mean) / total)
        second = logits.dtype.type(scaled / total)
        for column in range(classes):
            exp = exps[row, column]
            exps[row, column] = exp * (first + second * (logits[row, column] - highest)) if exp > 0 else exp
        exps[row, label] -= factor
    return number, everything
