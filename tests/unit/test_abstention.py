import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from diffident import abstention
from diffident.abstention import fit_abstention
from diffident.errors import InputError, ShapeError


def sample(n, generator, exponent=3.0):
    """Confidence uniform in [0, 1] and errors of probability (1 - confidence)^exponent."""
    confidence = torch.rand(n, generator=generator, dtype=torch.float64)
    errors = torch.rand(n, generator=generator, dtype=torch.float64) < (1 - confidence) ** exponent
    return confidence, errors


def true_risk(threshold, exponent=3.0):
    """Error rate above a threshold: the mean of (1 - confidence)^exponent over [threshold, 1]."""
    return (1 - threshold) ** exponent / (exponent + 1)


def laxest_measured(confidence, errors, target):
    """The laxest threshold whose measured error rate is at most the target: no guarantee."""
    order = np.argsort(-confidence.numpy())
    rates = np.cumsum(errors.numpy()[order]) / np.arange(1, len(order) + 1)
    kept = np.flatnonzero(rates <= target)
    return confidence[order[kept[-1]]].item() if len(kept) else math.inf


@pytest.mark.parametrize(("target", "delta"), [(0.05, 0.1), (0.1, 0.2)])
def test_the_target_is_broken_in_at_most_delta_of_the_draws(target, delta):
    generator = torch.Generator().manual_seed(0)
    broken, naive, coverage = 0, 0, []
    for _ in range(500):
        confidence, errors = sample(800, generator)
        found = fit_abstention(confidence, errors, target=target, delta=delta)
        broken += found.certified and true_risk(found.threshold) > target
        naive += true_risk(laxest_measured(confidence, errors, target)) > target
        coverage.append(found.coverage)
    assert broken / 500 <= delta
    assert naive / 500 > 2 * delta  # so the test can fail
    # The best possible accepts from (4 target)^(1/3) below 1 on.
    assert np.mean(coverage) > 0.65 * (4 * target) ** (1 / 3)


def test_with_more_samples_more_is_accepted():
    generator = torch.Generator().manual_seed(1)
    found = [fit_abstention(*sample(n, generator), target=0.05) for n in (200, 2_000, 200_000)]
    assert found[0].coverage < found[1].coverage < found[2].coverage
    assert true_risk(found[2].threshold) == pytest.approx(0.05, abs=0.004)


def test_the_record_holds_what_was_measured():
    confidence, errors = sample(2_000, torch.Generator().manual_seed(2))
    found = fit_abstention(confidence, errors, target=0.05)
    accepted = confidence >= found.threshold
    assert found.coverage == pytest.approx(float(accepted.double().mean()))
    assert found.selective_risk == pytest.approx(float(errors[accepted].double().mean()))
    expected = binom.cdf(int(errors[accepted].sum()), int(accepted.sum()), 0.05)
    assert found.p_value == pytest.approx(expected)
    assert found.p_value <= 0.005
    assert str(found).startswith(f"Accept from confidence {found.threshold:.4f} on for an error rate of at most 0.05 ")


@pytest.mark.parametrize("n", [104, 105])
def test_all_right_needs_so_many_samples(n):
    # 0.95^104 = 0.0048 <= 0.1 / 20 < 0.95^103
    found = fit_abstention(torch.full((n - 1,), 0.9).double(), torch.zeros(n - 1).bool(), target=0.05)
    assert found.least_accepted == 104
    assert found.certified is (n == 105)
    assert found.coverage == (1.0 if n == 105 else 0.0)


def test_all_wrong_is_never_certified():
    found = fit_abstention(torch.full((500,), 0.99).double(), torch.ones(500).bool(), target=0.1)
    assert (found.threshold, found.coverage, found.p_value) == (math.inf, 0.0, 1.0)
    assert math.isnan(found.selective_risk)
    assert str(found).startswith("No threshold can be certified for an error rate of at most 0.1 with probability 0.9 ")
    assert "at least 51 without an error are needed" in str(found)


def test_ties_are_accepted_together():
    confidence = torch.tensor([0.5] * 300 + [0.9] * 300).double()
    errors = torch.tensor([True] * 150 + [False] * 450)
    found = fit_abstention(confidence, errors, target=0.05)
    assert found.coverage == 0.5
    assert 0.5 < found.threshold <= 0.9


def test_a_confidence_equal_to_the_threshold_is_accepted():
    strictest, next_one = abstention._grid()[:2]
    confidence = torch.tensor([strictest] * 300 + [next_one] * 300).double()
    found = fit_abstention(confidence, torch.arange(600) >= 300, target=0.05)
    assert (found.threshold, found.coverage) == (strictest, 0.5)


def test_one_sample():
    assert not fit_abstention(torch.ones(1).double(), torch.zeros(1).bool(), target=0.05).certified


@pytest.mark.parametrize(
    ("confidence", "errors", "options", "message"),
    [
        ([0.5], [True], {"target": 0.0}, r"`target` must be in \(0, 1\); got 0.0"),
        ([0.5], [True], {"target": 0.1, "delta": 1.0}, r"`delta` must be in \(0, 1\); got 1.0"),
        ([1.5], [True], {"target": 0.1}, r"`confidence` must be in \[0, 1\]"),
        ([math.nan], [True], {"target": 0.1}, r"`confidence` must be in \[0, 1\]"),
    ],
)
def test_wrong_values_are_refused(confidence, errors, options, message):
    with pytest.raises(InputError, match=message):
        fit_abstention(torch.tensor(confidence), torch.tensor(errors), **options)


def test_no_samples_are_refused():
    with pytest.raises(ShapeError, match="at least one; got 0 for 0"):
        fit_abstention(torch.zeros(0), torch.zeros(0).bool(), target=0.1)
