import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from tests import oracles_metrics as oracle
from tests.progress import Recorded, rises_to

from diffident.errors import InputError, ShapeError
from diffident.evaluation import evaluate
from diffident.metrics.classwise import CLASSWISE_METRICS
from diffident.metrics.inputs import ClassScores, row_blocks
from diffident.records import ClassGroup, DifficultyGroup, Estimate, Evaluation
from diffident.storage.evaluation_file import evaluation_to_dict, read_evaluation, write_evaluation

DESIGN = {"accuracy", "nll", "brier", "ece", "classwise_ece", "aurc", "eaurc", "augrc", "auroc_errors", "fpr95_errors"}


def sample(n=80, c=4):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
    return logits, torch.randint(c, (n,), generator=generator), torch.randn(30, c, generator=generator)


def test_keys_are_those_of_the_design():
    logits, labels, outside = sample()
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=20)
    assert set(evaluation.metrics) >= DESIGN
    assert list(evaluation.metrics)[:3] == ["accuracy", "nll", "brier"]
    assert list(evaluation.ood["noise"]) == ["auroc", "fpr95", "aupr", "aupr_in"]
    assert (evaluation.num_samples, evaluation.num_classes) == (80, 4)
    for name, estimate in evaluation.metrics.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.low < estimate.high or name == "coverage_at_risk_1", name


@pytest.mark.parametrize("num_classes", [2, 4])
def test_values_agree_with_loops(num_classes):
    logits, labels, outside = sample(c=num_classes)
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=0)
    probs = [oracle.softmax(row) for row in logits.tolist()]
    expected = oracle.every_metric(probs, labels.tolist())
    values = {key: estimate.value for key, estimate in evaluation.metrics.items()}
    assert set(values) == set(expected)
    smooth = {key: value for key, value in expected.items() if key.startswith("ece_smooth")}
    assert {key: values[key] for key in smooth} == pytest.approx(smooth, rel=2e-4)
    assert values == pytest.approx(expected | {key: values[key] for key in smooth})
    top, other = [max(row) for row in probs], [max(oracle.softmax(row)) for row in outside.double().tolist()]
    scores, positive = [-t for t in top + other], [False] * 80 + [True] * 30
    assert evaluation.ood["noise"]["auroc"].value == pytest.approx(oracle.auroc(scores, positive))
    assert evaluation.ood["noise"]["fpr95"].value == pytest.approx(oracle.fpr95(scores, positive))


def test_blocks_of_rows_change_nothing(monkeypatch):
    logits, labels, _ = sample(c=2)
    whole = evaluate(logits, labels, num_resamples=0).metrics
    monkeypatch.setattr(ClassScores, "blocks", lambda self: row_blocks(len(self), self.num_classes, 14))
    blocks = evaluate(logits, labels, num_resamples=0).metrics
    assert {k: e.value for k, e in blocks.items()} == pytest.approx({k: e.value for k, e in whole.items()}, abs=1e-12)


def test_probabilities_give_what_their_logarithms_give():
    logits, labels, outside = sample()
    probs = evaluate(probs=logits.softmax(1), labels=labels, ood={"x": outside.softmax(1)}, num_resamples=20)
    logs = evaluate(logits.log_softmax(1), labels, ood={"x": outside.log_softmax(1)}, num_resamples=20)
    for found, expected in ((probs.metrics, logs.metrics), (probs.ood["x"], logs.ood["x"])):
        for name, estimate in expected.items():
            assert astuple(found[name]) == pytest.approx(astuple(estimate), abs=1e-9), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_other_types_are_taken_for_what_they_hold(dtype):
    logits = (sample()[0] * 3).to(dtype)
    assert evaluate(logits, sample()[1], num_resamples=5) == evaluate(logits.double(), sample()[1], num_resamples=5)


def test_of_tied_classes_the_lowest_is_predicted():
    logits, labels = torch.tensor([[1.0, 2.0, 2.0], [2.0, 2.0, 1.0]]), torch.tensor([1, 1])
    assert evaluate(logits, labels, num_resamples=0).metrics["accuracy"].value == 0.5


def test_a_certain_error_costs_what_its_logit_says():
    evaluation = evaluate(torch.tensor([[2000.0, 0.0, 0.0]]), torch.tensor([2]), num_resamples=0)
    assert evaluation.metrics["nll"].value == 2000
    evaluation = evaluate(probs=torch.tensor([[1.0, 0.0, 0.0]]), labels=torch.tensor([2]), num_resamples=0)
    assert evaluation.metrics["nll"].value == pytest.approx(87.3365448)  # -log of the least normal float32


def test_groups_are_the_samples_alone():
    logits, labels, _ = sample()
    difficulty = torch.arange(80, 0, -1)
    evaluation = evaluate(logits, labels, difficulty=difficulty, by_class=True, label_names="abcd", num_resamples=9)
    assert [(group.low, group.high, group.num_samples) for group in evaluation.by_difficulty][:2] == [
        (1.0, 8.0, 8),
        (9.0, 16.0, 8),
    ]
    hardest, last = evaluate(logits[:8], labels[:8], num_resamples=9).metrics, evaluation.by_difficulty[-1]
    assert {key: hardest[key] for key in last.metrics} == last.metrics
    assert set(hardest) - set(last.metrics) == set(CLASSWISE_METRICS)
    assert [(group.index, group.name) for group in evaluation.by_class] == list(enumerate("abcd"))
    of_class = evaluate(logits[labels == 2], labels[labels == 2], num_resamples=9).metrics
    assert {key: of_class[key] for key in last.metrics} == evaluation.by_class[2].metrics


