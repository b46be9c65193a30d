"""Cross-entropy minus a bonus on entropy, made together with its gradient.

The entropy H of p = softmax(logits) is that of right against wrong, h(p_y) = -p_y log p_y - (1 - p_y) log(1 - p_y),
plus (1 - p_y) times that among the other classes, of which `others` counts. So the loss is
CE - a (1 - others) h(p_y) - a others H, and with r = p_y (log(1 - p_y) - log p_y) its gradient for the logits is
(p - onehot(y)) (1 + a (1 - others) r) + a others p (log p + H). The forward pass leaves it behind: that buffer is all
that is as large as the logits, and takes one exponential per logit, where `F.cross_entropy` takes two and three
buffers. On the CPU tensor operations make it, block by block of rows that fit the cache, or of a batch that fits it
`numba_kernels`; on a GPU `triton_kernels` in one kernel; both with weights and strengths as well.
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.losses.base import (
    HALVES,
    Labels,
    Logits,
    Reduced,
    at_labels,
    check_weights,
    terms_at_labels,
    type_of_losses,
)
from diffident.losses.weighting import WEIGHTS_FROM_DIFFICULTY, discounted, split_weights, strengths_of_doubt

# Logits of a thread in a block: what is made of them stays in the cache.
_BLOCK = 1 << 18


def entropy_regularized(
    logits: Logits,
    labels: Labels,
    weights: Float[Tensor, " n"] | None,
    reduction: str,
    *,
    alpha: float | None = None,
    doubt: float | None = None,
    others: float = 1.0,
) -> Reduced:
    """CE(logits, labels) minus a times the entropy of softmax(logits); a is alpha * s, or what `doubt` * s asks for.

    Differentiable once, for the logits alone; `create_graph=True` is refused with a RuntimeError. Soft targets,
    `torch.compile` and calls that record no gradient take plain operations, with the same results.

    Args:
        logits: Of any floating type.
        labels: Classes in [0, c), or probabilities [n, c].
        weights: One per sample, s and what the sample counts, as `split_weights` reads them; None is 1 throughout.
        reduction: `mean` over the batch, or `none`.
        alpha: Strength of the entropy where s is 1.
        doubt: How unsure a sample of s = 1 should be, as `strengths_of_doubt` reads it; one of the two is given.
        others: How much of the entropy among the classes beside the label counts, from 0 (none: right against wrong
            alone) to 1 (all). Of soft targets right against wrong is the mean under the target.

    Raises:
        InputError: a weight is not in [0, 2]. On a GPU it makes the loss NaN.
    """
    plain = labels.is_floating_point() or torch.compiler.is_compiling()
    plain = plain or not (logits.requires_grad and torch.is_grad_enabled())
    if logits.is_cuda and not plain and has_triton():
        from diffident.losses.triton_kernels import TritonEntropyRegularized

        if weights is None:
            weights = torch.ones((), device=logits.device).expand(len(logits))
        elif weights.is_cpu:
            check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY, most=2)
        return TritonEntropyRegularized.apply(
            logits, labels, weights.to(logits.device), alpha, doubt, others, reduction
        )  # type: ignore[return-value]
    if logits.is_cpu and not plain and logits.numel() <= _BLOCK:
        from diffident.losses.numba_kernels import loss_and_gradient

        make = functools.partial(loss_and_gradient, reduction=reduction, alpha=alpha, doubt=doubt, others=others)
        if logits.dtype in HALVES:  # not `to`, which takes a microsecond where it does nothing
            logits = logits.float()
        return WithGradient.apply(make, logits, labels, weights)  # type: ignore[return-value]
    return _in_torch(logits, labels, weights, reduction, alpha, doubt, others, plain=plain)


def _in_torch(
    logits: Logits,
    labels: Labels,
    weights: Float[Tensor, " n"] | None,
    reduction: str,
    alpha: float | None,
    doubt: float | None,
    others: float,
    *,
    plain: bool,
) -> Reduced:
    """`entropy_regularized` in tensor operations, `plain` where autograd is to see each of them."""
    hardness, counts = logits.new_ones(1, dtype=type_of_losses(logits)), None
    if weights is not None:
        hardness, counts = split_weights(weights, logits)
    if alpha is None:
        strength = strengths_of_doubt((doubt or 0.0) * hardness, logits.shape[1], others)
    else:
        strength = alpha * hardness
    logits = logits.to(type_of_losses(logits))
    losses: Any
    if plain and not (doubt if alpha is None else alpha):
        losses = -at_labels(torch.log_softmax(logits, dim=1), labels)
    elif plain:
        losses = _plain(logits, labels, strength, others)
    else:
        make = functools.partial(_by_blocks, others=others, reduction="none" if counts is not None else reduction)
        losses = WithGradient.apply(make, logits, labels, strength)
        if counts is None:
            return losses
    losses = discounted(losses, counts)
    return losses.mean() if reduction == "mean" else losses


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; it comes with torch for GPUs on Linux."""
    return importlib.util.find_spec("triton") is not None


