"""Every metric by its formula on hand-made and boundary cases, and against peers where conventions agree."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from tests import oracles_metrics as oracle

from diffident.confidence import max_softmax
from diffident.evaluation import evaluate
from diffident.metrics import (
    brier_parts,
    coverage_at_risk,
    ece,
    ece_debiased,
    ece_equal_mass,
    ece_smooth,
    ks_error,
    mce,
    overconfidence,
    reliability_bins,
    risk_at_coverage,
)

EDGES = [0.0, *(edge / 15 for edge in range(1, 16))]
tables = st.lists(st.tuples(st.sampled_from(EDGES), st.booleans()), min_size=1, max_size=12)
ERRORS = ((ece_equal_mass, oracle.ece_equal_mass), (mce, oracle.mce), (ks_error, oracle.ks_error))


def columns(rows):
    confidence, errors = zip(*rows, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(errors)


@settings(deadline=None)
@given(tables)
def test_ties_and_edges_agree_with_loops_in_any_order(rows):
    confidence, errors = columns(rows)
    right = (~errors).double().tolist()
    for ours, theirs in ERRORS:
        value = ours(confidence, errors).item()
        assert value == pytest.approx(theirs(confidence.tolist(), right), abs=1e-12)
        assert ours(confidence.flip(0), errors.flip(0)).item() == pytest.approx(value, abs=1e-12)
    for risk in (0.0, 0.05, 0.25, 1.0):
        expected = oracle.coverage_at_risk(confidence.tolist(), errors.tolist(), risk)
        assert coverage_at_risk(confidence, errors, risk).item() == pytest.approx(expected)
    for coverage in (0.0, 0.25, 0.8, 1.0):
        expected = oracle.risk_at_coverage(confidence.tolist(), errors.tolist(), coverage)
        assert risk_at_coverage(confidence, errors, coverage).item() == pytest.approx(expected)


@pytest.mark.parametrize("edge", range(1, 15))
@pytest.mark.parametrize("as_given", ["probs", "logits"])
def test_a_probability_on_an_edge_is_in_the_bin_that_ends_there(edge, as_given):
    # Of 30 classes: on the edge and right, a tenth of a bin below and wrong; all others share the rest.
    confidence = torch.tensor([edge / 15, (edge - 0.1) / 15], dtype=torch.float64)
    probs = ((1 - confidence) / 29)[:, None].repeat(1, 30)
    probs[:, 7] = confidence
    given_as = {"probs": probs} if as_given == "probs" else {"logits": probs.log()}
    found = evaluate(**given_as, labels=torch.tensor([7, 0]), num_resamples=0)
    together = abs(float(confidence.sum()) - 1) / 2
    assert found.metrics["ece"].value == pytest.approx(together, abs=1e-12)
    assert found.metrics["mce"].value == pytest.approx(together, abs=1e-12)
    sizes = reliability_bins(max_softmax(probs.log()), torch.tensor([False, True])).counts
    assert sizes.tolist() == [2 * (number == edge) for number in range(1, 16)]


@settings(deadline=None, max_examples=25)
@given(tables, st.data())
def test_counts_are_copies(rows, data):
    confidence, errors = columns(rows)
    count = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)).filter(any))
    copies = torch.arange(len(rows)).repeat_interleave(torch.tensor(count))
    counts = torch.tensor([count], dtype=torch.float64)
    for metric in (
        ece_debiased,
        ece_smooth,
        ks_error,
        mce,
        overconfidence,
        lambda c, e, counts=None: coverage_at_risk(c, e, 0.25, counts),
        lambda c, e, counts=None: risk_at_coverage(c, e, 0.8, counts),
    ):
        resampled, copied = metric(confidence, errors, counts=counts)[0], metric(confidence[copies], errors[copies])
        exact = 1e-12 if metric is not ece_smooth else 2**-23  # found by halving 24 times
        torch.testing.assert_close(resampled, copied, equal_nan=True, atol=exact, rtol=0)


def test_bins_of_equal_mass_by_hand():
    confidence = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], dtype=torch.float64)
    errors = torch.tensor([True, False, False, True, False, False])
    # Pairs from the least sure: |0.55 - 0.5|, |0.75 - 0.5|, |0.95 - 1|.
    assert ece_equal_mass(confidence, errors, 3).item() == pytest.approx((0.05 + 0.25 + 0.05) / 3)
    tied = torch.tensor([0.5, 0.7, 0.7, 0.7, 0.7, 0.9], dtype=torch.float64)  # the tie is one bin: 1 / 4 / 1 would be
    assert ece_equal_mass(tied, errors, 3).item() == pytest.approx((5 * abs(0.66 - 0.6) + 0.1) / 6)


def test_debiased_error_by_hand():
    confidence, errors = torch.full((4,), 0.75, dtype=torch.float64), torch.tensor([True, False, False, False])
    # A gap of 0 with standard error sqrt(3) / 8: its expected size by chance is more than the gap.
    assert ece_debiased(confidence, errors).item() == 0
    sure = torch.full((4,), 0.99, dtype=torch.float64)
    deviation, gap = math.sqrt(0.75 * 0.25 / 4), 0.24
    expected = deviation * math.sqrt(2 / math.pi) * math.exp(-((gap / deviation) ** 2) / 2)
    expected += gap * math.erf(gap / deviation / math.sqrt(2))
    assert ece_debiased(sure, errors).item() == pytest.approx(2 * gap - expected)


def test_the_debiased_error_is_unbiased_where_the_model_is_calibrated():
    generator = torch.Generator().manual_seed(0)
    plain, debiased = [], []
    for _ in range(200):
        confidence = torch.rand(500, generator=generator, dtype=torch.float64)
        errors = torch.rand(500, generator=generator, dtype=torch.float64) > confidence * 0.8
        plain.append(ece(confidence, errors).item())
        debiased.append(ece_debiased(confidence, errors).item())
    assert abs(np.mean(debiased) - 0.1) < 0.003 < abs(np.mean(plain) - 0.1)


def test_coverage_and_risk_by_hand():
    confidence, errors = torch.arange(20, 0, -1) / 20.0, torch.zeros(20, dtype=torch.bool)
    errors[-1] = True
    assert coverage_at_risk(confidence, errors, 0.05).item() == 1  # 1 in 20 is 0.05
    assert coverage_at_risk(torch.ones(100), torch.arange(100) < 29, 0.29).item() == 1  # 0.29 * 100 is below 29
    assert coverage_at_risk(confidence, errors, 0.04).item() == pytest.approx(0.95)
    assert coverage_at_risk(confidence, ~errors, 0.5).item() == 0  # never NaN
    assert risk_at_coverage(confidence, errors, 0.95).item() == 0
    assert risk_at_coverage(confidence, errors, 0.96).item() == 0.05
    assert risk_at_coverage(torch.ones(4), torch.tensor([True, False, False, False]), 0.5).item() == 0.25


def test_a_smooth_error_of_one_point_is_its_gap():
    # All confidences are 0.5: the kernel only moves mass, whose total is the gap however wide the kernel is.
    errors = torch.tensor([True] * 4 + [False] * 6)
    assert ece_smooth(torch.full((10,), 0.5), errors).item() == pytest.approx(0.1, abs=1e-6)
    assert ece_smooth(torch.ones(3), torch.zeros(3, dtype=torch.bool)).item() == 0


def test_parts_of_the_brier_score_by_hand():
    probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    reliability, resolution, uncertainty = (part.item() for part in brier_parts(probs, labels))
    assert reliability == pytest.approx(2 * (0.5 * 0.4**2 + 0.5 * 0.3**2))
    assert uncertainty == pytest.approx(2 * 0.25 * 0.75)
    assert resolution == pytest.approx(2 * (0.5 * 0.25**2 + 0.5 * 0.25**2))  # Murphy's: p is constant in every bin


@pytest.mark.parametrize("num_classes", [1, 2, 3])
@pytest.mark.parametrize("labels", [[0], [0, 0], [0, 0, 0]])
def test_one_sample_and_one_class_give_numbers_or_nan(num_classes, labels):
    logits = torch.arange(float(len(labels) * num_classes)).view(len(labels), num_classes) % 4 + 0.25
    evaluation = evaluate(logits, torch.tensor(labels), num_resamples=20, by_class=True)
    for name, estimate in evaluation.metrics.items():
        assert math.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high, name
        assert not math.isnan(estimate.value) or name.startswith(("auroc", "aupr", "fpr95", "overconfidence")), name


def test_all_right_and_all_wrong():
    logits = torch.tensor([[5.0, 0, 0], [0, 5.0, 0], [0, 0, 4.0]])
    right = evaluate(logits, torch.arange(3), num_resamples=20).metrics
    wrong = evaluate(logits, torch.tensor([1, 2, 0]), num_resamples=20).metrics
    assert (right["coverage_at_risk_5"].value, wrong["coverage_at_risk_5"].value) == (1, 0)
    assert (right["risk_at_coverage_80"].value, wrong["risk_at_coverage_80"].value) == (0, 1)
    assert wrong["overconfidence"].value == pytest.approx(wrong["ece"].value)
    assert wrong["ks_error"].value == pytest.approx(wrong["ece"].value)


def test_binary_forms_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(200, 2, generator=generator).double(), torch.randint(2, (200,), generator=generator)
    metrics = evaluate(logits, labels, num_resamples=0).metrics
    of_class = logits.softmax(1)[:, 1]
    assert metrics["auroc_positive"].value == pytest.approx(roc_auc_score(labels, of_class))
    assert metrics["aupr_positive"].value == pytest.approx(average_precision_score(labels, of_class))
    assert metrics["brier"].value == pytest.approx(2 * brier_score_loss(labels, of_class))
    assert metrics["nll"].value == pytest.approx(log_loss(labels, of_class))


def test_agrees_with_torchmetrics_where_conventions_do():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(500, 4, generator=generator).double() * 2,
        torch.randint(4, (500,), generator=generator),
    )
    metrics = evaluate(logits, labels, num_resamples=0).metrics
    for key, norm in (("ece", "l1"), ("mce", "max")):
        theirs = classification.multiclass_calibration_error(logits.softmax(1), labels, 4, n_bins=15, norm=norm)
        assert metrics[key].value == pytest.approx(theirs.item(), abs=1e-6), key
    errors = logits.argmax(1) != labels
    unsure = 1 - logits.softmax(1).amax(1)
    assert metrics["auroc_errors"].value == pytest.approx(classification.binary_auroc(unsure, errors.long()).item())
    assert metrics["aupr_errors"].value == pytest.approx(
        classification.binary_average_precision(unsure, errors.long()).item()
    )


def test_unlike_torchmetrics_a_certain_prediction_shares_the_last_bin():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    probs, labels = torch.tensor([[1.0, 0.0], [0.95, 0.05]]), torch.tensor([1, 0])
    theirs = classification.multiclass_calibration_error(probs, labels, 2, n_bins=15).item()
    ours = evaluate(probs=probs, labels=labels, num_resamples=0).metrics["ece"].value
    assert ours == pytest.approx(abs((1.0 + 0.95) / 2 - 0.5), abs=1e-6)
    assert theirs == pytest.approx((abs(1.0 - 0) + abs(0.95 - 1)) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_the_classes_does_not_break_ties(dtype):
    logits = torch.randn(2_000, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(max_softmax(logits), max_softmax(logits.flip(1)))
