import math

import numpy as np
import pytest
import torch
from tests import oracles_losses
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from diffident.errors import InputError
from diffident.losses import (
    CrossEntropy,
    DifficultyAwareLoss,
    DifficultySmoothing,
    DifficultyTemperature,
    EntropyBonus,
    LabelSmoothing,
    entropy_regularized,
    make_loss,
    numba_kernels,
)


def batch(n, c, dtype=torch.float64, scale=2.0):
    generator = torch.Generator().manual_seed(n * c)
    logits = torch.randn(n, c, generator=generator, dtype=torch.float64).mul(scale).to(dtype).requires_grad_()
    labels = torch.randint(c, (n,), generator=generator)
    return logits, labels, torch.rand(n, generator=generator, dtype=torch.float64)


@pytest.fixture(params=["loops", "blocks"])
def either_way(request, monkeypatch):
    """Small batches take compiled loops, others blocks of rows."""
    if request.param == "blocks":
        monkeypatch.setattr(entropy_regularized, "_BLOCK", 1)


def test_uniform_logits_by_hand():
    logits, labels = torch.zeros(2, 4, dtype=torch.float64), torch.tensor([0, 3])
    losses = DifficultyAwareLoss(alpha=0.2, reduction="none")(logits, labels, torch.tensor([1.0, 0.5]))
    assert losses.tolist() == pytest.approx([0.8 * math.log(4), 0.9 * math.log(4)])
    assert EntropyBonus(alpha=0.1)(logits, labels).item() == pytest.approx(0.9 * math.log(4))


def test_label_smoothing_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert LabelSmoothing(0.2)(logits, torch.tensor([0])).item() == pytest.approx(expected)


@pytest.mark.parametrize("c", [3, 100])
def test_gradient_is_the_formula(c):
    logits, labels, weights = batch(1, c)
    DifficultyAwareLoss(alpha=0.3)(logits, labels, weights).backward()
    p = logits.detach().softmax(1)
    entropy = -(p * p.log()).sum()
    expected = p - functional.one_hot(labels, c) + 0.3 * weights * p * (p.log() + entropy)
    torch.testing.assert_close(logits.grad, expected)


