import math

import numpy as np
import pytest
import torch
from tests.progress import Recorded, rises_to

from diffident.errors import IdMismatchError, InputError
from diffident.evaluation import evaluate
from diffident.paired import PairedDifference, compare_predictions
from diffident.records import Estimate, Predictions
from diffident.significance import holm, mean_ranks


def predictions(scale=1.0, noise=0.0, n=300, seed=0, labels=None, ids=None):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 4, generator=generator)
    targets = torch.multinomial((logits * 2).softmax(1), 1, generator=generator)[:, 0]
    logits = logits * 2 * scale + noise * torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    ids = np.array([f"s{i}" for i in range(n)] if ids is None else ids, dtype=object)
    return Predictions(ids, logits, targets if labels is None else labels)


def found(comparison):
    return {one.metric: one for one in comparison.differences}


def test_a_scaled_copy_differs_in_calibration_and_in_nothing_else():
    runs = [("plain", 0, predictions()), ("sharp", 0, predictions(scale=3.0))]
    differences = found(compare_predictions(runs, "plain", num_resamples=200))
    assert {metric for metric, one in differences.items() if one.real} == {"nll", "brier", "ece"}
    for metric in ("accuracy",):
        assert (differences[metric].difference.value, differences[metric].p_value) == (0, 1)
    one = differences["nll"]
    assert 0 < one.difference.low < one.difference.value < one.difference.high
    assert one.p_value == pytest.approx(1 / 201)
    assert one.adjusted_p == pytest.approx(6 / 201)


def test_the_samples_are_joined_by_id():
    plain, sharp = predictions(), predictions(scale=3.0)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    mixed = Predictions(sharp.ids[order.numpy()], sharp.logits[order], sharp.labels[order])
    one = compare_predictions([("a", 0, plain), ("b", 0, sharp)], "a", num_resamples=50)
    assert compare_predictions([("a", 0, plain), ("b", 0, mixed)], "a", num_resamples=50) == one


def test_a_difference_in_one_seed_only_is_not_real():
    # Each seed is far better than the baseline or a little worse: samples alone would call the mean real.
    runs = [("a", seed, predictions(scale=2.0)) for seed in range(3)]
    runs += [("b", 0, predictions()), ("b", 1, predictions(scale=2.05)), ("b", 2, predictions(scale=2.1))]
    several = found(compare_predictions(runs, "a", num_resamples=200))["nll"]
    alone = found(compare_predictions([runs[0], runs[3]], "a", num_resamples=200))["nll"]
    assert alone.real
    assert not several.real
    assert several.num_seeds == 3
    assert several.difference.low < 0 < several.difference.high


def test_a_difference_whose_interval_holds_0_is_not_real():
    for low, real in ((-0.01, False), (0.01, True)):
        assert PairedDifference("b", "ece", Estimate(0.1, low, 0.2), 0.001, 0.001, 5).real == real


def test_the_interval_of_a_mean_is_the_normal_one():
    means = compare_predictions([("a", 0, predictions())], metrics=["accuracy"], num_resamples=2000).means["a"]
    estimate = means["accuracy"]
    error = math.sqrt(estimate.value * (1 - estimate.value) / 300)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_p_values_are_uniform_where_the_methods_are_the_same():
    p_values = []
    for seed in range(60):
        runs = [(name, 0, predictions(noise=1.0, n=60, seed=2 * seed + place)) for place, name in enumerate("ab")]
        metrics = ["nll", "ece", "aurc"]
        p_values.append(
            [one.p_value for one in compare_predictions(runs, "a", metrics=metrics, num_resamples=99).differences]
        )
    assert (np.mean(np.array(p_values) <= 0.2, axis=0) < 0.36).all()  # 0.2 and three standard errors
    assert (np.mean(p_values, axis=0) > 0.38).all()


def test_undefined_metrics_stay_out_of_the_correction():
    perfect = Predictions(np.array(["a", "b"], dtype=object), torch.eye(2) * 9, torch.arange(2))
    differences = found(compare_predictions([("x", 0, perfect), ("y", 0, perfect)], "x", num_resamples=20))
    assert math.isnan(differences["auroc_errors"].adjusted_p)
    assert not differences["auroc_errors"].real


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": math.nan}, nan_ok=True
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1, "b": 1}


