"""Checks of predictions and labels: each fault is named with its row, nothing is guessed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.records import tensor_of

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from summing to 1; in half precision two units in the last place of 1."""
BLOCK_ELEMENTS = 250_000
"""Entries of one block of rows in float64: bounds the memory, 2 MB an array, which a processor's cache holds."""


@dataclass(frozen=True)
class ClassScores:
    """Checked outputs of a classifier, kept as they were given; blocks of rows are converted when they are needed.

    Attributes:
        values: Logits or probabilities (n, c), of any numeric type.
        are_probs: Whether they are probabilities.
    """

    values: Tensor
    are_probs: bool

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_classes(self) -> int:
        """Number of columns."""
        return self.values.shape[1]

    def block(self, rows: slice) -> "ScoreBlock":
        """Some rows."""
        return ScoreBlock(self.values[rows], self.are_probs)

    def blocks(self, block_elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
        """Consecutive blocks of rows."""
        return row_blocks(len(self), self.num_classes, block_elements)


class ScoreBlock:
    """Some rows of scores in float64, each part worked out when it is first asked for."""

    def __init__(self, values: Tensor, are_probs: bool):
        self.values, self.are_probs = values, are_probs

    @cached_property
    def predictions(self) -> Int[Tensor, " n"]:
        """The class of the largest value, the lowest among tied ones."""
        if self.values.dtype == torch.bfloat16:
            return self.values.argmax(dim=1)
        return torch.from_numpy(self.values.numpy().argmax(axis=1))  # three times as fast as torch's

    @cached_property
    def probs(self) -> Float[Tensor, "n c"]:
        """Probabilities, as they were given or by softmax."""
        return self.values.to(torch.float64) if self.are_probs else self._weights / self._totals[:, None]

    def probability(self, columns: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The probability of one class of every row."""
        if self.are_probs:
            return at(self.values, columns).to(torch.float64)
        return at(self._weights, columns) / self._totals

    def nll(self, labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Minus the log-probability of the labels.

        Of logits it is exact however small the probability is; a probability of 0 counts as the least normal float32.
        """
        if self.are_probs:
            return -self.probability(labels).clamp_min(torch.finfo(torch.float32).tiny).log()
        return self._totals.log() - (at(self.values, labels).to(torch.float64) - self._largest)

    @cached_property
    def _largest(self) -> Float[Tensor, " n"]:
        return at(self.values, self.predictions).to(torch.float64)

    @cached_property
    def _weights(self) -> Float[Tensor, "n c"]:
        return (self.values.to(torch.float64) - self._largest[:, None]).exp_()

    @cached_property
    def _totals(self) -> Float[Tensor, " n"]:
        return self._weights.sum(dim=1)


def at(values: Tensor, columns: Int[Tensor, " n"]) -> Tensor:
    """One entry of every row (n,)."""
    return values.gather(1, columns[:, None]).squeeze(1)


def row_blocks(num_rows: int, num_columns: int, block_elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Consecutive blocks of rows of at most `block_elements` entries, or of one row."""
    step = max(1, block_elements // num_columns)
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def check_scores(
    logits: Tensor | np.ndarray | None,
    probs: Tensor | np.ndarray | None,
    labels: Tensor | np.ndarray | None,
    *,
    called: str,
) -> ClassScores:
    """The one of `logits` and `probs` that is given, checked; `called` is the function, for messages."""
    if (logits is None) == (probs is None) or labels is None:
        given = {"logits": logits, "labels": labels, "probs": probs}
        shown = " and ".join(f"`{name}`" for name, value in given.items() if value is not None)
        raise InputError(
            f"`{called}` must get `labels` and either `logits` or `probs`; got {shown or 'none of them'}. "
            f"Leave out the other."
        )
    if logits is None:
        assert probs is not None  # one of the two is given
        return check_probs(probs, "probs")
    return check_logits(logits, "logits", probs_as="Give probabilities as `probs=`.")


def check_logits(logits: Tensor | np.ndarray, name: str, *, probs_as: str, where: str = "") -> ClassScores:
    """Logits [n, c], finite, that are not plainly probabilities.

    Args:
        logits: The values.
        name: What they are called in messages.
        probs_as: How to say that they are probabilities, for a message.
        where: What the rows belong to, for a message: " of FILE".

    Raises:
        InputError: not a numeric array [n, c] with n and c at least 1; a NaN or infinite entry, named by its row; rows
            that are all probabilities.
    """
    values = _matrix(logits, name)
    scores = ClassScores(values, are_probs=False)
    if not values.is_floating_point():
        values = values.to(torch.float64)
    for rows in scores.blocks():
        _check_finite(values[rows], name, rows.start, where)
    if values.shape[1] > 1 and _rows_are_probabilities(values, scores):
        raise InputError(
            f"`{name}`{where} must be logits; got rows that are at least 0 and sum to 1, as probabilities do. "
            f"{probs_as} If they are logits all the same, add a constant to every row: that changes no probability."
        )
    return scores


def check_probs(
    probs: Tensor | np.ndarray, name: str, *, where: str = "", logits_as: str = "name them `logits`"
) -> ClassScores:
    """Probabilities [n, c]: at least 0, with rows that sum to 1 within 0.001.

    Args:
        probs: The values.
        name: What they are called in messages.
        where: What the rows belong to, for a message: " of FILE".
        logits_as: How to say that they are logits, for a message.

    Raises:
        InputError: not a numeric array [n, c] with n and c at least 1; a NaN or infinite entry, a negative one, or a
            row with another sum, named by its row.
    """
    values = _matrix(probs, name)
    if not values.is_floating_point():
        values = values.to(torch.float64)
    scores = ClassScores(values, are_probs=True)
    for rows in scores.blocks():
        block = values[rows]
        total = block.sum(dim=1, dtype=torch.float64 if block.dtype == torch.float64 else torch.float32)
        tolerance = _tolerance(block.dtype)
        if bool(((total - 1).abs() <= tolerance).all()) and float(block.min()) >= 0:  # not so with NaN
            continue
        _check_finite(block, name, rows.start, where)
        least = block.amin(dim=1)
        if bool((least < 0).any()):
            row = int((least < 0).nonzero()[0])
            raise InputError(
                f"`{name}` must be at least 0; got {float(least[row]):g} at row {rows.start + row}{where}. "
                f"If these are logits, {logits_as}."
            )
        row = int(((total - 1).abs() > tolerance).nonzero()[0])
        raise InputError(
            f"`{name}` must sum to 1 in every row; got {float(total[row]):g} at row {rows.start + row}{where}. "
            f"If these are logits, {logits_as}."
        )
    return scores


def check_labels(labels: Tensor | np.ndarray, num_samples: int, num_classes: int) -> Int[Tensor, " n"]:
    """The labels as int64 on the CPU.

    Raises:
        InputError: not integers [n], or one outside [0, c), named by its row.
    """
    values = as_tensor(labels, "labels")
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


def as_tensor(values: Tensor | np.ndarray, name: str) -> Tensor:
    """`tensor_of` on the CPU, without a gradient."""
    return tensor_of(values, name).detach().cpu()


def _matrix(values: Tensor | np.ndarray, name: str) -> Tensor:
    matrix = as_tensor(values, name)
    if matrix.ndim != 2:
        raise ShapeError(f"`{name}` must have shape [n, c]; got {list(matrix.shape)}. Give one row per sample.")
    if not matrix.numel():
        raise InputError(f"`{name}` must have at least one row and column; got {list(matrix.shape)}. Check the file.")
    return matrix


def _check_finite(block: Tensor, name: str, start: int, where: str) -> None:
    finite = block.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        bad = float(block[row, column])
        raise InputError(
            f"`{name}` must be finite; got {bad:g} at row {start + row}, column {column}{where}. "
            f"{'Clamp log(0) to a large negative number.' if bad == -math.inf else 'Look for a diverged model.'}"
        )


def _rows_are_probabilities(values: Tensor, scores: ClassScores) -> bool:
    for rows in scores.blocks():
        block = values[rows].to(torch.float64)
        if bool((block < 0).any()) or bool(((block.sum(dim=1) - 1).abs() > _tolerance(values.dtype)).any()):
            return False
    return True


def _tolerance(kind: torch.dtype) -> float:
    return max(SUM_TOLERANCE, 2 * torch.finfo(kind).eps) if kind.is_floating_point else SUM_TOLERANCE
