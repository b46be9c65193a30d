"""Exact binomial bounds, for what a resample of a handful of samples says too little about."""

import math

import numpy as np
from jaxtyping import Float

from diffident.metrics.calibration import BinSums
from diffident.metrics.ranking import CumulativeCounts
from diffident.metrics.selective import within_risk
from diffident.records import Estimate

TAIL = 0.025
"""Chance that an end of an interval is on the wrong side of the truth."""


def proportion_bounds(
    hits: Float[np.ndarray, " b"], sizes: Float[np.ndarray, " b"], tail: float = TAIL
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """What a share can be, given how often it was met: each end is beyond it with a chance of `tail` at most.

    Args:
        hits: How often; a part of one, where ties count by expectation, lies between whole numbers.
        sizes: Of how many, each at least 1.
        tail: The chance.

    Returns:
        low, high, in [0, 1].

    Reference:
        Clopper and Pearson 1934.
    """
    from scipy.special import betaincinv  # scipy.stats takes seconds to import

    misses = sizes - hits
    low = np.where(hits > 0, betaincinv(np.where(hits > 0, hits, 1), misses + 1, tail), 0)
    high = np.where(misses > 0, betaincinv(hits + 1, np.where(misses > 0, misses, 1), 1 - tail), 1)
    return low, high


def share_of(hits: float, size: float) -> Estimate:
    """A share with its interval by `proportion_bounds`; NaN of nothing."""
    if not size:
        return Estimate(math.nan, math.nan, math.nan)
    low, high = proportion_bounds(np.array([float(hits)]), np.array([float(size)]))
    value = float(hits) / float(size)
    return Estimate(value, min(float(low[0]), value), max(float(high[0]), value))


def least_mce(bins: BinSums) -> float:
    """The largest gap that some bin has for certain, by the bounds of its accuracy over all bins (Bonferroni)."""
    filled = bins.sizes[0] > 0
    sizes, hits = bins.sizes[0][filled].numpy(), bins.hits[0][filled].numpy()
    confidence = bins.scores[0][filled].numpy() / sizes
    low, high = proportion_bounds(hits, sizes, TAIL / len(sizes))
    return float(np.maximum(np.maximum(confidence - high, low - confidence), 0).max())


def overall_gap_bounds(bins: BinSums) -> tuple[float, float]:
    """How near and how far the mean confidence of all samples can be to their accuracy, by the accuracy's bounds."""
    size = float(bins.sizes.sum())
    accuracy = share_of(float(bins.hits.sum()), size)
    confidence = float(bins.scores.sum()) / size
    above, below = confidence - accuracy.low, accuracy.high - confidence
    return max(0.0, -above, -below), max(above, below)


def coverage_at_risk_bounds(cumulative: CumulativeCounts, risk: float) -> tuple[float, float]:
    """What the coverage can be that has this risk, from tests of every threshold.

    A threshold whose true risk is `risk` has no more errors than `high` allows, but for a chance of `TAIL`. One with a
    greater risk has no fewer than `low` asks for; as many of them are looked at, the chance is divided by how often
    their expected errors double, which is no proof but held in simulations (benchmarks/interval_coverage.py). Short of
    all, the share of samples above a threshold has its own bounds.

    Args:
        cumulative: Counts of the samples themselves (r = 1).
        risk: In [0, 1).

    Returns:
        low, high, in [0, 1]; the coverage of the samples lies between them.
    """
    from scipy.special import betainc

    totals, wrong = cumulative.totals[0, 1:].numpy(), cumulative.positives[0, 1:].numpy()
    allowed = within_risk(cumulative, risk)[0, 1:].numpy()
    at_least = np.where(wrong > 0, betainc(np.maximum(wrong, 1), totals - wrong + 1, risk), 1)
    at_most = np.where(wrong < totals, 1 - betainc(wrong + 1, np.maximum(totals - wrong, 1), risk), 1)
    looks = 1 + max(np.log2(totals[-1] * risk), 0) if risk else 1
    possible, certain = allowed | (at_least > TAIL), allowed & (at_most <= TAIL / looks)
    accepted = np.array([totals[some].max(initial=0) for some in (certain, possible)])
    low, high = proportion_bounds(accepted, np.full(2, totals[-1]))
    least, most = np.where(accepted < totals[-1], (low[0], high[1]), 1).tolist()
    return least, most