def test_mean_ranks_by_hand():
    values = [{"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 5.0, "b": 5.0, "c": 4.0}]
    assert mean_ranks(values, higher_is_better=False) == {"a": 1.75, "b": 2.25, "c": 2.0}
    assert mean_ranks(values, higher_is_better=True) == {"a": 2.25, "b": 1.75, "c": 2.0}
    with pytest.raises(InputError, match="same methods for every data set; got 'c' only in some"):
        mean_ranks([{"a": 1.0, "c": 1.0}, {"a": 1.0}], higher_is_better=True)


def test_wrong_input():
    plain = predictions(n=5)
    with pytest.raises(InputError, match="at least one run"):
        compare_predictions([])
    with pytest.raises(InputError, match="'a', seed 0 twice"):
        compare_predictions([("a", 0, plain), ("a", 0, plain)])
    with pytest.raises(InputError, match="Did you mean `aa`"):
        compare_predictions([("aa", 0, plain)], "ab")
    with pytest.raises(InputError, match="that can be paired; got `classwise_ece`"):
        compare_predictions([("a", 0, plain)], metrics=["classwise_ece"])
    with pytest.raises(InputError, match="`num_resamples` must be at least 1; got 0"):
        compare_predictions([("a", 0, plain)], num_resamples=0)
    with pytest.raises(InputError, match="must have labels; got none at 'b', seed 3"):
        compare_predictions([("a", 0, plain), ("b", 3, Predictions(plain.ids, plain.logits))])
    with pytest.raises(IdMismatchError, match="1 of 5 ids of 'a' are not in 'b', seed 0: first 's4'"):
        compare_predictions([("a", 0, plain), ("b", 0, predictions(n=4))])
    with pytest.raises(IdMismatchError, match="2 of 7 ids of 'b', seed 0 are not in 'a': first 's5', 's6'"):
        compare_predictions([("a", 0, plain), ("b", 0, predictions(n=7))])
    with pytest.raises(IdMismatchError, match="1 of 5 ids of 'a' are not in 'b', seed 0: first 's4'"):
        compare_predictions([("a", 0, plain), ("b", 0, predictions(n=5, ids=["s0", "s1", "s2", "s3", "x"]))])
    with pytest.raises(IdMismatchError, match=r"`labels` must be the same in all runs; got .* for 's0'"):
        compare_predictions([("a", 0, plain), ("b", 0, predictions(n=5, labels=(plain.labels + 1) % 4))])


def test_progress_counts_resamples_and_permutations():
    runs = [(name, seed, predictions(noise=1.0, seed=seed)) for name in "ab" for seed in range(3)]
    runs.append(("c", 7, predictions()))  # no seed in common with the baseline: nothing is permuted
    seen, means = Recorded(), Recorded()
    one = compare_predictions(runs, "a", num_resamples=50, progress=seen)
    assert rises_to(seen.calls, 50 * (7 + 4 * 3))
    assert one == compare_predictions(runs, "a", num_resamples=50)
    compare_predictions(runs, None, num_resamples=50, progress=means)
    assert rises_to(means.calls, 50 * 7)


def test_a_metric_that_is_named_twice_counts_once():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (60,), generator=generator)
    ids = np.arange(60).astype(str).astype(object)
    runs = [(name, 0, Predictions(ids, torch.randn(60, 3, generator=generator), labels)) for name in ("a", "b")]
    once, twice = (compare_predictions(runs, "a", metrics=names) for names in (["nll"], ["nll", "nll"]))
    assert once == twice


def test_means_of_one_run_have_the_intervals_of_an_evaluation():
    names = ("accuracy", "nll", "ece", "ece_debiased", "mce", "aurc", "coverage_at_risk_5", "risk_at_coverage_80")
    plain = predictions(noise=0.3)
    of_run = compare_predictions([("a", 0, plain)], metrics=names, num_resamples=1000).means["a"]
    evaluated = evaluate(plain.logits, plain.labels).metrics
    for name in names:
        assert of_run[name].value == evaluated[name].value
        width = evaluated[name].high - evaluated[name].low
        assert of_run[name].low == pytest.approx(evaluated[name].low, abs=0.07 * width)  # other resamples
        assert of_run[name].high == pytest.approx(evaluated[name].high, abs=0.07 * width)
    for name in ("accuracy", "coverage_at_risk_5"):
        assert of_run[name] == evaluated[name]


def test_means_of_few_seeds_stay_in_the_range():
    # Two seeds of which one is far better: Student's t of one degree of freedom goes beyond every bound.
    metrics = ["accuracy", "nll", "brier", "ece", "mce", "coverage_at_risk_5"]
    labels = predictions(n=60).logits.argmax(1)
    good = predictions(scale=3.0, n=60, labels=labels)
    bad, worse = (predictions(noise=40.0, seed=seed, n=60, labels=labels) for seed in (1, 2))
    runs = [("a", 0, good), ("a", 1, bad), ("b", 0, worse), ("b", 1, good)]
    compared = compare_predictions(runs, "a", metrics=metrics, num_resamples=400)
    for name, estimate in compared.means["a"].items():
        assert 0 <= estimate.low < estimate.value < estimate.high <= {"nll": math.inf, "brier": 2}.get(name, 1), name
    assert compared.means["a"]["accuracy"].high == 1
    assert compared.means["a"]["accuracy"].low == 0
    for one in compared.differences:
        low, high = {"nll": (-math.inf, math.inf), "brier": (-2, 2)}.get(one.metric, (-1, 1))
        assert low <= one.difference.low <= one.difference.value <= one.difference.high <= high


def test_the_mean_calibration_error_of_calibrated_seeds_reaches_down_to_zero():
    runs = [("a", seed, predictions(seed=seed, noise=0.01)) for seed in range(3)]
    means = compare_predictions(runs, metrics=["ece", "mce"], num_resamples=300).means["a"]
    assert means["ece"].low == means["mce"].low == 0


def test_means_without_an_error_have_the_width_of_the_exact_interval():
    ids, labels = np.arange(50).astype(str).astype(object), torch.arange(50) % 2
    runs = [("a", seed, Predictions(ids, torch.eye(2)[labels] * 9, labels)) for seed in range(2)]
    metrics = ["accuracy", "risk_at_coverage_80"]
    means = compare_predictions(runs, metrics=metrics, num_resamples=50).means["a"]
    accuracy, risk = means["accuracy"], means["risk_at_coverage_80"]
    assert (accuracy.low, accuracy.value, accuracy.high) == pytest.approx((0.025 ** (1 / 50), 1, 1))
    assert (risk.low, risk.value, risk.high) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 40)))
