"""Intervals of calibration errors: they hold the value and the truth, which percentiles do not."""

import pytest
import torch

from diffident.bootstrap import bootstrap, percentile_interval, resampling_blocks, resampling_counts
from diffident.evaluation import evaluate
from diffident.metrics.calibration import bin_of, ece
from diffident.metrics.classwise import classwise_ece, classwise_sums
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.ranking import rank_samples
from diffident.metrics.suite import CALIBRATION, CalibrationSuite, DrawnCalibration

GAP = 0.05
NUM_TRIALS = 40


def trial(seed, gap, n=2000):
    """Confidences in the upper bins, of which a share below by `gap` is right: the error is `gap` by any measure."""
    generator = torch.Generator().manual_seed(1000 + seed)  # not the resamples' stream
    confidence = 0.6 + 0.4 * torch.rand(n, generator=generator, dtype=torch.float64)
    return confidence, torch.rand(n, generator=generator, dtype=torch.float64) > confidence - gap


def intervals(confidence, errors, seed):
    suite = CalibrationSuite(rank_samples(confidence, errors))
    values = {name: metric(DrawnCalibration(suite, None)).item() for name, metric in CALIBRATION.items()}
    deviations = calibration_deviations(suite, values)
    return bootstrap(
        values,
        lambda counts: deviations(DrawnCalibration(suite, counts)),
        [len(errors)],
        num_resamples=100,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("gap", [0.0, GAP])
def test_intervals_cover_the_truth(gap):
    # Of no gap at all, and of the same one everywhere, the truth is known.
    names = ("ece", "ece_equal_mass", "ece_debiased", "mce", "ks_error") + (() if gap else ("ece_smooth",))
    hits = dict.fromkeys(names, 0)
    percentile_hits = 0
    for seed in range(NUM_TRIALS):
        confidence, errors = trial(seed, gap)
        found = intervals(confidence, errors, seed)
        for name in CALIBRATION:
            assert found[name].low <= found[name].value <= found[name].high, name
        for name in names:
            hits[name] += found[name].low <= gap <= found[name].high
        counts = next(resampling_counts([2000], 100, torch.Generator().manual_seed(seed)))
        low, high = percentile_interval(ece(confidence, errors, counts=counts))
        percentile_hits += low <= gap <= high
    assert min(hits.values()) >= 0.95 * NUM_TRIALS - 4, hits  # three standard errors
    if gap == 0:
        assert percentile_hits == 0  # what is mended


def test_classwise_intervals_cover_the_truth():
    hits = 0
    for seed in range(30):
        generator = torch.Generator().manual_seed(1000 + seed)
        logits = torch.randn(300, 4, generator=generator, dtype=torch.float64) * 2
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        metrics = evaluate(logits, labels, num_resamples=100, seed=seed).metrics
        for name in ("classwise_ece", "brier_reliability", "brier_resolution", "brier_uncertainty"):
            assert metrics[name].low <= metrics[name].value <= metrics[name].high
        hits += metrics["classwise_ece"].low == 0  # the truth
        assert metrics["brier_reliability"].low < 0.005  # close to it: p is not constant within a bin
    assert hits >= 25


@pytest.mark.parametrize("n", [50, 300])
def test_intervals_of_nearly_certain_predictions_hold_no_gap(n):
    # No error at all, as happens most often, is what resamples cannot tell from certainty.
    names = [name for name in CALIBRATION if name != "mce"]
    hits = dict.fromkeys(names, 0)
    for seed in range(NUM_TRIALS):
        generator = torch.Generator().manual_seed(seed)
        confidence = 0.99 + 0.01 * torch.rand(n, generator=generator, dtype=torch.float64)
        found = intervals(confidence, torch.rand(n, generator=generator, dtype=torch.float64) > confidence, seed)
        for name in names:
            hits[name] += found[name].low == 0
            assert found[name].high < found[name].value + 4 / n + 0.02
    assert min(hits.values()) >= 0.95 * NUM_TRIALS - 4, hits


def truth_of_classes(scale, classes, generator):
    """Classwise error and reliability with the probabilities of the labels in their place, from many samples."""
    logits = torch.randn(200_000, classes, generator=generator, dtype=torch.float64) * 3
    stated, true = (scale * logits).softmax(1), logits.softmax(1)
    cells = (bin_of(stated, 15) + 15 * torch.arange(classes)).flatten()
    gaps = torch.bincount(cells, weights=(stated - true).flatten(), minlength=15 * classes)
    sizes = torch.bincount(cells, minlength=15 * classes).clamp_min(1)
    return {
        "classwise_ece": float(gaps.abs().sum() / len(logits) / classes),
        "brier_reliability": float((gaps.square() / sizes).sum() / len(logits)),
        "brier_uncertainty": 1 - 1 / classes,
    }


@pytest.mark.parametrize(("n", "classes", "scale"), [(300, 30, 1.0), (300, 30, 2.0), (80, 3, 1.0), (2000, 3, 2.0)])
def test_classwise_intervals_of_thin_cells_hold_the_truth(n, classes, scale):
    truth = truth_of_classes(scale, classes, torch.Generator().manual_seed(0))
    hits = dict.fromkeys(truth, 0)
    for seed in range(10):
        generator = torch.Generator().manual_seed(1000 + seed)
        logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * 3
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        metrics = evaluate(scale * logits, labels, num_resamples=100, seed=seed).metrics
        for name, value in truth.items():
            hits[name] += metrics[name].low - 1e-12 <= value <= metrics[name].high + 1e-12
        if n == 2000:
            assert metrics["classwise_ece"].low > 0.02  # enough samples to tell
            assert metrics["brier_reliability"].low > 0.004
            assert metrics["classwise_ece"].high < 0.15
    assert min(hits.values()) >= 9, hits


def test_probabilities_in_the_first_bin_alone_have_sums_too():
    probs, labels = torch.full((20, 100), 0.01, dtype=torch.float64), torch.arange(20)
    sums = classwise_sums(probs, labels)
    assert sums.probs[:, 0] == pytest.approx(torch.full((100,), 0.2).numpy())
    assert sums.squares.sum().item() == pytest.approx(20 * (99 * 0.01**2 + 0.99**2))
    metrics = evaluate(probs=probs, labels=labels, num_resamples=50).metrics
    assert metrics["classwise_ece"].low == 0
    assert metrics["brier_reliability"].low == 0


def test_all_wrong_has_the_lower_end_of_the_accuracy():
    confidence, errors = torch.full((5,), 0.9, dtype=torch.float64), torch.ones(5, dtype=torch.bool)
    found = intervals(confidence, errors, 0)
    for name in CALIBRATION:
        assert found[name].low <= 0.9 - (1 - 0.025 ** (1 / 5)) + 1e-12, name


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]])
def test_the_uncertainty_of_unequal_and_equal_classes_is_held(shares):
    hits, truth = 0, 1 - sum(share**2 for share in shares)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.multinomial(torch.tensor(shares), 50, replacement=True, generator=generator)
        found = evaluate(torch.zeros(50, 3), labels, num_resamples=100, seed=seed).metrics["brier_uncertainty"]
        hits += found.low <= truth <= found.high + 1e-9
        assert found.low < found.value
    assert hits >= 18