# Compiled loops, one block and several, the last of them smaller.
@pytest.mark.parametrize(("n", "c"), [(11, 3), (11, 31), (11, 50), (1, 1), (5, 1)])
@pytest.mark.parametrize("block", [1 << 18, 128, 1])
@pytest.mark.parametrize("others", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_blocks_of_any_size_give_the_oracle(n, c, block, reduction, others, monkeypatch):
    monkeypatch.setattr(entropy_regularized, "_BLOCK", block)
    logits, labels, weights = batch(n, c)
    loss = DifficultyAwareLoss(0.4, others=others, reduction=reduction)(logits, labels, weights)
    rows = logits.tolist(), labels.tolist(), weights.tolist()
    expected = torch.tensor(
        oracles_losses.LOSSES["difficulty-aware"](*rows, alpha=0.4, others=others), dtype=torch.float64
    )
    torch.testing.assert_close(loss.detach(), expected.mean() if reduction == "mean" else expected)
    outer = torch.linspace(0.5, 2.0, n).double() if reduction == "none" else torch.tensor(3.0).double()
    leaf = logits.detach().requires_grad_()
    plain = entropy_regularized._plain(leaf, labels, 0.4 * weights, others)
    loss.backward(outer)
    (plain.mean() if reduction == "mean" else plain).backward(outer)
    torch.testing.assert_close(logits.grad, leaf.grad)


def test_what_is_compiled_agrees(monkeypatch):
    logits, labels, weights = batch(6, 5)
    eager = DifficultyAwareLoss()(logits, labels, weights)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    compiled = DifficultyAwareLoss()(logits, labels, weights)
    assert "WithGradient" in str(eager.grad_fn)
    assert "WithGradient" not in str(compiled.grad_fn)
    torch.testing.assert_close(eager, compiled)
    torch.testing.assert_close(torch.autograd.grad(eager, logits), torch.autograd.grad(compiled, logits))


def test_zero_weight_is_cross_entropy():
    logits, labels, _ = batch(6, 3, torch.float32)
    torch.testing.assert_close(DifficultyAwareLoss()(logits, labels, torch.zeros(6)), CrossEntropy()(logits, labels))


def test_weight_one_is_the_constant_bonus():
    logits, labels, _ = batch(6, 3, torch.float32)
    ours = DifficultyAwareLoss(alpha=0.1)(logits, labels, torch.ones(6))
    torch.testing.assert_close(ours, EntropyBonus(alpha=0.1)(logits, labels))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("c", [3, 40])
def test_masked_classes_take_no_part(c):
    logits, labels, weights = batch(4, c)
    masked = torch.cat([logits.detach(), torch.full((4, 2), -math.inf)], dim=1).double().requires_grad_()
    loss, expected = (DifficultyAwareLoss(alpha=0.2)(values, labels, weights) for values in (masked, logits))
    torch.testing.assert_close(loss, expected)
    gradient = torch.autograd.grad(loss, masked)[0]
    torch.testing.assert_close(gradient[:, :c], torch.autograd.grad(expected, logits)[0])
    assert (gradient[:, c:] == 0).all()


@pytest.mark.usefixtures("either_way")
def test_large_logits_cost_no_precision():
    logits, labels, weights = batch(5, 4, torch.float32)
    far = (logits.detach() + 1e4).requires_grad_()
    shifted = far.detach().double() - 1e4
    expected = DifficultyAwareLoss()(shifted, labels, weights)
    assert DifficultyAwareLoss()(far, labels, weights).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.usefixtures("either_way")
def test_nan_logits_make_the_loss_nan():
    logits = torch.tensor([[math.nan, 0.0]], requires_grad=True)
    assert DifficultyAwareLoss()(logits, torch.tensor([0]), torch.ones(1)).isnan()


@pytest.mark.usefixtures("either_way")
def test_second_derivative_is_refused():
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = EntropyBonus()(logits, torch.tensor([0]))
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(loss, logits, create_graph=True)


@pytest.mark.usefixtures("either_way")
def test_a_retained_graph_gives_the_same_gradient_again():
    logits, labels, weights = batch(4, 3)
    loss = DifficultyAwareLoss()(logits, labels, weights)
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    copy = first.clone()
    first.zero_()  # whoever got a gradient may change it
    second = torch.autograd.grad(2 * loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(second, 2 * copy)


def test_nothing_underflows_where_numpy_would_raise():
    logits = torch.tensor([[0.0, -90.0, -104.0, -1e4]], requires_grad=True)
    with np.errstate(all="raise"):
        loss = DifficultyAwareLoss(0.3)(logits, torch.tensor([1]), torch.ones(1))
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = entropy_regularized._plain(logits, torch.tensor([1]), torch.tensor([0.3]), 1.0).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("ahead", [100.0, 80.0, 40.0, 25.0, 0.0, -25.0, -80.0])
@pytest.mark.parametrize("others", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_samples_have_precise_gradients(ahead, others, dtype):
    """The other classes' gradients by the formula, without 1 - p; the label's is minus their sum."""
    logits = torch.tensor([[ahead, 0.0, -0.5, 1.0]], dtype=dtype, requires_grad=True)
    DifficultyAwareLoss(doubt=0.9, others=others)(logits, torch.tensor([0]), torch.ones(1)).backward()
    rivals = 3**others
    left = 0.9 * rivals / (1 + rivals)
    strength = 1 / ((1 - left) * math.log((1 - left) * rivals / left))
    values = logits.detach().double()
    log_probs = values - values.logsumexp(1)
    log_wrong = values[:, 1:].logsumexp(1) - values.logsumexp(1)
    entropy = -(log_probs.exp() * log_probs).sum()
    slope = log_probs[0, 0].exp() * (log_wrong - log_probs[0, 0])
    probs = log_probs.exp()
    expected = probs * (1 + strength * (1 - others) * slope) + strength * others * probs * (log_probs + entropy)
    rest = expected[0, 1:].where(expected[0, 1:].abs() > 1e-37, 0)  # what is less is 0 here
    precision = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(logits.grad[0, 1:].double(), rest, rtol=precision, atol=1e-37)
    torch.testing.assert_close(logits.grad[0, 0].double(), -rest.sum(), rtol=precision, atol=1e-37)


def test_loops_compile_where_they_cannot_be_kept(monkeypatch):
    def nowhere(self):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(type(numba_kernels._rows), "enable_caching", nowhere)
    assert numba_kernels._compiled(lambda x: x + 1)(1) == 2


def test_no_gradient_is_made_where_none_is_wanted():
    logits, labels, weights = batch(4, 3)
    expected = DifficultyAwareLoss()(logits, labels, weights)
    with torch.no_grad():
        assert DifficultyAwareLoss()(logits, labels, weights).grad_fn is None
    torch.testing.assert_close(DifficultyAwareLoss()(logits.detach(), labels, weights), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_one_matrix_is_allocated(reduction, monkeypatch):
    """The gradient; everything else is of the size of a block or of a column."""
    monkeypatch.setattr(entropy_regularized, "_BLOCK", (1 << 12) // torch.get_num_threads())
    logits, labels, weights = batch(512, 64, torch.float32)
    with Allocations() as allocations:
        loss = DifficultyAwareLoss(reduction=reduction)(logits, labels, weights.float()).sum()
        torch.autograd.grad(loss, logits)
    sizes = sorted(size for place, size in allocations.sizes.items() if place != logits.data_ptr())
    assert sizes[-1] == logits.nbytes
    assert sizes[-2] <= 4 * (1 << 12)


class Allocations(TorchDispatchMode):
    """The bytes of every storage that operations return, by its address."""

    def __init__(self):
        super().__init__()
        self.sizes, self.kept = {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.kept.append(tensor)  # so that no address is used twice
                self.sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return out


@pytest.mark.usefixtures("either_way")
def test_logits_that_are_not_contiguous():
    logits, labels, weights = batch(6, 40)
    turned = logits.detach().t().contiguous().t().requires_grad_()
    gradients = [torch.autograd.grad(DifficultyAwareLoss()(x, labels, weights), x)[0] for x in (logits, turned)]
    torch.testing.assert_close(*gradients)


def test_weights_say_where_they_come_from():
    with pytest.raises(InputError, match=r"got None\. Make them with `difficulty_weights\(difficulty\)`"):
        DifficultyAwareLoss()(torch.zeros(2, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("c", [2, 3, 10, 200])
@pytest.mark.parametrize("doubt", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("others", [0.0, 0.2, 1.0])
def test_one_sample_is_best_left_as_unsure_as_doubt_says(doubt, c, others):
    rivals = (c - 1) ** others
    left = doubt * 0.5 * rivals / (1 + rivals)
    probs = torch.full((1, c), left / (c - 1), dtype=torch.float64)
    probs[0, 1] = 1 - left
    logits = probs.log().requires_grad_()
    criterion, rest = (
        DifficultyAwareLoss(doubt=doubt, others=others),
        (torch.tensor([1]), torch.tensor([0.5], dtype=torch.float64)),
    )
    loss = criterion(logits, *rest)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros(1, c, dtype=torch.float64))
    for step in (-0.1, 0.1):  # the loss is convex in the probabilities: where its gradient is 0, it is least
        assert criterion(logits.detach() + step * functional.one_hot(rest[0], c), *rest) > loss


def test_with_alpha_it_is_the_form_of_the_paper():
    logits, labels, weights = batch(7, 5)
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    expected = (functional.cross_entropy(logits, labels, reduction="none") - 0.2 * weights * entropies).mean()
    torch.testing.assert_close(DifficultyAwareLoss(alpha=0.2)(logits, labels, weights), expected)


def test_no_doubt_is_cross_entropy_also_for_one_class():
    logits, labels, weights = batch(7, 5)
    expected = functional.cross_entropy(logits, labels)
    torch.testing.assert_close(DifficultyAwareLoss(doubt=0.0)(logits, labels, weights), expected)
    torch.testing.assert_close(DifficultyAwareLoss()(logits, labels, 0 * weights), expected)
    assert DifficultyAwareLoss()(torch.zeros(2, 1), torch.tensor([0, 0]), torch.ones(2)) == 0


@pytest.mark.parametrize(("others", "doubt"), [(1.0, 0.1), (0.5, 0.1), (0.49, 0.4), (0.2, 0.4)])
def test_doubt_is_that_of_features_where_little_of_the_others_counts(others, doubt):
    assert DifficultyAwareLoss(others=others).doubt == doubt
    assert DifficultyAwareLoss(others=others, alpha=0.2).doubt is None
    assert DifficultyAwareLoss(others=others, doubt=0.3).doubt == 0.3


def test_alpha_and_doubt_together_are_refused():
    with pytest.raises(InputError, match=r"must not both be given; got 0\.2 and 0\.3"):
        DifficultyAwareLoss(0.2, 0.3)
    with pytest.raises(InputError, match=r"`doubt` must be in \[0, 0\.99\]; got 1"):
        DifficultyAwareLoss(doubt=1.0)


@pytest.mark.parametrize("criterion", [DifficultyAwareLoss, DifficultySmoothing, DifficultyTemperature])
@pytest.mark.parametrize("compiled", [False, True])
def test_above_one_a_sample_counts_less_and_at_two_not_at_all(criterion, compiled, monkeypatch):
    logits, labels, _ = batch(4, 5)
    hardest = criterion(reduction="none")(logits, labels, torch.ones(4, dtype=torch.float64)).detach()
    easy = criterion(reduction="none")(logits, labels, torch.full((4,), 0.25, dtype=torch.float64)).detach()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    loss = criterion()(logits, labels, torch.tensor([0.25, 1.0, 1.4, 2.0], dtype=torch.float64))
    # The mean is over the batch, not over what its samples count.
    torch.testing.assert_close(loss.detach(), (easy[0] + hardest[1] + 0.6 * hardest[2]) / 4)
    loss.backward()
    assert logits.grad[3].abs().max() == 0
    assert logits.grad[2].abs().max() > 0


@pytest.mark.parametrize("bad", [2.1, -0.1, float("nan")])
def test_weights_beyond_two_are_refused(bad):
    logits, labels, _ = batch(3, 4)
    with pytest.raises(InputError, match=r"`weights` must be in \[0, 2\]; got .* at row 1\. Make them with"):
        DifficultyAwareLoss()(logits, labels, torch.tensor([0.5, bad, 1.0]))


@pytest.mark.parametrize("name", ["difficulty-aware", "difficulty-smoothing", "difficulty-temperature"])
def test_a_masked_label_that_is_left_out_counts_nothing(name):
    logits = torch.tensor([[0.0, -math.inf, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
    losses = make_loss(name, reduction="none")(logits, torch.tensor([1, 1]), torch.tensor([2.0, 0.0])).detach()
    assert losses[0] == 0
    assert losses[1] == pytest.approx(math.log(2 + math.e) - 1, rel=1e-5)
