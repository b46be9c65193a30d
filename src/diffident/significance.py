"""What is told from chance: permutations over samples, a t-test over seeds, Holm's correction; and mean ranks."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffident.bootstrap import MAX_ELEMENTS
from diffident.errors import InputError
from diffident.metrics import suite as suites
from diffident.metrics.inputs import row_blocks
from diffident.metrics.terms import SampleTerms, concatenate_terms

LEVEL = 0.05
"""Adjusted p-value below which a difference is called real."""
Values = dict[str, Float[Tensor, " r"]]
"""Of every metric on every resample."""
# Two methods are measured on the samples of both: four times the work of a resample of one run.
WORK_OF_PERMUTATION = 4
Did = Callable[[int], None]
"""Is told how much work was done."""


def is_real(low: float, high: float, adjusted_p: float) -> bool:
    """Whether a difference with this interval and this p-value after Holm's correction is told from chance."""
    return adjusted_p < LEVEL and not low <= 0 <= high


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction; undefined (NaN) p-values stay out of the count.

    Reference:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    defined = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted, largest = dict.fromkeys(p_values, math.nan), 0.0
    for place, (p, name) in enumerate(defined):
        largest = max(largest, min(1.0, p * (len(defined) - place)))
        adjusted[name] = largest
    return adjusted


def seed_p_value(differences: list[float]) -> float:
    """Two-sided paired t-test over seeds; 0 below two of them, which say nothing."""
    from scipy.special import stdtr  # scipy.stats takes seconds to import

    if len(differences) < 2:
        return 0.0
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation == 0:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(len(differences) - 1, -abs(mean) / deviation * math.sqrt(len(differences))))


def permutation_p_values(
    pairs: list[tuple[SampleTerms, SampleTerms]],
    metrics: Sequence[str],
    num_permutations: int,
    seed: int,
    did: Did,
) -> dict[str, float]:
    """Share of swaps, the one at hand included, that differ by at least as much.

    Both methods' samples are sorted together once: a swap then is a choice of n of the 2 n.

    Args:
        pairs: Terms of the method and of the baseline for every common seed.
        metrics: The metrics.
        num_permutations: Number of random swaps.
        seed: Their seed.
        did: Is told how much work was done.
    """
    pooled = [suites.prepare(concatenate_terms(list(pair))) for pair in pairs]
    size = len(pairs[0][0])
    found = _difference(pooled, torch.zeros(1, size, dtype=torch.bool), metrics)
    as_large = dict.fromkeys(metrics, 0)
    for swapped in _swaps(size, num_permutations, torch.Generator().manual_seed(seed)):
        drawn = _difference(pooled, swapped, metrics)
        for name in metrics:
            # What rounding makes of equal differences counts as equal; an undefined one counts as large.
            smaller = drawn[name].abs() < found[name].abs() * (1 - 1e-9) - 1e-15
            as_large[name] += int((~smaller).sum())
        did(WORK_OF_PERMUTATION * len(pairs) * len(swapped))
    return {name: (1 + as_large[name]) / (1 + num_permutations) for name in metrics}


def _swaps(size: int, num_permutations: int, generator: torch.Generator) -> Iterator[Bool[Tensor, "r n"]]:
    for rows in row_blocks(num_permutations, size, MAX_ELEMENTS):
        yield torch.randint(2, (rows.stop - rows.start, size), generator=generator, dtype=torch.uint8).bool()


def _difference(pooled: list[suites.Suite], swapped: Bool[Tensor, "r n"], metrics: Sequence[str]) -> Values:
    """The method minus the baseline, mean over seeds, with the swapped samples' outputs exchanged."""
    totals: Values = {}
    counts = torch.cat([~swapped, swapped], dim=1).to(torch.float64)
    for suite in pooled:
        ours = suites.drawn_metrics(suites.Drawn(suite, counts), metrics)
        theirs = suites.drawn_metrics(suites.Drawn(suite, 1 - counts), metrics)
        for name in metrics:
            totals[name] = totals.get(name, torch.zeros(())) + (ours[name] - theirs[name]) / len(pooled)
    return totals


def mean_ranks(values: Sequence[dict[str, float]], *, higher_is_better: bool) -> dict[str, float]:
    """Mean rank of every method over data sets, 1 the best; tied methods share their mean rank.

    Args:
        values: Method to value, one mapping per data set; all hold the same methods.
        higher_is_better: The direction.

    Raises:
        InputError: a method that one of the data sets lacks.

    Reference:
        Demšar 2006, "Statistical comparisons of classifiers over multiple data sets".
    """
    from scipy.stats import rankdata

    names = list(values[0])
    for number, one in enumerate(values):
        for name in set(names) ^ set(one):
            raise InputError(
                f"`values` must hold the same methods for every data set; got {name!r} only in some (data set "
                f"{number}). Leave it out, or run it on all."
            )
    sign = -1 if higher_is_better else 1
    ranks = [rankdata([sign * one[name] for name in names], nan_policy="propagate") for one in values]
    return dict(zip(names, np.mean(ranks, axis=0).tolist(), strict=True))
