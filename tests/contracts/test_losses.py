"""What every loss promises."""

import math
import subprocess
import sys

import pytest
import torch
from tests import oracles_losses
from torch.nn import functional

from diffident.cli.train import LOSS_NAMES
from diffident.errors import InputError, ShapeError
from diffident.losses import LOSSES, make_loss

# Options that make it cross-entropy; other values than the defaults, to be checked as well. LogitNorm is cross-entropy
# of logits whose norm is 1 / temperature: see `logits_of`.
NEUTRAL = {
    "cross-entropy": {},
    "label-smoothing": {"smoothing": 0.0},
    "entropy": {"alpha": 0.0},
    "difficulty-aware": {"alpha": 0.0},
    "difficulty-smoothing": {"smoothing": 0.0},
    "difficulty-temperature": {"alpha": 0.0},
    "focal": {"gamma": 0.0},
    "flsd": {"gamma": 0.0, "gamma_low": 0.0},
    "dual-focal": {"gamma": 0.0},
    "inverse-focal": {"gamma": 0.0},
    "l1": {"alpha": 0.0},
    "poly": {"epsilon": 0.0},
    "mbls": {"alpha": 0.0},
    "logit-norm": {"temperature": 0.2},
    "crl": {"alpha": 0.0},
    "mmce": {"alpha": 0.0},
    "soft-ece": {"alpha": 0.0},
    "mixup": {"alpha": 0.0},
    "regmixup": {"eta": 0.0},
}
OTHER = {
    "cross-entropy": {},
    "label-smoothing": {"smoothing": 0.3},
    "entropy": {"alpha": 0.7},
    "difficulty-aware": {"doubt": 0.6, "others": 0.5},
    "difficulty-smoothing": {"smoothing": 0.5},
    "difficulty-temperature": {"alpha": 0.8},
    "focal": {"gamma": 0.5},
    "flsd": {"gamma": 1.0, "gamma_low": 0.5},
    "dual-focal": {"gamma": 1.5},
    "inverse-focal": {"gamma": 0.5},
    "l1": {"alpha": 0.3},
    "poly": {"epsilon": -1.0},
    "mbls": {"margin": 1.5, "alpha": 0.6},
    "logit-norm": {"temperature": 0.5},
    "crl": {"alpha": 0.4},
    "mmce": {"alpha": 2.5},
    "soft-ece": {"alpha": 2.0, "num_bins": 4, "bin_temperature": 0.003},
    "mixup": {"alpha": 0.3},
    "regmixup": {"alpha": 10.0, "eta": 0.5},
}
every_loss = pytest.mark.parametrize("name", sorted(LOSSES))
every_soft_loss = pytest.mark.parametrize("name", sorted(name for name in LOSSES if LOSSES[name].soft_targets))


def batch(n=7, c=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64).mul(2).to(dtype)
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    weights[n - n // 3 :] = weights[0]  # equal ones beside each other, as histories have
    return logits, torch.arange(n) % c, weights


def logits_of(name, logits):
    return functional.normalize(logits, dim=1) / NEUTRAL[name]["temperature"] if name == "logit-norm" else logits


def test_every_loss_is_covered():
    assert set(LOSSES) == set(NEUTRAL) == set(OTHER) == set(oracles_losses.LOSSES)
    for name, kind in LOSSES.items():
        assert set(OTHER[name]) == set(kind.options) - ({"alpha"} if "doubt" in kind.options else set())
        assert set(NEUTRAL[name]) <= set(kind.options)


def test_help_names_them():
    assert tuple(LOSSES) == LOSS_NAMES


def test_what_is_said_of_them():
    def names(ask):
        return sorted(name for name, kind in LOSSES.items() if ask(kind))

    assert names(lambda k: k.needs_weights) == ["difficulty-aware", "difficulty-smoothing", "difficulty-temperature"]
    assert names(lambda k: k.needs_history) == ["crl"]
    assert names(lambda k: k.mixes) == ["mixup", "regmixup"]
    assert names(lambda k: k.couples) == ["crl", "mmce", "soft-ece"]
    assert names(lambda k: not k.soft_targets) == ["crl", "dual-focal", "mmce", "soft-ece"]
    assert LOSSES["flsd"].resolved() == {"gamma": 3.0, "gamma_low": 5.0}


@pytest.mark.parametrize("name", [name for name, kind in LOSSES.items() if kind.needs_weights])
def test_labels_and_weights_may_be_arrays(name):
    logits, labels, weights = batch()
    loss = make_loss(name)
    assert torch.equal(loss(logits, labels.numpy(), weights.numpy()), loss(logits, labels, weights))


@every_loss
@pytest.mark.parametrize("options", ["default", "other"])
def test_losses_are_the_oracles(name, options):
    logits, labels, weights = batch(n=9)
    chosen = OTHER[name] if options == "other" else {}
    expected = oracles_losses.LOSSES[name](logits.tolist(), labels.tolist(), weights.tolist(), **formula(name, chosen))
    given = None if name == "regmixup" else weights
    losses = make_loss(name, reduction="none", **chosen)(logits, labels, given)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))


