"""The bootstrap by counts: a resample is how often it draws each sample, so nothing is copied or sorted again."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.errors import InputError
from diffident.records import Estimate

MAX_ELEMENTS = 1_000_000
"""Entries of one chunk of counts: bounds the memory, 8 MB an array."""


def resampling_counts(
    sizes: Sequence[int], num_resamples: int, generator: torch.Generator, max_elements: int = MAX_ELEMENTS
) -> Iterator[Float[Tensor, "r n"]]:
    """Multinomial counts of bootstrap resamples, in chunks of rows.

    Args:
        sizes: Number of samples of each stratum; every stratum is resampled on its own and keeps its size.
        num_resamples: Rows over all chunks.
        generator: Source of the randomness, on the CPU.
        max_elements: Entries of one chunk; at least one row is made.

    Yields:
        float64 (r, n) with n the sum of the sizes: how often each resample draws each sample.
    """
    if num_resamples < 0:
        raise InputError(f"`num_resamples` must be at least 0; got {num_resamples}. 0 skips the intervals.")
    if not sizes or min(sizes) < 1:
        raise InputError(f"`sizes` must be at least 1 each; got {list(sizes)}. Leave out empty sets.")
    total = sum(sizes)
    rows_left = num_resamples
    while rows_left:
        rows = min(rows_left, max(1, max_elements // total))
        counts = torch.zeros(rows, total, dtype=torch.float64)
        for row in counts:
            start = 0
            for size in sizes:
                drawn = torch.randint(size, (size,), generator=generator)
                row[start : start + size] = torch.bincount(drawn, minlength=size)
                start += size
        rows_left -= rows
        yield counts


def percentile_interval(values: Float[Tensor, " r"], level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the resampled values, interpolated; undefined (NaN) resamples are left out.

    Returns:
        low, high; NaN where there are no values.
    """
    values = values[~values.isnan()]
    if not len(values):
        return math.nan, math.nan
    tails = values.new_tensor([(1 - level) / 2, (1 + level) / 2])
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def bootstrap(
    metrics: Callable[[Float[Tensor, "r n"]], dict[str, Tensor]],
    sizes: Sequence[int],
    *,
    num_resamples: int = 500,
    generator: torch.Generator,
    level: float = 0.95,
    max_elements: int = MAX_ELEMENTS,
) -> dict[str, Estimate]:
    """Values on the samples themselves, with percentile intervals from resamples.

    Args:
        metrics: Values (r,) by name for counts (r, n).
        sizes: Number of samples of each stratum, in the order of the columns of the counts.
        num_resamples: 0 gives NaN for low and high.
        generator: Source of the randomness, on the CPU.
        level: Share of the resampled values inside the interval.
        max_elements: Entries of one chunk of counts.

    Returns:
        An estimate by name; all NaN where the value itself is undefined.

    Reference:
        Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    values = metrics(torch.ones(1, sum(sizes), dtype=torch.float64))
    chunks = [metrics(counts) for counts in resampling_counts(sizes, num_resamples, generator, max_elements)]
    estimates = {}
    for name, value in values.items():
        low = high = math.nan
        if chunks and not math.isnan(value.item()):
            low, high = percentile_interval(torch.cat([chunk[name] for chunk in chunks]), level)
        estimates[name] = Estimate(value.item(), low, high)
    return estimates
