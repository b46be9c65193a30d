"""Checks of logits and labels that any caller may have made."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError


def check_logits(logits: Tensor | np.ndarray, name: str) -> Float[Tensor, "n c"]:
    """The logits as float64 on the CPU.

    Raises:
        InputError: not a numeric array [n, c] with n and c at least 1, or a NaN or infinite entry, named by its row.
    """
    values = _as_tensor(logits, name)
    if values.ndim != 2:
        raise ShapeError(f"`{name}` must have shape [n, c]; got {list(values.shape)}. Give one row per sample.")
    if not values.numel():
        raise InputError(f"`{name}` must have at least one row and column; got {list(values.shape)}. Check the file.")
    values = values.to(torch.float64)
    finite = values.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        bad = float(values[row, column])
        raise InputError(
            f"`{name}` must be finite; got {bad:g} at row {row}, column {column}. "
            f"{'Clamp log(0) to a large negative number.' if bad == -math.inf else 'Look for a diverged model.'}"
        )
    return values


def check_labels(labels: Tensor | np.ndarray, num_samples: int, num_classes: int) -> Int[Tensor, " n"]:
    """The labels as int64 on the CPU.

    Raises:
        InputError: not integers [n], or one outside [0, c), named by its row.
    """
    values = _as_tensor(labels, "labels")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"`labels` must be integers; got {values.dtype}. Convert them to int64.")
    if values.shape != (num_samples,):
        raise ShapeError(f"`labels` must have shape [{num_samples}], one per row of logits; got {list(values.shape)}.")
    values = values.long()
    outside = (values < 0) | (values >= num_classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}); got {int(values[row])} at row {row}. "
            f"Re-index the labels or predict with more classes."
        )
    return values


def _as_tensor(values: Tensor | np.ndarray, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise InputError(f"`{name}` must be an array of numbers; got dtype {array.dtype}. Convert it first.")
    if array.dtype.kind == "u":
        array = array.astype(np.int64)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
