import math

import numpy as np
import pytest
import torch
from tests import oracles_metrics as oracle

from diffident.errors import InputError, ShapeError
from diffident.evaluation import evaluate
from diffident.records import ClassGroup, DifficultyGroup, Estimate, Evaluation
from diffident.storage.evaluation_file import evaluation_to_dict, read_evaluation, write_evaluation

KEYS = ["accuracy", "nll", "brier", "ece", "classwise_ece", "aurc", "eaurc", "augrc", "auroc_errors", "fpr95_errors"]


def sample(n=80, c=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits, torch.randint(c, (n,), generator=generator), torch.randn(30, c, generator=generator)


def test_keys_are_those_of_the_design():
    logits, labels, outside = sample()
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=20)
    assert list(evaluation.metrics) == KEYS
    assert list(evaluation.ood["noise"]) == ["auroc", "fpr95", "aupr"]
    assert (evaluation.num_samples, evaluation.num_classes) == (80, 4)
    for estimate in evaluation.metrics.values():
        assert estimate.low < estimate.high


def test_values_agree_with_loops():
    logits, labels, outside = sample()
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=0)
    probs = [oracle.softmax(row) for row in logits.tolist()]
    errors = [max(range(4), key=row.__getitem__) != y for row, y in zip(probs, labels.tolist(), strict=True)]
    pairs = list(zip(probs, labels.tolist(), strict=True))
    top, other = [max(row) for row in probs], [max(oracle.softmax(row)) for row in outside.double().tolist()]
    values = {key: estimate.value for key, estimate in evaluation.metrics.items()}
    expected = {
        "accuracy": 1 - sum(errors) / 80,
        "nll": -sum(math.log(row[y]) for row, y in pairs) / 80,
        "brier": sum(
            sum((p - (k == y)) ** 2 for k, p in enumerate(r)) for r, y in zip(probs, labels.tolist(), strict=True)
        )
        / 80,
        "ece": oracle.binned_gap(top, [float(not e) for e in errors]),
        "classwise_ece": oracle.classwise_ece(probs, labels.tolist()),
        "aurc": oracle.aurc(top, errors),
        "eaurc": oracle.eaurc(top, errors),
        "augrc": oracle.augrc(top, errors),
        "auroc_errors": oracle.auroc([-t for t in top], errors),
        "fpr95_errors": oracle.fpr95([-t for t in top], errors),
    }
    assert values == pytest.approx({key: float(value) for key, value in expected.items()})
    scores, positive = [-t for t in top + other], [False] * 80 + [True] * 30
    assert evaluation.ood["noise"]["auroc"].value == pytest.approx(oracle.auroc(scores, positive))
    assert evaluation.ood["noise"]["fpr95"].value == pytest.approx(oracle.fpr95(scores, positive))


def test_numpy_is_the_same_and_the_seed_decides():
    logits, labels, _ = sample()
    first = evaluate(logits, labels, num_resamples=10)
    assert evaluate(logits.numpy(), labels.numpy(), num_resamples=10) == first
    assert evaluate(logits, labels, num_resamples=10, seed=1).metrics["nll"].low != first.metrics["nll"].low


def test_all_right_is_undefined_where_errors_are_sought():
    metrics = evaluate(torch.eye(3) * 9, torch.arange(3), num_resamples=5).metrics
    assert math.isnan(metrics["auroc_errors"].value)
    assert math.isnan(metrics["auroc_errors"].high)
    assert metrics["accuracy"].value == 1
    assert metrics["aurc"].value == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_logits_name_the_row(bad):
    logits = np.zeros((3, 2))
    logits[1, 0] = bad
    with pytest.raises(InputError, match=f"`logits` must be finite; got {bad} at row 1"):
        evaluate(logits, np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match=r"`ood\['x'\]` must be finite; got .* at row 1"):
        evaluate(np.zeros((3, 2)), np.zeros(3, dtype=np.int64), ood={"x": logits})


