"""Intervals of means and of the positive class, made anew from their definitions."""

import math

import numpy as np
import pytest
import torch

from diffident.bootstrap import resampling_counts
from diffident.cli.common import amount, interval_cell, number_cell
from diffident.evaluation import evaluate
from diffident.metrics.deviations import calibration_deviations
from diffident.metrics.ranking import rank_samples
from diffident.metrics.suite import CalibrationSuite, DrawnCalibration
from diffident.paired import compare_predictions
from diffident.records import Estimate, Predictions

N = 200
RESAMPLES = 300


def predictions(scale, seed, num_classes=4, flipped=0.0):
    """Logits of calibrated predictions times the scale; some labels are another class."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, num_classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.arange(N) % num_classes
    logits[torch.arange(N), labels] += 1.5
    wrong = torch.rand(N, generator=generator) < flipped
    logits[wrong] = logits[wrong].roll(1, dims=1)
    return Predictions(np.arange(N).astype(str).astype(object), logits * scale, labels)


def middle(draws):
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def counts_of(seed):
    return torch.cat(list(resampling_counts([N], RESAMPLES, torch.Generator().manual_seed(seed))))


def deviations_of_ece(value, confidence, errors, counts, *, seek_right=False):
    suite = CalibrationSuite(rank_samples(confidence, errors), seek_right)
    return calibration_deviations(suite, {"ece": value})(DrawnCalibration(suite, counts))["ece"]


def test_means_over_seeds_average_what_the_resamples_say_and_add_the_error_over_seeds():
    runs = [predictions(scale, seed) for seed, scale in enumerate((1.0, 1.3, 2.0))]
    compared = compare_predictions(
        [("a", seed, run) for seed, run in enumerate(runs)], metrics=["nll", "ece"], num_resamples=RESAMPLES
    )
    counts, noise = counts_of(0), np.random.default_rng(0)
    means = compared.means["a"]

    def error(values):
        return torch.from_numpy(noise.standard_t(2, RESAMPLES)) * np.std(values, ddof=1) / math.sqrt(3)

    losses = [torch.nn.functional.cross_entropy(run.logits, run.labels, reduction="none") for run in runs]
    values = [float(loss.mean()) for loss in losses]
    low, high = middle(torch.stack([counts @ loss / N for loss in losses]).mean(dim=0) + error(values))
    assert (means["nll"].value, means["nll"].low, means["nll"].high) == pytest.approx((np.mean(values), low, high))

    parts = [(run.logits.softmax(1).amax(1), run.logits.argmax(1) != run.labels) for run in runs]
    values = [evaluate(run.logits, run.labels, num_resamples=0).metrics["ece"].value for run in runs]
    found = [deviations_of_ece(value, *part, counts) for value, part in zip(values, parts, strict=True)]
    of_seeds = error(values)
    _, fall = middle(torch.stack([one.fall for one in found]).mean(dim=0) + of_seeds)
    rise, _ = middle(torch.stack([one.rise for one in found]).mean(dim=0) + of_seeds)
    ends = max(0.0, np.mean(values) - fall), min(1.0, np.mean(values) - rise)
    assert (means["ece"].low, means["ece"].high) == pytest.approx(ends)


def test_means_are_no_narrower_than_the_mean_of_the_exact_intervals():
    # No sample can be accepted at a risk of 5 %, in hardly a resample; how many there may be differs.
    runs = [predictions(1.0, 8, flipped=0.4), predictions(1.0, 6, flipped=0.6)]
    evaluated = [evaluate(run.logits, run.labels).metrics["coverage_at_risk_5"] for run in runs]
    assert [one.value for one in evaluated] == [0, 0]
    assert evaluated[0].high > 1.5 * evaluated[1].high
    means = compare_predictions([("a", seed, run) for seed, run in enumerate(runs)], metrics=["coverage_at_risk_5"])
    found = means.means["a"]["coverage_at_risk_5"]
    assert (found.low, found.high) == (0, pytest.approx(sum(one.high for one in evaluated) / 2))


def test_the_positive_class_has_the_deviations_of_its_own_probabilities():
    run = predictions(2.0, 3, num_classes=2)
    probs = run.logits.softmax(1)
    order = torch.argsort(probs.amax(1), descending=True, stable=True)
    found = evaluate(run.logits, run.labels, num_resamples=RESAMPLES).metrics["ece_positive"]
    of_class = deviations_of_ece(found.value, probs[order, 1], run.labels[order] != 1, counts_of(0), seek_right=True)
    low, high = found.value - middle(of_class.fall)[1], found.value - middle(of_class.rise)[0]
    assert (found.low, found.high) == pytest.approx((max(0.0, low), high))


def test_the_debiased_error_has_the_interval_of_the_error():
    for scale in (1.0, 2.5):
        run = predictions(scale, 4)
        found = evaluate(run.logits, run.labels, num_resamples=RESAMPLES).metrics
        debiased, biased = found["ece_debiased"], found["ece"]
        assert debiased.value < biased.value
        assert debiased.high == pytest.approx(biased.high)
        assert debiased.low == pytest.approx(min(biased.low, debiased.value))


def test_cells_of_tables():
    assert interval_cell(Estimate(math.inf, math.inf, math.inf)) == "none"
    assert interval_cell(Estimate(0.5, -1e-9, 0.75)) == "0.5000 (0.0000, 0.7500)"
    assert number_cell(-0.25) == "-0.2500"
    assert (amount(1, "sample"), amount(0, "sample"), amount(1200, "sample")) == (
        "1 sample",
        "0 samples",
        "1,200 samples",
    )