def formula(name, options):
    """The options that stand in the loss of samples that are not mixed."""
    return {} if name in ("mixup", "regmixup") else options


@every_loss
def test_mean_is_the_mean_of_none(name):
    logits, labels, weights = batch()
    losses = make_loss(name, reduction="none")(logits, labels, weights)
    assert losses.shape == (7,)
    mean = make_loss(name)(logits, labels, weights)
    assert mean.shape == ()
    torch.testing.assert_close(mean, losses.mean())


@every_loss
@pytest.mark.parametrize("shape", [(7, 4), (3, 40)])
def test_gradient_agrees_with_finite_differences(name, shape):
    logits, labels, weights = batch(*shape)
    loss = make_loss(name, reduction="none", **OTHER[name])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, weights), logits.requires_grad_())


@every_loss
@pytest.mark.parametrize("shape", [(7, 4), (3, 40), (1, 2), (2, 1)])
def test_gradient_of_the_mean_is_that_of_the_losses(name, shape):
    logits, labels, weights = batch(*shape)
    logits.requires_grad_()
    mean = make_loss(name)(logits, labels, weights)
    losses = make_loss(name, reduction="none")(logits, labels, weights)
    torch.testing.assert_close(torch.autograd.grad(mean, logits), torch.autograd.grad(losses.mean(), logits))


@every_soft_loss
def test_soft_targets_of_one_class_are_that_class(name):
    logits, labels, weights = batch()
    loss = make_loss(name, reduction="none", **OTHER[name])
    soft = functional.one_hot(labels, 4).float()
    torch.testing.assert_close(loss(logits, soft, weights), loss(logits, labels, weights))


@every_soft_loss
def test_a_soft_target_is_the_mean_over_its_classes(name):
    logits, labels, weights = batch()
    others = labels.roll(1)
    loss = make_loss(name, reduction="none", **OTHER[name])
    mixed = 0.3 * functional.one_hot(labels, 4).double() + 0.7 * functional.one_hot(others, 4).double()
    expected = 0.3 * loss(logits, labels, weights) + 0.7 * loss(logits, others, weights)
    torch.testing.assert_close(loss(logits, mixed, weights), expected)
    assert torch.autograd.gradcheck(lambda x: loss(x, mixed, weights), logits.requires_grad_())


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("options", [{}, OTHER], ids=["default", "other"])
def test_extreme_logits_stay_finite(name, dtype, options):
    rows = [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]]
    logits = torch.tensor(rows, dtype=dtype, requires_grad=True)
    loss = make_loss(name, reduction="none", **options.get(name, {}))
    losses = loss(logits, torch.tensor([0, 0, 2, 1]), torch.tensor([1.0, 0.5, 0.5, 0.0]))
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@every_loss
def test_neutral_setting_is_cross_entropy(name):
    logits, labels, weights = batch()
    logits = logits_of(name, logits)
    loss = make_loss(name, **NEUTRAL[name])(logits, labels, None if name == "regmixup" else weights)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels))


