"""What fitting and scoring share: blocks of rows, their working type, and the checks."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.records import tensor_of

Values = Float[Tensor, "n d"] | Float[np.ndarray, "n d"]
Labels = Integer[Tensor, " n"] | Integer[np.ndarray, " n"]


def blocks(values: Tensor, rows: int) -> Iterator[Tensor]:
    """Slices of so many rows; none of nothing."""
    yield from (values[start : start + rows] for start in range(0, len(values), rows))


def working_type(values: Tensor) -> torch.dtype:
    """float64 for float64 features, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def centred(values: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """Values minus the centre; subtracted in two steps, so that no float64 copy of float32 features is made."""
    high = centre.to(dtype)
    low = (centre - high.double()).to(dtype)
    return (values.to(dtype) - high).sub_(low)


def shifted_blocks(values: Tensor, shift: Tensor, rows: int) -> Iterator[Tensor]:
    """Values minus the shift (d,), which has the working type, in blocks of so many rows.

    Every block is in the same memory, which the next one overwrites: fresh memory costs more than the subtraction.
    """
    scratch = shift.new_empty(min(rows, len(values)), len(shift))
    for block in blocks(values, rows):
        yield torch.sub(block, shift, out=scratch[: len(block)])


def checked_values(values: Tensor | np.ndarray, num_features: int) -> Tensor:
    """Features as a tensor; `ShapeError` where they have another width."""
    values = tensor_of(values, "values").detach()
    if values.ndim != 2 or values.shape[1] != num_features:
        raise ShapeError(
            f"`values` must be [n, {num_features}]; got {tuple(values.shape)}. Use features of the same encoder."
        )
    return values


def integers_of(labels: Tensor | np.ndarray) -> Tensor:
    """Labels as an int64 tensor; `InputError` where they are no integers."""
    labels = tensor_of(labels, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"`labels` must be integers; got {labels.dtype}. Convert them to int64.")
    return labels.long()


def checked(
    values: Tensor | np.ndarray, labels: Tensor | np.ndarray, num_features: int, num_classes: int, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """Features and int64 labels as tensors.

    Raises:
        ShapeError: features of another width, or not one label per row.
        InputError: labels that are no integers, or out of range; names the row.
    """
    values, labels = checked_values(values, num_features), integers_of(labels)
    if labels.shape != values.shape[:1]:
        raise ShapeError(f"`labels` must be one per row, [{len(values)}]; got {tuple(labels.shape)}. Match them by id.")
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        row = int(outside[0])
        most = int(labels.max()) + 1
        mend = "Re-index the labels" + (f" or fit with num_classes={most}." if most > num_classes else ".")
        raise InputError(
            f"`labels` must be in [0, {num_classes}); got {int(labels[row])} at row {row + first_row}. {mend}"
        )
    return values, labels


def not_finite(block: Tensor, first_row: int) -> InputError:
    """The error for a block whose sums or projections came out as NaN or infinite: found after the work, at no cost."""
    wrong = (~block.isfinite().all(dim=1)).nonzero()
    if len(wrong):
        row = int(wrong[0]) + first_row
        return InputError(f"`values` must be finite; got NaN or infinity at row {row}. Mend or leave out that sample.")
    largest = float(block.abs().max())
    return InputError(
        f"`values` must be below 1e18, so that their squares fit; got {largest:.3g} from row {first_row} on. "
        "Scale the features down."
    )