def refuse_second_derivative() -> None:
    """Raise in a backward pass that is recorded itself.

    `once_differentiable` hands on a constant, silently, where the outer gradient is one: so any graph is refused.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "A loss with an entropy bonus can be differentiated once; got backward with create_graph=True. "
            "Leave create_graph out, or write the loss with torch.log_softmax."
        )


def _plain(logits: Logits, labels: Labels, strength: Float[Tensor, "..."], others: float) -> Float[Tensor, " n"]:
    log_probs = torch.log_softmax(logits, dim=1)
    # exp(-1e4) is 0: the bound only keeps 0 times -inf from being NaN.
    negative_entropy = (log_probs.exp() * log_probs.clamp(min=-1e4)).sum(dim=1)
    bonus = -others * negative_entropy
    if others != 1:
        bonus = bonus + (1 - others) * terms_at_labels(log_probs, labels, lambda part: _right_against_wrong(part)[1])
    return -at_labels(log_probs, labels) - strength * bonus


def _right_against_wrong(log_probs: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Of log p: p (log(1 - p) - log p), and the entropy -p log p - (1 - p) log(1 - p), both of the same shape."""
    log_probs = log_probs.clamp(min=-1e4)
    wrong = torch.expm1(log_probs).neg().clamp(min=torch.finfo(log_probs.dtype).tiny)
    log_wrong = wrong.log()
    slope = (1 - wrong) * (log_wrong - log_probs)
    return slope, slope - log_wrong


class WithGradient(torch.autograd.Function):
    """The loss by a function that makes it together with its gradient; backward hands the gradient's buffer out, once.

    The function takes logits, labels and one number a sample, and returns the loss and the gradient for an outer
    gradient of 1.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable, logits: Tensor, labels: Tensor, numbers: Tensor | None) -> Tensor:
        loss, ctx.gradient = function(logits, labels, numbers)
        ctx.function = function
        ctx.save_for_backward(logits, labels, numbers)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None, None]:
        refuse_second_derivative()
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # a second pass over a retained graph: the first one's caller owns the buffer
            _, gradient = ctx.function(*ctx.saved_tensors)
        outer = grad_outputs[0]
        if outer.ndim:
            gradient.mul_(outer.unsqueeze(1))
        elif not outer.is_cpu or outer.item() != 1:  # usually 1: to look is free on the CPU, a pass is not
            gradient.mul_(outer)
        return None, gradient, None, None


def _by_blocks(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, reduction: str
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and its gradient for an outer gradient of 1."""
    scale = 1 / len(logits) if reduction == "mean" else 1.0
    likelihoods, gradient = _split(logits, labels, strength, others, scale, masked=False)
    total = likelihoods.sum()
    if math.isnan(total.item()):  # a logit may be -inf, to mask a class: then 0 times -inf must be 0
        likelihoods, gradient = _split(logits, labels, strength, others, scale, masked=True)
        total = likelihoods.sum()
    return total.mul_(-scale) if reduction == "mean" else likelihoods.neg_(), gradient


def _split(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, scale: float, *, masked: bool
) -> tuple[Tensor, Tensor]:
    """Minus the losses [n], and `scale` times the gradient, from blocks of rows that fit the cache."""
    rows = max(1, _BLOCK * torch.get_num_threads() // logits.shape[1])
    if rows >= len(logits):
        return _block(logits, labels, strength, others, scale, masked, None)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    parts = (whole.split(rows) for whole in (logits, labels, strength.expand(len(logits)), gradient))
    likelihoods = [
        _block(part, part_labels, part_strength, others, scale, masked, out)[0]
        for part, part_labels, part_strength, out in zip(*parts, strict=True)
    ]
    return torch.cat(likelihoods), gradient


def _block(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, scale: float, masked: bool, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`_split` of one block: few passes over it, and one exponential per logit."""
    labels = labels.unsqueeze(1)
    shifted = logits - logits.amax(dim=1, keepdim=True)
    at_label = shifted.gather(1, labels)
    probs = torch.softmax(shifted, dim=1, out=out)
    log_total = probs.amax(dim=1, keepdim=True).log_().neg_()  # the largest is 1 / total, as its shifted logit is 0
    if masked:
        shifted.clamp_(min=-1e4)
    products = shifted.mul_(probs)
    mean = products.sum(dim=1, keepdim=True)
    strength = strength.unsqueeze(1)
    likelihoods, factor = at_label.sub_(log_total), scale
    if others != 1:
        against = strength * (1 - others)
        slope, entropy = _right_against_wrong(likelihoods)
        likelihoods = likelihoods.addcmul(entropy, against)
        factor = slope.mul_(against).add_(1).mul_(scale)
        strength = strength * others
    # H = log_total - mean, so that p f + a p (log p + H) = p * (f - a mean) + a * p * shifted.
    scaled = strength * scale
    probs.mul_(factor - scaled * mean).addcmul_(products, scaled)
    if isinstance(factor, Tensor):
        probs.scatter_add_(1, labels, factor.neg())
    else:
        probs.scatter_(1, labels, -factor, reduce="add")
    return likelihoods.addcmul(log_total.sub(mean), strength).squeeze(1), probs
