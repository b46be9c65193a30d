"""Sufficient statistics of labelled features: one pass, small, mergeable."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.gaussian.blocks import centred, check, not_finite, working_type

# Rows of a block: large enough for a fast product; and rows whose mean is near enough to the mean of all.
_FIT_ROWS, _SHIFT_ROWS = 8_192, 1_024
# Part of the total variance that a sum of products resolves: within-class variance below it is rounding.
_RESOLUTION = {torch.float32: 1e-7, torch.float64: 1e-13}


@dataclass(frozen=True)
class GaussianStatistics:
    """Sufficient statistics of labelled features; small, and mergeable across shards and machines.

    Attributes:
        shift: Subtracted from every feature, so that a mean far from zero costs no precision (d,), float64.
        counts: Samples of each class (K,), int64.
        sums: Sum of shifted features of each class (K, d), float64.
        gram: Sum of the shifted features' outer products (d, d), float64.
        resolution: Part of the total variance below which the statistics hold nothing but rounding.
    """

    shift: Float[Tensor, " d"]
    counts: Int[Tensor, " k"]
    sums: Float[Tensor, "k d"]
    gram: Float[Tensor, "d d"]
    resolution: float = _RESOLUTION[torch.float64]

    @classmethod
    def start(cls, values: Float[Tensor, "n d"], num_classes: int) -> "GaussianStatistics":
        """Empty statistics, shifted by about the mean of these features: that of the first rows will do."""
        if num_classes < 1:
            raise InputError(f"`num_classes` must be at least 1; got {num_classes}. Count the labels' classes.")
        head = values[:_SHIFT_ROWS].double()
        shift = (
            torch.nan_to_num(head.mean(dim=0), posinf=0.0, neginf=0.0) if len(head) else head.new_zeros(head.shape[1])
        )
        num_features = values.shape[1]
        zeros = shift.new_zeros
        counts = torch.zeros(num_classes, dtype=torch.int64, device=values.device)
        return cls(shift, counts, zeros(num_classes, num_features), zeros(num_features, num_features))

    @property
    def num_samples(self) -> int:
        """Samples seen so far."""
        return int(self.counts.sum())

    def updated(
        self, values: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, first_row: int = 0
    ) -> "GaussianStatistics":
        """The statistics with these samples added; `first_row` numbers the first of them in errors.

        Raises:
            ShapeError: another width than before, or another number of labels.
            InputError: a feature that is NaN or infinite, or a label outside [0, K); names the row.
        """
        check(values, labels, len(self.shift), len(self.counts), first_row)
        counts, sums, gram = self.counts.clone(), self.sums.clone(), self.gram.clone()
        counts += torch.bincount(labels, minlength=len(counts))
        dtype = working_type(values)
        for start in range(0, len(values), _FIT_ROWS):
            block = centred(values[start : start + _FIT_ROWS], self.shift, dtype)
            block_sums = _class_sums(block, labels[start : start + _FIT_ROWS], len(counts))
            product = _gram(block)
            if not bool(block_sums.isfinite().all() and product.diagonal().isfinite().all()):
                raise not_finite(values[start : start + _FIT_ROWS], first_row + start)
            sums += block_sums
            gram += product
        resolution = max(self.resolution, _RESOLUTION[dtype])
        return replace(self, counts=counts, sums=sums, gram=gram, resolution=resolution)

    def merge(self, other: "GaussianStatistics") -> "GaussianStatistics":
        """The statistics of both sets of samples, exact although their shifts differ."""
        if self.sums.shape != other.sums.shape:
            raise ShapeError(
                f"`other` must have shape {tuple(self.sums.shape)} (classes, features); got {tuple(other.sums.shape)}. "
                "Start both with the same number of classes on features of the same encoder."
            )
        moved = other.shift - self.shift
        total = other.sums.sum(dim=0)
        outer = torch.outer(moved, total)
        gram = other.gram + outer + outer.T + other.num_samples * torch.outer(moved, moved)
        sums = other.sums + other.counts[:, None] * moved
        resolution = max(self.resolution, other.resolution)
        counts = self.counts + other.counts
        return replace(self, counts=counts, sums=self.sums + sums, gram=self.gram + gram, resolution=resolution)


def _class_sums(block: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sum of each class's rows (K, d), float64: rows are gathered by class, which no scatter of rows is as fast as."""
    counts = torch.bincount(labels, minlength=num_classes)
    order = labels.argsort(stable=True)
    return F.embedding_bag(order, block, counts.cumsum(0) - counts, mode="sum").double()


def _gram(block: Tensor) -> Tensor:
    """block^T block in float64. NumPy takes the symmetric product (half the work), which torch has not."""
    if block.device.type == "cpu":
        array = block.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # named by the caller
            return torch.from_numpy(array.T @ array).double()
    return (block.T @ block).double()
