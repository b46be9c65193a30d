"""What every loss promises."""

import pytest
import torch
from torch.nn import functional

from diffident.errors import InputError, ShapeError
from diffident.losses import LOSSES, make_loss

NEUTRAL = {
    "cross-entropy": {},
    "label-smoothing": {"smoothing": 0.0},
    "entropy": {"alpha": 0.0},
    "difficulty-aware": {"alpha": 0.0},
}
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))


def batch(n=5, c=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64).mul(2).to(dtype)
    return logits, torch.arange(n) % c, torch.linspace(0, 1, n, dtype=torch.float64)


def test_names_are_those_of_the_design():
    assert set(LOSSES) == {"cross-entropy", "label-smoothing", "entropy", "difficulty-aware"}
    assert [name for name in LOSSES if LOSSES[name].needs_weights] == ["difficulty-aware"]


@every_loss
def test_mean_is_the_mean_of_none(name):
    logits, labels, weights = batch()
    losses = make_loss(name, reduction="none")(logits, labels, weights)
    assert losses.shape == (5,)
    mean = make_loss(name)(logits, labels, weights)
    assert mean.shape == ()
    torch.testing.assert_close(mean, losses.mean())


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradient_agrees_with_finite_differences(name, reduction):
    logits, labels, weights = batch()
    loss = make_loss(name, reduction=reduction)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, weights), logits.requires_grad_())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_stay_finite(name, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4]], dtype=dtype, requires_grad=True)
    losses = make_loss(name, reduction="none")(logits, torch.tensor([0, 0, 2]), torch.ones(3))
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@every_loss
def test_neutral_setting_is_cross_entropy(name):
    logits, labels, weights = batch()
    loss = make_loss(name, **NEUTRAL[name])(logits, labels, weights)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


@every_loss
def test_autocast_trains_a_half_precision_layer(name):
    layer = torch.nn.Linear(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make_loss(name)(layer(torch.ones(2, 3)), torch.tensor([0, 1]), torch.ones(2))
    loss.backward()
    assert loss.dtype == torch.float32
    assert layer.weight.grad.abs().sum() > 0


@every_loss
@pytest.mark.parametrize("label", [-1, 4])
def test_label_out_of_range_names_the_row(name, label):
    logits, labels, weights = batch()
    labels[3] = label
    with pytest.raises(InputError, match=rf"`labels` must be in \[0, 4\); got {label} at row 3"):
        make_loss(name)(logits, labels, weights)


@every_loss
def test_wrong_shapes_and_empty_batches(name):
    logits, labels, weights = batch()
    with pytest.raises(ShapeError, match=r"`labels` must have shape \[5\]"):
        make_loss(name)(logits, labels[:4], weights)
    with pytest.raises(InputError, match="must not be empty"):
        make_loss(name)(logits[:0], labels[:0], weights[:0])


def test_wrong_names_and_options():
    with pytest.raises(InputError, match="Did you mean `cross-entropy`"):
        make_loss("cross_entropy")
    with pytest.raises(InputError, match="Did you mean `alpha`"):
        make_loss("entropy", alpah=0.1)
    with pytest.raises(InputError, match="takes no options"):
        make_loss("cross-entropy", alpha=0.1)
    with pytest.raises(InputError, match="`reduction` must be"):
        make_loss("entropy", reduction="sum")
    with pytest.raises(InputError, match="`alpha` must be a number"):
        make_loss("entropy", alpha="0.1")


@pytest.mark.parametrize(("name", "option"), [("entropy", "alpha"), ("label-smoothing", "smoothing")])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_bad_numbers_are_refused(name, option, value):
    with pytest.raises(InputError, match=f"`{option}` must be"):
        make_loss(name, **{option: value})
