import math

import numpy as np
import pytest
import torch
from tests.progress import Recorded, rises_to

from diffident.errors import IdMismatchError, InputError
from diffident.posthoc import (
    ModelOutputs,
    check_apart,
    evaluate_abstention,
    evaluate_calibrators,
    evaluate_detectors,
    evaluate_prediction_sets,
    predicted_difficulty,
)
from diffident.records import Predictions


def predictions(n=400, seed=0, name="c"):
    """Predictions that are three times too sure."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 4, generator=generator) * 1.5
    labels = torch.multinomial(torch.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    return Predictions(np.array([f"{name}{row}" for row in range(n)], dtype=object), logits * 3, labels)


def test_calibrators_are_fitted_on_one_split_and_evaluated_on_the_other():
    calibration, test = predictions(), predictions(seed=1, name="t")
    fitted, metrics = evaluate_calibrators(["temperature", "vector"], calibration, test, num_resamples=20)
    assert list(fitted) == list(metrics) == ["temperature", "vector"]
    assert fitted["temperature"].state.temperature == pytest.approx(3, rel=0.25)
    assert metrics["temperature"]["nll"].low < metrics["temperature"]["nll"].value < 1.2
    expected = -torch.log_softmax(test.logits.double() / fitted["temperature"].state.temperature, dim=1)
    assert metrics["temperature"]["nll"].value == pytest.approx(float(expected[torch.arange(400), test.labels].mean()))


def test_difficulty_goes_to_the_calibrator_that_needs_it_alone():
    calibration, test = predictions(), predictions(seed=1, name="t")
    difficulty = (torch.arange(400.0), torch.arange(400.0))
    names = ["temperature", "difficulty-temperature"]
    fitted, _ = evaluate_calibrators(names, calibration, test, difficulty=difficulty, num_resamples=0)
    assert fitted["difficulty-temperature"].nll_after <= fitted["temperature"].nll_after
    with pytest.raises(InputError, match="`difficulty` must be given for 'difficulty-temperature'"):
        evaluate_calibrators(names, calibration, test, num_resamples=0)


def test_samples_in_both_splits_are_refused():
    calibration = predictions()
    with pytest.raises(IdMismatchError, match=r"got 400 of 400 in both: first 'c0', 'c1', 'c10'"):
        check_apart(calibration, predictions(seed=1))
    for evaluate in (
        lambda: evaluate_calibrators(["temperature"], calibration, calibration),
        lambda: evaluate_prediction_sets(calibration, calibration, error_rate=0.1),
        lambda: evaluate_abstention(calibration, calibration, target=0.1),
    ):
        with pytest.raises(IdMismatchError, match="must share no sample with the test split"):
            evaluate()


def test_without_ids_of_their_own_rows_are_compared_by_their_logits():
    rows = np.array([str(row) for row in range(400)], dtype=object)
    one, other = (Predictions(rows, p.logits, p.labels) for p in (predictions(), predictions(seed=1)))
    check_apart(one, other)
    with pytest.raises(
        IdMismatchError, match=r"the same logits in 400 of 400 rows: first row 0\..*give both files ids"
    ):
        check_apart(one, one)
    mixed = Predictions(rows[:3], torch.cat([other.logits[:2], one.logits[7:8]]), other.labels[:3])
    with pytest.raises(IdMismatchError, match=r"the same logits in 1 of 3 rows: first row 2\."):
        check_apart(mixed, one)
    named = Predictions(np.array([f"s{row}" for row in range(len(one))], dtype=object), one.logits, one.labels)
    for pair in ((named, one), (one, named)):
        with pytest.raises(IdMismatchError, match="the same logits in 400 of 400 rows"):
            check_apart(*pair)
    numbers = Predictions(np.array([str(100 + row) for row in range(400)], dtype=object), other.logits, other.labels)
    check_apart(one, numbers)  # the row numbers of a file without ids are not the ids of another
    few = torch.eye(4)[torch.arange(400) % 4] * 9
    check_apart(Predictions(rows, few, one.labels), Predictions(named.ids, few.flip(0), one.labels))  # saturated


def test_calibration_without_labels_or_with_other_classes_is_refused():
    one, test = predictions(), predictions(name="t")
    with pytest.raises(InputError, match="`calibration` must have labels; got none"):
        check_apart(Predictions(one.ids, one.logits), test)
    with pytest.raises(InputError, match="`calibration` must have 4 classes, as the test split; got 3"):
        check_apart(Predictions(one.ids, one.logits[:, :3], one.labels.clamp(max=2)), test)


def test_prediction_sets_cover_the_test_samples():
    found = evaluate_prediction_sets(predictions(n=2000), predictions(n=2000, seed=1, name="t"), error_rate=0.2)
    assert list(found) == ["lac", "aps", "raps"]
    for metrics in found.values():
        assert metrics["coverage"].value == pytest.approx(0.8, abs=0.04)
        assert metrics["coverage"].low < metrics["coverage"].value < metrics["coverage"].high
    assert found["lac"]["mean_size"].value < found["aps"]["mean_size"].value


def test_abstention_on_the_test_samples():
    test = predictions(n=3000, seed=1, name="t")
    state, found = evaluate_abstention(predictions(n=3000), test, target=0.2)
    accepted = torch.softmax(test.logits.double(), dim=1).amax(dim=1) >= state.threshold
    wrong = test.logits.argmax(dim=1) != test.labels
    assert found["threshold"].value == state.threshold
    assert found["coverage"].value == pytest.approx(float(accepted.double().mean()))
    assert found["selective_risk"].value == pytest.approx(float(wrong[accepted].double().mean()))
    assert found["selective_risk"].value < 0.2
    assert found["selective_risk"].low < found["selective_risk"].value < found["selective_risk"].high


def test_shares_of_no_error_have_intervals():
    n = 200
    labels = torch.arange(n) % 3
    logits = 9 * torch.eye(3)[labels].double()
    one, other = (Predictions(np.array([f"{part}{row}" for row in range(n)]), logits, labels) for part in "ab")
    _, found = evaluate_abstention(one, other, target=0.1)
    assert (found["coverage"].value, found["selective_risk"].value) == (1, 0)
    assert found["coverage"].low == pytest.approx(0.025 ** (1 / n))
    assert found["selective_risk"].high == pytest.approx(1 - 0.025 ** (1 / n))
    sets = evaluate_prediction_sets(one, other, error_rate=0.1, num_resamples=20)["lac"]
    assert sets["empty"].high > 0 or sets["empty"].value > 0
    assert sets["coverage"].low < sets["coverage"].high


def test_where_nothing_is_certified_everything_is_abstained_from():
    state, found = evaluate_abstention(predictions(n=30), predictions(name="t"), target=0.01)
    assert not state.certified
    assert found["coverage"].value == 0
    assert math.isnan(found["selective_risk"].value)


def features(n, seed, distance=6.0):
    """Features of three classes, in the directions of the first three numbers; no class at distance 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    values = torch.randn(n, 5, generator=generator)
    values[torch.arange(n), labels] += distance
    return values, labels