@every_loss
def test_autocast_trains_a_half_precision_layer(name):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 2.0]]))
        loss = make_loss(name)(logits, torch.tensor([0, 1]), torch.tensor([1.0, 0.5]))
    loss.backward()
    assert loss.dtype == torch.float32
    exact = make_loss(name)(logits.detach().double(), torch.tensor([0, 1]), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(loss.detach().double(), exact, rtol=1e-5, atol=1e-5)
    assert layer.weight.grad.abs().sum() > 0


@every_loss
@pytest.mark.parametrize("label", [-1, 4, -100])
@pytest.mark.parametrize("needs_gradient", [True, False])
def test_label_out_of_range_names_the_row(name, label, needs_gradient):
    logits, labels, weights = batch()
    labels[3] = label
    with pytest.raises(InputError, match=rf"^`labels` must be in \[0, 4\); got {label} at row 3"):
        make_loss(name)(logits.requires_grad_(needs_gradient), labels, weights)


@every_loss
def test_wrong_shapes_and_empty_batches(name):
    logits, labels, weights = batch()
    with pytest.raises(ShapeError, match=r"`labels` must have shape \[7\]"):
        make_loss(name)(logits, labels[:4], weights)
    with pytest.raises(ShapeError, match=r"`logits` must have shape \[n, c\]; got \[4\]"):
        make_loss(name)(logits[0], labels, weights)
    with pytest.raises(InputError, match="must not be empty"):
        make_loss(name)(logits[:0], labels[:0], weights[:0])


@every_soft_loss
def test_bad_soft_targets_name_the_row(name):
    logits, labels, weights = batch()
    soft = functional.one_hot(labels, 4).double()
    soft[2] = torch.tensor([0.5, 0.2, 0.2, 0.3])
    with pytest.raises(InputError, match=r"sum to 1; got 1\.2 as the sum and 0\.2 as the least at row 2"):
        make_loss(name)(logits, soft, weights)
    with pytest.raises(ShapeError, match=r"`labels` must have shape \[7, 4\], those of the logits; got \[7, 3\]"):
        make_loss(name)(logits, soft[:, :3], weights)


@pytest.mark.parametrize("name", sorted(name for name in LOSSES if not LOSSES[name].soft_targets))
def test_losses_of_classes_refuse_soft_targets(name):
    logits, labels, weights = batch()
    with pytest.raises(InputError, match=r"`labels` must be classes \[7\] for this loss; got torch.float64 \[7, 4\]"):
        make_loss(name)(logits, functional.one_hot(labels, 4).double(), weights)


@pytest.mark.parametrize(
    "name", sorted(name for name in LOSSES if LOSSES[name].needs_weights | LOSSES[name].needs_history)
)
def test_bad_weights_name_the_row(name):
    logits, labels, weights = batch()
    most = 2 if LOSSES[name].needs_weights else 1  # above 1 a sample is left out, in part or whole
    for bad in (-0.1, most + 0.5, math.nan, math.inf):
        weights[4] = bad
        with pytest.raises(InputError, match=rf"`weights` must be in \[0, {most}\]; got .* at row 4"):
            make_loss(name)(logits, labels, weights)
    with pytest.raises(InputError, match=r"`weights` must have shape \[7\]; got None"):
        make_loss(name)(logits, labels)
    with pytest.raises(ShapeError, match=r"`weights` must have shape \[7\], one per sample; got \[3\]"):
        make_loss(name)(logits, labels, weights[:3])


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


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in LOSSES for option in LOSSES[name].options])
@pytest.mark.parametrize("value", [-1.1, float("nan"), float("inf")])
def test_bad_numbers_are_refused(name, option, value):
    with pytest.raises(InputError, match=f"^`{option}` must be "):
        make_loss(name, **{option: value})


@every_loss
def test_its_repr_says_the_options(name):
    text = repr(make_loss(name, **OTHER[name]))
    assert all(f"{option}={value}" in text for option, value in OTHER[name].items())
    assert "reduction='mean'" in text


@pytest.mark.slow
def test_they_work_under_compile():
    # In a process of its own: what checks shapes in tests cannot be compiled.
    command = [sys.executable, "-c", COMPILED, *sorted(LOSSES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


COMPILED = """
import sys, torch
from diffident.losses import make_loss

torch.manual_seed(0)
logits, labels, weights = torch.randn(7, 4), torch.arange(7) % 4, torch.rand(7)
for name in sys.argv[1:]:
    plain = make_loss(name)
    results = []
    for loss in (plain, torch.compile(plain, backend="aot_eager", fullgraph=True)):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, labels, weights)
        results.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(*results)
    torch._dynamo.reset()
"""
