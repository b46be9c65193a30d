import math

import numpy as np
import pytest
import torch

from diffident.conformal import METHODS, conformal_quantile, fit_conformal, prediction_sets, set_metrics
from diffident.errors import InputError, ShapeError

every_method = pytest.mark.parametrize("method", METHODS)


def sample(n, generator, c=6):
    """Logits of a model that is wrong about its own sureness, and labels."""
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    return logits * 1.7, torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]


@every_method
@pytest.mark.parametrize("error_rate", [0.1, 0.3])
def test_coverage_is_what_was_asked_for(method, error_rate):
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(400):
        logits, labels = sample(240, generator)
        options = {"generator": generator, "penalty": 0.05, "free_classes": 2}
        state = fit_conformal(logits[:40], labels[:40], method=method, error_rate=error_rate, **options)
        sets = prediction_sets(state, logits[40:], generator=generator)
        rates.append(set_metrics(sets, labels[40:]).coverage)
    # Without ties it is ceil(41 (1 - error_rate)) / 41 on average; five standard errors.
    expected = math.ceil(round(41 * (1 - error_rate), 9)) / 41
    assert np.mean(rates) == pytest.approx(expected, abs=5 * np.std(rates) / 20)


def test_scores_by_hand():
    probs = torch.tensor([[0.5, 0.3, 0.2]]).double()
    logits = probs.log().repeat(9, 1)
    labels = torch.tensor([0] * 5 + [1] * 3 + [2])
    # Nine scores, the ninth smallest of ten: the largest.
    lac = fit_conformal(logits, labels, error_rate=0.1)
    assert lac.threshold == pytest.approx(0.8)
    assert prediction_sets(lac, logits[:1]).tolist() == [[True, True, True]]
    lac = fit_conformal(logits, labels, error_rate=0.3)  # the seventh
    assert lac.threshold == pytest.approx(0.7)
    assert prediction_sets(lac, logits[:1]).tolist() == [[True, True, False]]
    aps = fit_conformal(logits, labels, method="aps", error_rate=0.3, randomized=False)
    assert aps.threshold == pytest.approx(0.8)
    raps = fit_conformal(logits, labels, method="raps", error_rate=0.1, randomized=False, penalty=0.25, free_classes=1)
    assert raps.threshold == pytest.approx(1.5)  # 1 + two classes beyond the free one


@pytest.mark.parametrize(
    ("n", "error_rate", "rank"),
    [(9, 0.1, 9), (10, 0.1, 10), (8, 0.1, None), (99, 0.05, 95), (1, 0.5, 1), (19, 0.3, 14)],
)
def test_quantile_takes_the_finite_sample_rank(n, error_rate, rank):
    scores = torch.arange(1, n + 1).flip(0).double()
    assert conformal_quantile(scores, error_rate) == (math.inf if rank is None else rank)


def test_randomised_sets_agree_with_loops():
    generator = torch.Generator().manual_seed(1)
    logits, labels = sample(50, generator)
    state = fit_conformal(
        logits, labels, method="raps", generator=torch.Generator().manual_seed(2), penalty=0.03, free_classes=2
    )
    others, _ = sample(20, generator)
    sets = prediction_sets(state, others, generator=torch.Generator().manual_seed(3))
    parts = torch.rand(20, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))[:, 0].tolist()
    for row, u, found in zip(torch.softmax(others, dim=1).tolist(), parts, sets.tolist(), strict=True):
        for k, p in enumerate(row):
            above = [q for q in row if q > p]
            score = sum(above) + u * p + 0.03 * max(0, len(above) + 1 - 2)
            assert found[k] == (score <= state.threshold)


@every_method
def test_too_few_samples_give_every_class(method):
    generator = torch.Generator().manual_seed(0)
    logits, labels = sample(5, generator)
    state = fit_conformal(logits, labels, method=method, error_rate=0.1, generator=generator)
    assert state.threshold == math.inf
    assert bool(prediction_sets(state, logits, generator=generator).all())


@every_method
def test_larger_error_rates_give_smaller_sets(method):
    logits, labels = sample(300, torch.Generator().manual_seed(0))
    sizes = []
    for error_rate in (0.05, 0.2, 0.5):
        state = fit_conformal(logits, labels, method=method, error_rate=error_rate, randomized=False)
        sizes.append(set_metrics(prediction_sets(state, logits), labels).mean_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_empty_sets_can_be_filled():
    logits, labels = torch.eye(3).repeat(4, 1) * 5, torch.arange(3).repeat(4)
    state = fit_conformal(logits, labels, error_rate=0.5)
    flat = torch.tensor([[0.1, 0.0, 0.0]])
    assert prediction_sets(state, flat).tolist() == [[False, False, False]]
    assert prediction_sets(state, flat, allow_empty=False).tolist() == [[True, False, False]]


@every_method
@pytest.mark.parametrize("logits", [torch.zeros(12, 4), torch.eye(4).repeat(3, 1).double() * 1e300, torch.ones(12, 1)])
def test_degenerate_logits(method, logits):
    labels = torch.arange(12) % logits.shape[1]
    state = fit_conformal(logits, labels, method=method, randomized=False)
    assert set_metrics(prediction_sets(state, logits), labels).coverage == 1


def test_ties_keep_the_order_of_the_classes():
    logits = torch.zeros(9, 4)
    state = fit_conformal(logits, torch.tensor([0] * 9), method="aps", randomized=False)
    assert state.threshold == 0.25
    assert prediction_sets(state, logits[:1]).tolist() == [[True, False, False, False]]


def test_metrics_by_hand():
    sets = torch.tensor([[True, True], [True, False], [False, False], [False, True]])
    metrics = set_metrics(sets, torch.tensor([1, 1, 0, 1]))
    assert (metrics.coverage, metrics.mean_size, metrics.empty, metrics.singletons) == (0.5, 1.0, 0.25, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lack"}, "Did you mean `lac`"),
        ({"error_rate": 0.0}, r"`error_rate` must be in \(0, 1\); got 0.0"),
        ({"error_rate": 1.0}, r"`error_rate` must be in \(0, 1\); got 1.0"),
        ({"method": "aps"}, "`generator` must be given for randomised sets"),
        ({"method": "raps", "penalty": -1.0}, "`penalty` and `free_classes` must be at least 0"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        fit_conformal(*sample(20, torch.Generator().manual_seed(0)), **options)


def test_another_number_of_classes_is_refused():
    logits, labels = sample(20, torch.Generator().manual_seed(0))
    with pytest.raises(ShapeError, match="`logits` must have 6 columns, as fitted; got 5"):
        prediction_sets(fit_conformal(logits, labels), logits[:, :5])