def test_detectors_by_set_and_name():
    train, labels = features(300, 0)
    names = ["entropy", "relative-mahalanobis"]
    inside, outside = features(200, 1)[0], features(100, 2, distance=0.0)[0]
    outputs = [ModelOutputs(logits=values[:, :3], features=values) for values in (inside, outside)]
    found = evaluate_detectors(
        names, outputs[0], {"far": outputs[1]}, train=ModelOutputs(features=train, labels=labels), num_resamples=20
    )
    assert list(found) == ["far"]
    assert list(found["far"]) == names
    assert list(found["far"]["entropy"]) == ["auroc", "fpr95", "aupr", "aupr_in"]
    assert found["far"]["relative-mahalanobis"]["auroc"].value > 0.95
    assert found["far"]["relative-mahalanobis"]["aupr_in"].value > 0.95
    with pytest.raises(InputError, match="`features` must be given for the detector 'relative-mahalanobis'"):
        evaluate_detectors(names, outputs[0], {"far": outputs[1]}, num_resamples=0)


def test_areas_under_precision_and_recall_agree_with_scikit_learn_both_ways():
    from sklearn.metrics import average_precision_score

    from diffident.evaluation import ood_metrics

    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.randn(70, generator=generator).round(decimals=1), torch.randn(30, generator=generator) - 1
    both, truth = torch.cat([inside, outside]).numpy(), [1] * 70 + [0] * 30
    found = ood_metrics(inside, outside, num_resamples=0)
    assert found["aupr_in"].value == pytest.approx(average_precision_score(truth, both))
    assert found["aupr"].value == pytest.approx(average_precision_score([1 - t for t in truth], -both))


def test_predicted_difficulty_needs_no_labels_of_the_samples():
    train, labels = features(300, 0)
    near, far = predicted_difficulty(
        ModelOutputs(features=train, labels=labels), features(50, 1)[0], features(50, 2, 0.0)[0]
    )
    assert near.shape == far.shape == (50,)
    assert float(near.median()) < float(far.median())


def test_progress_counts_calibrators_and_detectors():
    calibration, test, noise = predictions(), predictions(seed=1, name="t"), predictions(seed=2, name="n")
    calibrators, detectors = Recorded(), Recorded()
    names = ["temperature", "vector"]
    evaluate_calibrators(names, calibration, test, num_resamples=0, progress=calibrators)
    assert rises_to(calibrators.calls, 2)
    outside = {"noise": ModelOutputs(logits=noise.logits)}
    names = ["energy", "entropy", "max-logit"]
    evaluate_detectors(names, ModelOutputs(logits=test.logits), outside, num_resamples=0, progress=detectors)
    assert rises_to(detectors.calls, 3)
