import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from tests import oracles_metrics as oracle

from diffident.metrics import aupr, auroc, auroc_errors, fpr95, fpr95_errors

tables = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None)
@given(tables)
def test_agrees_with_loops_and_scikit_learn(rows):
    scores, positive = zip(*rows, strict=True)
    ours = torch.tensor(scores, dtype=torch.float64), torch.tensor(positive)
    assert auroc(*ours).item() == pytest.approx(oracle.auroc(scores, positive), nan_ok=True)
    assert fpr95(*ours).item() == pytest.approx(oracle.fpr95(scores, positive), nan_ok=True)
    if 0 < sum(positive) < len(positive):
        assert auroc(*ours).item() == pytest.approx(roc_auc_score(positive, scores))
        assert aupr(*ours).item() == pytest.approx(average_precision_score(positive, scores))


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_only_is_undefined(positive):
    scores, labels = torch.tensor([0.1, 0.2]), torch.full((2,), positive)
    for metric in (auroc, fpr95, aupr):
        assert metric(scores, labels).isnan()


def test_ninety_five_per_cent_is_enough():
    scores = torch.arange(40, 0, -1).double()
    positive = torch.tensor([True] * 19 + [False] * 20 + [True])
    assert fpr95(scores, positive).item() == 0
    assert fpr95(scores[1:], positive[1:]).item() == 1  # 18 of 19 is less


def test_all_tied():
    scores, positive = torch.ones(4), torch.tensor([True, False, False, False])
    assert (auroc(scores, positive).item(), fpr95(scores, positive).item(), aupr(scores, positive).item()) == (
        0.5,
        1.0,
        0.25,
    )


@settings(deadline=None)
@given(tables)
def test_errors_are_found_by_low_confidence(rows):
    scores, errors = torch.tensor([r[0] / 8 for r in rows], dtype=torch.float64), torch.tensor([r[1] for r in rows])
    torch.testing.assert_close(auroc_errors(1 - scores, errors), auroc(scores, errors), equal_nan=True)
    torch.testing.assert_close(fpr95_errors(1 - scores, errors), fpr95(scores, errors), equal_nan=True)


@settings(deadline=None)
@given(tables, st.data())
def test_counts_are_copies(rows, data):
    scores, positive = torch.tensor([float(r[0]) for r in rows]), torch.tensor([r[1] for r in rows])
    count = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)).filter(any))
    copies = torch.arange(len(rows)).repeat_interleave(torch.tensor(count))
    counts = torch.tensor([count], dtype=torch.float64)
    for metric in (auroc, fpr95, aupr, auroc_errors, fpr95_errors):
        torch.testing.assert_close(
            metric(scores, positive, counts)[0], metric(scores[copies], positive[copies]), equal_nan=True
        )
