"""The bootstrap by counts: a resample is how often it draws each sample, so nothing is copied or sorted again."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.errors import InputError
from diffident.records import Estimate

MAX_ELEMENTS = 250_000
"""Entries of one chunk of counts: bounds the memory, 2 MB an array, which a processor's cache holds."""


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


def resampling_blocks(
    blocks: Iterable[int], num_resamples: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "r n"]]:
    """Multinomial counts as `resampling_counts` of one stratum, in chunks of columns for all resamples at once.

    For what is summed over blocks of samples, each of which is dear to make.

    Args:
        blocks: Number of samples of each block.
        num_resamples: Rows of every chunk.
        generator: Source of the randomness, on the CPU.

    Yields:
        float64 (r, n) for every block; over all blocks a row sums to the number of samples.
    """
    blocks = list(blocks)
    unseen = sum(blocks)
    left = torch.full((num_resamples,), float(unseen), dtype=torch.float64)
    rows = torch.arange(num_resamples)
    for size in blocks:
        share = torch.full_like(left, size / unseen)
        here = left if size == unseen else torch.binomial(left, share, generator=generator)
        cells = rows.repeat_interleave(here.long()) * size
        cells += torch.randint(size, (len(cells),), generator=generator)
        yield torch.bincount(cells, minlength=num_resamples * size).view(num_resamples, size).to(torch.float64)
        left, unseen = left - here, unseen - size


@dataclass(frozen=True)
class Deviations:
    """Resampled bounds of estimate minus truth, for what a resample moves in one direction.

    Attributes:
        fall: Upper bound of estimate minus truth (r,).
        rise: Lower bound of estimate minus truth (r,).
        floor: Least value that the metric can take.
        ceiling: Greatest value that the metric can take.
    """

    fall: Float[Tensor, " r"]
    rise: Float[Tensor, " r"]
    floor: float = 0.0
    ceiling: float = 1.0


Draws = Tensor | Deviations


def estimate_of(value: float, draws: Draws, level: float = 0.95) -> Estimate:
    """A value with its interval: percentiles of resampled values, or of deviations subtracted from the value.

    The interval holds the value; NaN where the value is undefined or there are no resamples.
    """
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan)
    if isinstance(draws, Deviations):
        low = max(draws.floor, value - percentile_interval(draws.fall, level)[1])
        high = min(draws.ceiling, value - percentile_interval(draws.rise, level)[0])
    else:
        low, high = percentile_interval(draws, level)
    return Estimate(value, min(low, value), max(high, value))


def join_draws(chunks: Sequence[Draws]) -> Draws:
    """The draws of all chunks of resamples, one after the other."""
    plain = [chunk for chunk in chunks if isinstance(chunk, Tensor)]
    if len(plain) == len(chunks):
        return torch.cat(plain)
    parts = [chunk for chunk in chunks if isinstance(chunk, Deviations)]
    return replace(
        parts[0], fall=torch.cat([part.fall for part in parts]), rise=torch.cat([part.rise for part in parts])
    )


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


def resampled(
    resample: Callable[[Float[Tensor, "r n"]], Mapping[str, Draws]],
    sizes: Sequence[int],
    num_resamples: int,
    generator: torch.Generator,
    max_elements: int = MAX_ELEMENTS,
) -> dict[str, Draws]:
    """The draws of all resamples by name; arguments as for `bootstrap`, at least one resample."""
    chunks = [resample(counts) for counts in resampling_counts(sizes, num_resamples, generator, max_elements)]
    return {name: join_draws([chunk[name] for chunk in chunks]) for name in chunks[0]}


def bootstrap(
    values: Mapping[str, float],
    resample: Callable[[Float[Tensor, "r n"]], Mapping[str, Draws]],
    sizes: Sequence[int],
    *,
    num_resamples: int = 1000,
    generator: torch.Generator,
    level: float = 0.95,
    max_elements: int = MAX_ELEMENTS,
) -> dict[str, Estimate]:
    """Values on the samples themselves with intervals from resamples.

    Args:
        values: Values by name.
        resample: Draws by the same names for counts (r, n): values (r,), or `Deviations`.
        sizes: Number of samples of each stratum, in the order of the columns of the counts.
        num_resamples: 0 gives NaN for low and high.
        generator: Source of the randomness, on the CPU.
        level: Share of the draws inside the interval.
        max_elements: Entries of one chunk of counts.

    Returns:
        An estimate by name; all NaN where the value itself is undefined.

    Reference:
        Efron and Tibshirani 1993, chapter 13 (percentile interval).
    """
    if not num_resamples:
        return {name: Estimate(value, math.nan, math.nan) for name, value in values.items()}
    draws = resampled(resample, sizes, num_resamples, generator, max_elements)
    return {name: estimate_of(value, draws[name], level) for name, value in values.items()}
