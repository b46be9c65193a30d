"""The GPU's kernels, interpreted on the CPU: `test_losses_triton` runs this in a process where Triton does so."""

import math

import pytest
import torch

from diffident.losses import entropy_regularized
from diffident.losses import triton_kernels as kernels


def batch(n, c, dtype):
    generator = torch.Generator().manual_seed(n + c)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64).mul(3).to(dtype)
    weights = torch.rand(n, generator=generator) * 2
    weights[-1], weights[0] = 0, 2  # no bonus at all, and left out
    return logits.requires_grad_(), torch.arange(n) % c, weights


# Rows in one chunk, in several, and with a remainder.
@pytest.mark.parametrize(("n", "c", "columns"), [(5, 3, 4096), (4, 10, 4), (3, 33, 8), (1, 1, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("alpha", "doubt"), [(0.3, None), (None, 0.25), (None, 0.0)])
@pytest.mark.parametrize("others", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_kernels_agree_with_the_cpu(monkeypatch, n, c, columns, dtype, alpha, doubt, others, reduction):
    monkeypatch.setattr(kernels, "_MOST_COLUMNS", columns)
    logits, labels, weights = batch(n, c, dtype)
    losses = kernels.TritonEntropyRegularized.apply(logits, labels, weights, alpha, doubt, others, reduction)
    outer = torch.linspace(0.5, 2.0, n) if reduction == "none" else torch.tensor(3.0)
    gradient, again = (
        torch.autograd.grad(losses, logits, outer.to(losses.dtype), retain_graph=retain)[0] for retain in (True, False)
    )
    assert torch.equal(gradient, again)
    exact = logits.detach().double().requires_grad_()
    expected = entropy_regularized.entropy_regularized(
        exact, labels, weights.double(), reduction, alpha=alpha, doubt=doubt, others=others
    )
    (exact_gradient,) = torch.autograd.grad(expected, exact, outer.double())
    half = dtype in (torch.bfloat16, torch.float16)
    assert losses.dtype == (torch.float32 if half else dtype)
    assert gradient.dtype == dtype
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, exact_gradient.to(dtype), rtol=1e-2 if half else 1e-5, atol=1e-6)


def test_a_small_outer_gradient_is_not_rounded_before_it_is_scaled():
    logits = torch.tensor([[0.0, -15.0]], dtype=torch.float16, requires_grad=True)
    losses = kernels.TritonEntropyRegularized.apply(logits, torch.tensor([0]), torch.ones(1), 0.0, None, 1.0, "none")
    (gradient,) = torch.autograd.grad(losses, logits, torch.full((1,), 65536.0))
    assert gradient[0, 1].item() == pytest.approx(65536 * math.exp(-15), rel=1e-2)


def test_masked_classes_and_labels_out_of_range():
    logits = torch.tensor([[1.0, -math.inf, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    losses = kernels.TritonEntropyRegularized.apply(
        logits, torch.tensor([0, 3, -1]), torch.ones(3), 0.2, None, 0.2, "none"
    )
    expected = entropy_regularized._plain(logits[:1, [0, 2]], torch.tensor([0]), torch.full((1,), 0.2), 0.2)
    torch.testing.assert_close(losses[:1], expected)
    assert losses[1:].isnan().all()
    assert torch.autograd.grad(losses[0], logits)[0][0].isfinite().all()


def test_no_second_derivative():
    logits, labels, weights = batch(3, 4, torch.float32)
    losses = kernels.TritonEntropyRegularized.apply(logits, labels, weights, 0.2, None, 0.2, "mean")
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(losses, logits, create_graph=True)


def test_weights_out_of_range_make_it_nan():
    logits, weights = torch.zeros(4, 3, requires_grad=True), torch.tensor([-0.1, 2.1, math.nan, 2.0])
    losses = kernels.TritonEntropyRegularized.apply(logits, torch.zeros(4).long(), weights, None, 0.2, 0.2, "none")
    assert losses.isnan().tolist() == [True, True, True, False]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("columns", [2, 4096])
def test_large_logits_and_a_masked_label_that_is_left_out(monkeypatch, columns):
    monkeypatch.setattr(kernels, "_MOST_COLUMNS", columns)
    logits = torch.tensor([[1e4, 1e4, -1e4, -1e4], [-math.inf, 0.0, 0.0, 0.0]], requires_grad=True)
    losses = kernels.TritonEntropyRegularized.apply(
        logits, torch.tensor([0, 0]), torch.tensor([0.0, 2.0]), 0.0, None, 0.2, "none"
    )
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    torch.testing.assert_close(losses, torch.tensor([math.log(2), 0.0]))
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
