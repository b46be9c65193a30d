import math

import pytest
import torch

from diffident.errors import InputError, ShapeError
from diffident.losses import CrossEntropy, DifficultyAwareLoss, EntropyBonus, LabelSmoothing


def test_uniform_logits_by_hand():
    logits, labels = torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0, 3])
    losses = DifficultyAwareLoss(alpha=0.2, reduction="none")(logits, labels, torch.tensor([1.0, 0.5]))
    assert losses.tolist() == pytest.approx([0.8 * math.log(4), 0.9 * math.log(4)])
    assert EntropyBonus(alpha=0.1)(logits, labels).item() == pytest.approx(0.9 * math.log(4))


def test_label_smoothing_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert LabelSmoothing(0.2)(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_gradient_is_the_formula():
    logits = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    DifficultyAwareLoss(alpha=0.3)(logits, torch.tensor([1]), torch.tensor([0.5])).backward()
    p = logits.detach().softmax(1)[0]
    entropy = -(p * p.log()).sum()
    expected = p - torch.tensor([0.0, 1.0, 0.0]) + 0.3 * 0.5 * p * (p.log() + entropy)
    torch.testing.assert_close(logits.grad[0], expected)


def test_zero_weight_is_cross_entropy():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    torch.testing.assert_close(DifficultyAwareLoss()(logits, labels, torch.zeros(6)), CrossEntropy()(logits, labels))


def test_weight_one_is_the_constant_bonus():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    ours = DifficultyAwareLoss(alpha=0.1)(logits, labels, torch.ones(6))
    torch.testing.assert_close(ours, EntropyBonus(alpha=0.1)(logits, labels))


def test_second_derivative_is_refused():
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = EntropyBonus()(logits, torch.tensor([0]))
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_only_one_matrix_is_kept_for_backward():
    kept = []
    logits = torch.zeros(8, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        DifficultyAwareLoss(reduction="none")(logits, torch.zeros(8, dtype=torch.int64), torch.ones(8))
    assert sorted(kept) == [8, 8, 8, 40]


@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan, math.inf])
def test_bad_weight_names_the_row(bad):
    with pytest.raises(InputError, match=r"`weights` must be in \[0, 1\]; got .* at row 1"):
        DifficultyAwareLoss()(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0.5, bad]))


def test_weights_must_be_there_one_per_sample():
    with pytest.raises(InputError, match=r"`weights` must have shape .*; got None"):
        DifficultyAwareLoss()(torch.zeros(2, 2), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match=r"`weights` must have shape \[2\]"):
        DifficultyAwareLoss()(torch.zeros(2, 2), torch.tensor([0, 1]), torch.ones(3))
