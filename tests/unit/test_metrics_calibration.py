import pytest
import torch
from sklearn.metrics import log_loss
from tests import oracles_metrics as oracle

from diffident import confidence as sure
from diffident.errors import InputError
from diffident.metrics import accuracy, brier, classwise_ece, ece, nll, reliability_bins


def sample(n=60, c=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64) * 2
    return logits, torch.randint(c, (n,), generator=generator)


def test_bins_are_right_closed():
    values = torch.tensor([0.0, 1 / 15, 1 / 15 + 1e-12, 0.2, 0.2 + 1e-12, 14 / 15, 1.0], dtype=torch.float64)
    bins = reliability_bins(values, torch.zeros(7, dtype=torch.bool))
    assert bins.counts.tolist() == [2, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert bins.edges[-1] == 1
    assert bins.mean_confidence[4].isnan()


def test_ece_by_hand():
    errors = torch.tensor([False, True, False, False])
    assert ece(torch.tensor([0.9, 0.9, 1.0, 1.0]), errors, 10).item() == pytest.approx(0.5 * 0.4)
    assert ece(torch.ones(3), torch.tensor([True, True, True])).item() == 1
    assert ece(torch.zeros(1), torch.tensor([False])).item() == 1


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_loops(seed):
    logits, labels = sample(seed=seed)
    probs, errors = logits.softmax(1), logits.argmax(1) != labels
    top = sure.max_softmax(logits)
    assert ece(top, errors).item() == pytest.approx(oracle.binned_gap(top.tolist(), (~errors).double().tolist()))
    assert classwise_ece(probs, labels).item() == pytest.approx(oracle.classwise_ece(probs.tolist(), labels.tolist()))
    assert nll(logits.log_softmax(1), labels).item() == pytest.approx(log_loss(labels, probs, labels=range(5)))
    pairs = list(zip(probs.tolist(), labels.tolist(), strict=True))
    by_hand = [sum((p - (k == y)) ** 2 for k, p in enumerate(row)) for row, y in pairs]
    assert brier(probs, labels).item() == pytest.approx(float(sum(by_hand)) / 60)
    assert accuracy(errors).item() == pytest.approx(1 - errors.double().mean().item())


def test_counts_are_copies():
    logits, labels = sample()
    counts = torch.randint(3, (2, 60), generator=torch.Generator().manual_seed(3)).double()
    probs, errors, top = logits.softmax(1), logits.argmax(1) != labels, sure.max_softmax(logits)
    for row, count in enumerate(counts):
        rows = torch.arange(60).repeat_interleave(count.long())
        torch.testing.assert_close(ece(top, errors, counts=counts)[row], ece(top[rows], errors[rows]))
        torch.testing.assert_close(
            classwise_ece(probs, labels, counts=counts)[row], classwise_ece(probs[rows], labels[rows])
        )
        torch.testing.assert_close(brier(probs, labels, counts)[row], brier(probs[rows], labels[rows]))


def test_confidences_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0]]).log().clamp_min(-200)
    assert sure.max_softmax(logits).item() == pytest.approx(0.75)
    assert sure.margin(logits).item() == pytest.approx(0.5)
    assert sure.entropy(logits).item() == pytest.approx(0.5623351)
    assert sure.negative_energy(logits).item() == pytest.approx(1.3862944)
    assert sure.max_logit(logits).item() == pytest.approx(1.0986123)
    assert sure.entropy(torch.tensor([[1e4, -1e4]], dtype=torch.float16)).item() == 0


@pytest.mark.parametrize("num_bins", [0, -1])
def test_no_bins_are_refused(num_bins):
    with pytest.raises(InputError, match="`num_bins` must be a whole number, at least 1"):
        ece(torch.tensor([0.5, 0.6]), torch.tensor([True, False]), num_bins)
