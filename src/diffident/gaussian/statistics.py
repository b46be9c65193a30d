"""Sufficient statistics of labelled features: one pass, small, mergeable."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.gaussian.blocks import Labels, Values, checked, not_finite, shifted_blocks, working_type
from diffident.records import tensor_of

# Rows of a block: large enough for a fast product; and rows whose mean is near enough to the mean of all.
_FIT_ROWS, _SHIFT_ROWS = 8_192, 1_024
# Panels of columns of the symmetric product: four take 5/8 of the work, more of them are slower again.
_PANELS = 4
# Part of the total variance that a sum of products resolves: within-class variance below it is rounding.
_RESOLUTION = {torch.float32: 1e-7, torch.float64: 1e-13}


@dataclass(frozen=True)
class GaussianStatistics:
    """Sufficient statistics of labelled features; small, and mergeable across shards and machines.

    Attributes:
        shift: Subtracted from every feature, so that a mean far from zero costs no precision (d,), float64; rounded to
            float32, so that it can be subtracted from float32 features as it is.
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
    def start(cls, values: Values, num_classes: int) -> "GaussianStatistics":
        """Empty statistics, shifted by about the mean of these features: that of the first rows will do."""
        if num_classes < 1:
            raise InputError(f"`num_classes` must be at least 1; got {num_classes}. Count the labels' classes.")
        values = tensor_of(values, "values").detach()
        head = values[:_SHIFT_ROWS].double()
        mean = head.mean(dim=0) if len(head) else head.new_zeros(head.shape[1])
        shift = torch.nan_to_num(mean.float(), nan=0.0, posinf=0.0, neginf=0.0).double()
        num_features = values.shape[1]
        zeros = shift.new_zeros
        counts = torch.zeros(num_classes, dtype=torch.int64, device=values.device)
        return cls(shift, counts, zeros(num_classes, num_features), zeros(num_features, num_features))

    @property
    def num_samples(self) -> int:
        """Samples seen so far."""
        return int(self.counts.sum())

    def updated(self, values: Values, labels: Labels, *, first_row: int = 0) -> "GaussianStatistics":
        """The statistics with these samples added; `first_row` numbers the first of them in errors.

        Raises:
            ShapeError: another width than before, or another number of labels.
            InputError: a feature that is NaN or infinite, or a label outside [0, K); names the row.
        """
        values, labels = checked(values, labels, len(self.shift), len(self.counts), first_row)
        counts, sums, gram = self.counts.clone(), self.sums.clone(), self.gram.clone()
        counts += torch.bincount(labels, minlength=len(counts))
        dtype = working_type(values)
        blocks = shifted_blocks(values, self.shift.to(dtype), _FIT_ROWS)
        for start, block in zip(range(0, len(values), _FIT_ROWS), blocks, strict=True):
            _add_class_sums(sums, block, labels[start : start + _FIT_ROWS])
            _add_products(gram, block)
            if not bool(gram.diagonal().isfinite().all()):  # a sum that overflowed has squares that did
                raise not_finite(values[start : start + _FIT_ROWS], first_row + start)
        _mirror(gram)
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

    def without(self, other: "GaussianStatistics") -> "GaussianStatistics":
        """The statistics without samples that are among these, exact although the shifts differ."""
        minus = replace(other, counts=-other.counts, sums=-other.sums, gram=-other.gram)
        return self.merge(minus)


def _add_class_sums(sums: Tensor, block: Tensor, labels: Tensor) -> None:
    """Add each class's rows: gathered by class, which no scatter of rows is as fast as."""
    counts = torch.bincount(labels, minlength=len(sums))
    order = labels.argsort(stable=True)
    sums += F.embedding_bag(order, block, counts.cumsum(0) - counts, mode="sum")


def _add_products(gram: Tensor, block: Tensor) -> None:
    """Add block^T block above and on the diagonal, by panels of columns: what is below follows by symmetry."""
    for start, stop in _panels(len(gram)):
        gram[start:stop, start:] += block[:, start:stop].T @ block[:, start:]


def _mirror(gram: Tensor) -> None:
    """Fill what `_add_products` leaves out."""
    for start, stop in _panels(len(gram)):
        gram[stop:, start:stop] = gram[start:stop, stop:].T


def _panels(size: int) -> Iterator[tuple[int, int]]:
    edges = [size * panel // _PANELS for panel in range(_PANELS + 1)]
    return pairwise(edges)