def test_tied_difficulties_are_one_group():
    logits, labels, _ = sample(n=20)
    groups = evaluate(logits, labels, difficulty=np.repeat([3.0, 1.0], [4, 16]), num_resamples=0).by_difficulty
    assert [(group.low, group.high, group.num_samples) for group in groups] == [(1.0, 1.0, 16), (3.0, 3.0, 4)]


def test_numpy_is_the_same_and_the_seed_decides():
    logits, labels, _ = sample()
    first = evaluate(logits, labels, num_resamples=10)
    assert evaluate(logits.numpy(), labels.numpy(), num_resamples=10) == first
    assert evaluate(logits, labels, num_resamples=10, seed=1).metrics["nll"].low != first.metrics["nll"].low


def test_all_right_is_undefined_where_errors_are_sought():
    metrics = evaluate(torch.eye(3) * 9, torch.arange(3), num_resamples=5).metrics
    assert math.isnan(metrics["overconfidence"].value)
    assert metrics["coverage_at_risk_1"].value == 1
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


def test_probabilities_as_logits_and_logits_as_probabilities():
    labels = np.zeros(2, dtype=np.int64)
    with pytest.raises(InputError, match=r"`logits` must be logits; got rows that are at least 0 and sum.*`probs="):
        evaluate(np.array([[0.5, 0.5], [0.25, 0.75]]), labels)
    with pytest.raises(InputError, match=r"`ood\['x'\]` must be logits; got rows"):
        evaluate(np.array([[5.0, 0.0], [1.0, 2.0]]), labels, ood={"x": np.array([[0.5, 0.5]])})
    evaluate(np.array([[0.5, 0.5], [0.25, 0.76]]), labels, num_resamples=0)
    evaluate(np.array([[1.5, 0.5], [1.25, 1.75]]), labels, num_resamples=0)
    with pytest.raises(InputError, match=r"`probs` must be at least 0; got -3 at row 1.*name them `logits`"):
        evaluate(probs=np.array([[0.5, 0.5], [4.0, -3.0]]), labels=labels)
    with pytest.raises(InputError, match=r"`probs` must sum to 1 in every row; got 1.1 at row 1"):
        evaluate(probs=np.array([[0.5, 0.5], [0.5, 0.6]]), labels=labels)
    with pytest.raises(InputError, match=r"must get `labels` and either .*; got `logits` and `labels` and `probs`"):
        evaluate(np.zeros((2, 2)), labels, probs=np.ones((2, 2)) / 2)
    with pytest.raises(InputError, match="got none of them"):
        evaluate()


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
    with pytest.raises(ShapeError, match=r"`difficulty` must have shape \[3\].*; got \[2\]"):
        evaluate(np.zeros((3, 2)), labels, difficulty=np.zeros(2))
    with pytest.raises(InputError, match="`difficulty` must be finite; got nan at row 1"):
        evaluate(np.zeros((3, 2)), labels, difficulty=np.array([0, math.nan, 1]))
    with pytest.raises(InputError, match="`num_resamples`"):
        evaluate(np.zeros((3, 2)), labels, num_resamples=-1)


def test_file_round_trip(tmp_path):
    logits, labels, outside = sample()
    evaluation = evaluate(logits, labels, ood={"noise": outside}, num_resamples=5)
    write_evaluation(evaluation, tmp_path / "a.json")
    write_evaluation(read_evaluation(tmp_path / "a.json"), tmp_path / "b.json")
    assert read_evaluation(tmp_path / "a.json") == evaluation
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert set(evaluation_to_dict(evaluation)) == {*evaluation.metrics, "ood", "num_samples", "num_classes"}


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
    content = evaluation_to_dict(evaluate(torch.eye(2) * 9, torch.arange(2), num_resamples=0))
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


@pytest.mark.parametrize("num_classes", [2, 4])
def test_progress_counts_resamples_of_all_samples(num_classes):
    logits, labels, outside = sample(c=num_classes)
    seen, more = Recorded(), Recorded()
    one = evaluate(logits, labels, num_resamples=20, progress=seen)
    assert rises_to(seen.calls, 40)  # the metrics of each sample, and those of each class
    assert one == evaluate(logits, labels, num_resamples=20)
    groups = {"difficulty": torch.arange(80.0), "by_class": True}
    evaluate(logits, labels, ood={"noise": outside}, num_resamples=20, progress=more, **groups)
    assert rises_to(more.calls, 40 + 20 * 110 // 80 + 20 + 20)


def test_names_are_one_per_class():
    logits, labels = 2 * torch.eye(3), torch.arange(3)
    with pytest.raises(InputError, match=r"`label_names` must have 3 entries, one per class; got 2\. Name all\."):
        evaluate(logits, labels, by_class=True, label_names=["a", "b"], num_resamples=0)
