import pytest
import torch
from scipy.stats import binom
from sklearn.metrics import log_loss
from tests import oracles_metrics as oracle

from diffident import confidence as sure
from diffident.errors import InputError
from diffident.metrics import accuracy, brier, classwise_ece, ece, ece_of_chance, nll, reliability_bins


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


def test_ece_of_chance_is_the_mean_gap_of_binomial_outcomes():
    # Two bins: of 8 samples at 0.75 and of 4 at 0.3, each off by |hits - expected hits|.
    confidence = torch.tensor([0.75] * 8 + [0.3] * 4)
    expected = sum(
        sum(binom.pmf(hits, n, p) * abs(hits - n * p) for hits in range(n + 1)) for n, p in ((8, 0.75), (4, 0.3))
    )
    assert ece_of_chance(confidence, num_draws=20_000).item() == pytest.approx(expected / 12, rel=0.02)
    assert ece_of_chance(confidence, 1, num_draws=20_000) < 0.9 * expected / 12  # gaps of one bin cancel
    assert ece_of_chance(torch.ones(5)).item() == 0
    assert ece_of_chance(confidence, seed=1) == ece_of_chance(confidence, seed=1) != ece_of_chance(confidence)


def test_calibrated_predictions_have_the_ece_of_chance():
    generator = torch.Generator().manual_seed(3)
    confidence = 0.3 + 0.7 * torch.rand(40, 500, generator=generator, dtype=torch.float64)
    right = torch.rand(40, 500, generator=generator, dtype=torch.float64) < confidence
    found = torch.stack([ece(one, ~hit) for one, hit in zip(confidence, right, strict=True)])
    of_chance = torch.stack([ece_of_chance(one) for one in confidence])
    assert found.mean().item() == pytest.approx(of_chance.mean().item(), rel=0.06)


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
