"""Exact bounds: by hand, against scipy's binomial distribution, and that they hold the truth."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffident.evaluation import evaluate
from diffident.metrics.bounds import coverage_at_risk_bounds, proportion_bounds
from diffident.metrics.ranking import rank_samples


@pytest.mark.parametrize(("hits", "size"), [(0, 20), (1, 20), (13, 20), (20, 20), (1, 1)])
def test_bounds_of_a_proportion_are_those_of_scipy(hits, size):
    low, high = proportion_bounds(np.array([float(hits)]), np.array([float(size)]))
    expected = stats.binomtest(hits, size).proportion_ci(0.95, method="exact")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_bounds_of_parts_lie_between_those_of_whole_numbers():
    low, high = proportion_bounds(np.array([0.0, 0.3, 1.0, 19.0, 19.9, 20.0]), np.full(6, 20.0))
    assert (np.diff(low) > 0).all()
    assert (np.diff(high)[:4] > 0).all()
    assert high[3] < high[4] <= high[5] == 1


def test_accuracy_without_an_error_has_an_interval():
    probs = torch.tensor([[0.9, 0.1]]).repeat(30, 1)
    accuracy = evaluate(probs=probs, labels=torch.zeros(30, dtype=torch.long), num_resamples=10).metrics["accuracy"]
    assert (accuracy.value, accuracy.high) == (1, 1)
    assert accuracy.low == pytest.approx(0.025 ** (1 / 30))


def test_a_risk_without_an_error_has_an_interval():
    confidence = torch.linspace(0.99, 0.6, 100, dtype=torch.float64)
    labels = (torch.arange(100) >= 92).long()
    found = evaluate(probs=torch.stack([confidence, 1 - confidence], dim=1), labels=labels, num_resamples=50).metrics
    assert (found["risk_at_coverage_80"].value, found["risk_at_coverage_80"].low) == (0, 0)
    assert found["risk_at_coverage_80"].high == pytest.approx(1 - 0.025 ** (1 / 80))
    assert found["risk_at_coverage_90"].high >= 1 - 0.025 ** (1 / 90) - 1e-12


def bounds(errors, risk, confidence=None):
    confidence = torch.linspace(1, 0, len(errors), dtype=torch.float64) if confidence is None else confidence
    return coverage_at_risk_bounds(rank_samples(confidence, torch.tensor(errors, dtype=torch.bool)).cumulate(), risk)


def test_bounds_of_a_coverage_by_hand():
    # 96 right ones, then 4 wrong ones, at a risk of 0.05: the expected errors double log2(5) times.
    least = 0.025 / (1 + np.log2(5))
    assert 0.95**96 < least < 0.95**95
    low, high = bounds([False] * 96 + [True] * 4, 0.05)
    assert low == pytest.approx(stats.binomtest(96, 100).proportion_ci(0.95, method="exact").low)
    assert high == 1  # 4 of 100 are fewer than 5
    low, high = bounds([False] * 95 + [True] * 5, 0.05)
    assert low == 0


def test_a_coverage_ends_where_errors_are_too_many_for_chance():
    errors = [False] * 50 + [True] * 50
    last = max(k for k in range(1, 101) if stats.binom.sf(sum(errors[:k]) - 1, k, 0.05) > 0.025)
    low, high = bounds(errors, 0.05)
    assert low == 0
    assert high == pytest.approx(stats.binomtest(last, 100).proportion_ci(0.95, method="exact").high)


def test_bounds_of_a_coverage_know_ties_and_extremes():
    tied = torch.full((40,), 0.7, dtype=torch.float64)
    assert bounds([True] * 20 + [False] * 20, 0.01, tied) == (0, pytest.approx(stats.beta.ppf(0.975, 1, 40)))
    assert bounds([False] * 40, 0.0) == (0, 1)
    assert bounds([True], 0.05) == (0, 1)  # as happens 5 times in 100
    assert bounds([False] * 1000, 0.05) == (1, 1)


def test_coverage_of_a_flat_risk_holds_nothing():
    # Wrong in 3 of 100 everywhere: no threshold has a risk of 0.01, though the surest of any sample are right.
    low_is_zero, value_is_zero = 0, 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        confidence = torch.rand(1000, generator=generator, dtype=torch.float64) / 2 + 0.5
        labels = (torch.rand(1000, generator=generator) < 0.03).long()
        probs = torch.stack([confidence, 1 - confidence], dim=1)
        found = evaluate(probs=probs, labels=labels, num_resamples=2).metrics["coverage_at_risk_1"]
        assert found.low <= found.value <= found.high
        low_is_zero += found.low == 0
        value_is_zero += found.value == 0
    assert low_is_zero >= 38
    assert value_is_zero < 10
