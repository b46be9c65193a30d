import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import oracles_metrics as oracle

from diffident.metrics import augrc, aurc, auroc_errors, eaurc, risk_coverage

tables = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=1, max_size=12)


def columns(rows):
    confidence, errors = zip(*rows, strict=True)
    return torch.tensor(confidence, dtype=torch.float64), torch.tensor(errors)


def test_by_hand():
    confidence, errors = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([False, True, False, True])
    coverage, risk = risk_coverage(confidence, errors)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(confidence, errors).item() == pytest.approx(1 / 3)
    assert eaurc(confidence, errors).item() == pytest.approx(1 / 3 - (1 / 3 + 1 / 2) / 4)
    assert augrc(confidence, errors).item() == pytest.approx((0.5 + 1 + 1.5) / 16)


@pytest.mark.parametrize(("wrong", "area", "generalised"), [(False, 0.0, 0.0), (True, 1.0, 0.5)])
@pytest.mark.parametrize("n", [1, 5])
def test_all_right_and_all_wrong(wrong, area, generalised, n):
    confidence, errors = torch.rand(n, generator=torch.Generator().manual_seed(0)), torch.full((n,), wrong)
    assert aurc(confidence, errors).item() == pytest.approx(area)
    assert eaurc(confidence, errors).item() == pytest.approx(0, abs=1e-12)
    assert augrc(confidence, errors).item() == pytest.approx(generalised)


def test_all_tied_is_the_error_rate():
    assert risk_coverage(torch.ones(4), torch.tensor([True, False, False, False]))[1].tolist() == [0.25] * 4


@settings(deadline=None)
@given(tables)
def test_agrees_with_loops_and_ignores_the_order(rows):
    confidence, errors = columns(rows)
    for ours, theirs in ((aurc, oracle.aurc), (eaurc, oracle.eaurc), (augrc, oracle.augrc)):
        value = ours(confidence, errors).item()
        assert value == pytest.approx(theirs(confidence.tolist(), errors.tolist()), abs=1e-12)
        assert ours(confidence.flip(0), errors.flip(0)).item() == pytest.approx(value, abs=1e-12)


@settings(deadline=None)
@given(tables, st.data())
def test_counts_are_copies(rows, data):
    confidence, errors = columns(rows)
    n = len(rows)
    count = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(any))
    copies = torch.arange(n).repeat_interleave(torch.tensor(count))
    for metric in (aurc, eaurc, augrc):
        resampled = metric(confidence, errors, torch.tensor([count], dtype=torch.float64))[0].item()
        assert resampled == pytest.approx(metric(confidence[copies], errors[copies]).item(), abs=1e-12)


@settings(deadline=None)
@given(tables)
def test_augrc_follows_from_auroc(rows):
    confidence, errors = columns(rows)
    rate = errors.double().mean().item()
    if 0 < rate < 1:
        expected = (1 - auroc_errors(confidence, errors).item()) * (1 - rate) * rate + rate**2 / 2
        assert augrc(confidence, errors).item() == pytest.approx(expected)