def test_without_an_error_the_upper_end_is_that_of_the_accuracy():
    confidence, errors = torch.linspace(0.99, 1, 30, dtype=torch.float64), torch.zeros(30, dtype=torch.bool)
    found = intervals(confidence, errors, 0)
    for name in CALIBRATION:  # in one bin, which is all
        assert found[name].high >= float(confidence.mean()) - 0.025 ** (1 / 30) - 1e-12, name


def test_outcomes_drawn_from_confidences_vary_as_they_do():
    ranking = rank_samples(torch.tensor([0.9, 0.9, 0.6, 0.2], dtype=torch.float64), torch.zeros(4, dtype=torch.bool))
    sums = ranking.cumulate_consistent(20_000, torch.Generator().manual_seed(0))
    assert (sums[:, 0] == 0).all()
    assert sums.mean(dim=0) == pytest.approx(torch.zeros(4).numpy(), abs=0.03)
    assert sums.var(dim=0) == pytest.approx([0, 0.18, 0.18 + 0.24, 0.18 + 0.24 + 0.16], abs=0.02)


def test_the_largest_gap_of_one_sample_is_no_evidence():
    confidence = torch.cat([torch.full((1,), 0.15), torch.full((99,), 0.95)]).double()
    errors = torch.arange(100) >= 95  # the unsure one is right: a gap of 0.85, as happens 15 times in 100
    found = intervals(confidence, errors, 0)["mce"]
    assert found.value == pytest.approx(0.85)
    assert found.low == 0


def test_the_least_largest_gap_by_hand():
    found = intervals(torch.full((10,), 0.95, dtype=torch.float64), torch.ones(10, dtype=torch.bool), 0)["mce"]
    assert found.low == pytest.approx(0.95 - (1 - 0.025**0.1))  # none of 10 right: an accuracy of 0.31 at most


def test_a_clear_error_has_the_normal_interval():
    confidence = torch.full((1000,), 0.95, dtype=torch.float64)
    errors = torch.arange(1000) < 300
    found = intervals(confidence, errors, 0)["ece"]
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.25)


def test_blocks_of_counts_are_multinomial_together():
    blocks = list(resampling_blocks([3, 5, 2], 4000, torch.Generator().manual_seed(0)))
    assert [block.shape for block in blocks] == [(4000, 3), (4000, 5), (4000, 2)]
    counts = torch.cat(blocks, dim=1)
    assert (counts.sum(dim=1) == 10).all()
    assert counts.mean(dim=0) == pytest.approx(torch.ones(10).numpy(), abs=0.08)
    assert counts.var(dim=0) == pytest.approx(torch.full((10,), 0.9).numpy(), abs=0.15)


def test_classwise_counts_are_copies():
    generator = torch.Generator().manual_seed(0)
    probs, labels = torch.rand(30, 3, generator=generator).softmax(1), torch.randint(3, (30,), generator=generator)
    counts = next(resampling_counts([30], 4, generator))
    for row, drawn in enumerate(counts):
        rows = torch.arange(30).repeat_interleave(drawn.long())
        assert classwise_ece(probs, labels, counts=counts)[row].item() == pytest.approx(
            classwise_ece(probs[rows], labels[rows]).item()
        )