def test_wrong_input():
    labels = np.zeros(3, dtype=np.int64)
    with pytest.raises(InputError, match=r"`labels` must be in \[0, 2\); got 2 at row 1"):
        evaluate(np.zeros((3, 2)), np.array([0, 2, 0]))
    with pytest.raises(InputError, match="`labels` must be integers"):
        evaluate(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ShapeError, match="one per row of logits"):
        evaluate(np.zeros((2, 2)), labels)
    with pytest.raises(InputError, match="at least one row"):
        evaluate(np.zeros((0, 2)), labels[:0])
    with pytest.raises(ShapeError, match=r"must have 2 columns like `logits`; got 3"):
        evaluate(np.zeros((3, 2)), labels, ood={"x": np.zeros((1, 3))})
    with pytest.raises(InputError, match="`num_resamples`"):
        evaluate(np.zeros((3, 2)), labels, num_resamples=-1)


def test_file_round_trip(tmp_path):
    logits, labels, outside = sample()
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=5)
    write_evaluation(evaluation, tmp_path / "a.json")
    write_evaluation(read_evaluation(tmp_path / "a.json"), tmp_path / "b.json")
    assert read_evaluation(tmp_path / "a.json") == evaluation
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert set(evaluation_to_dict(evaluation)) == {*KEYS, "ood", "num_samples", "num_classes"}


def test_file_round_trip_of_groups_detectors_and_calibrators(tmp_path):
    metrics = {"ece": Estimate(0.25, 0.0, 0.5)}
    evaluation = Evaluation(
        metrics,
        4,
        2,
        by_difficulty=(DifficultyGroup(-1.5, 0.0, 2, metrics), DifficultyGroup(0.5, 2.0, 2, {})),
        by_class=(ClassGroup(0, "cat", 3, metrics), ClassGroup(1, None, 1, metrics)),
        ood_detectors={"svhn": {"energy": {"auroc": Estimate(0.5, 0.25, 0.75)}}},
        calibrated={"temperature": metrics},
    )
    write_evaluation(evaluation, tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == evaluation
    assert evaluation_to_dict(evaluation)["by_class"][1]["name"] is None


def test_undefined_is_null():
    content = evaluation_to_dict(evaluate(torch.eye(2), torch.arange(2), num_resamples=0))
    assert content["fpr95_errors"] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "must be an object"),
        ('{"num_samples": 1}', "`num_classes` must be a whole number"),
        ('{"num_samples": 1, "num_classes": 2, "ece": 3}', "`ece` must be an object with value, low and high"),
        (
            '{"num_samples": 1, "num_classes": 2, "ood": {"x": {"auroc": {"value": "a", "low": 0, "high": 1}}}}',
            "`ood.x.auroc.value` must be a number or null",
        ),
        ('{"num_samples": 1, "num_classes": 2, "by_class": {}}', "`by_class` must be a list"),
        ('{"num_samples": 1, "num_classes": 2, "by_class": [{"name": 1}]}', "`by_class.0.name` must be a string or"),
        (
            '{"num_samples": 1, "num_classes": 2, "by_difficulty": [{}]}',
            "`by_difficulty.0.num_samples` must be a whole",
        ),
        ('{"num_samples": 1, "num_classes": 2, "ood_detectors": {"x": 1}}', "`ood_detectors.x` must be an object"),
    ],
)
def test_wrong_files(tmp_path, text, message):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_evaluation(tmp_path / "e.json")
    with pytest.raises(InputError, match="not there"):
        read_evaluation(tmp_path / "missing.json")


def test_ties_and_bin_edges_survive_the_softmax():
    # 0.6 = 9/15 belongs to the lower of its two bins, with 0.63 in the next: (|1 - 0.6| + |0 - 0.63|) / 2.
    logits = torch.tensor([[0.6, 0.4], [0.63, 0.37]], dtype=torch.float64).log()
    got = evaluate(logits, torch.tensor([0, 1]), num_resamples=0).metrics["ece"].value
    assert got == pytest.approx(0.515)
    probs = [[0.8, 0.2, 0], [0.2, 0.8, 0], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.05, 0.15, 0.8]]
    logits = torch.tensor(probs, dtype=torch.float64).clamp(min=1e-38).log()
    got = evaluate(logits, torch.tensor([0, 1, 0, 0, 1]), num_resamples=0).metrics["aurc"].value
    assert got == pytest.approx(0.48)
