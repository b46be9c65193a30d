"""Cross-entropy minus a bonus on entropy, made together with its gradient.

The entropy H of p = softmax(logits) is that of right against wrong, h(p_y) = -p_y log p_y - (1 - p_y) log(1 - p_y),
plus (1 - p_y) times that among the other classes, of which `others` counts. So the loss is
CE - a (1 - others) h(p_y) - a others H, and with r = p_y (log(1 - p_y) - log p_y) its gradient for the logits is
(p - onehot(y)) (1 + a (1 - others) r) + a others p (log p + H). On the CPU the forward pass leaves it behind, block by
block of rows that fit the cache: that buffer is all that is as large as the logits, and takes one exponential per logit
(two where classes are few), where `F.cross_entropy` takes two and three buffers. On a GPU `triton_kernels` does the
same in one kernel, weights and strengths as well.
"""

import functools
import importlib.util
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.losses.base import Labels, Logits, Reduced, at_labels, check_weights, terms_at_labels, type_of_losses
from diffident.losses.weighting import WEIGHTS_FROM_DIFFICULTY, counted, split_weights, strengths_of_doubt

# Logits of a thread in a block: what is made of them stays in the cache.
_BLOCK = 1 << 18
# From so many classes on, rows are long enough for the softmax kernel, and passes over memory count more than calls.
_WIDE = 32


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
    """`entropy_regularized` without Triton, `plain` in single operations."""
    hardness, counts = logits.new_ones(1, dtype=type_of_losses(logits)), None
    if weights is not None:
        hardness, counts = split_weights(weights, logits)
    if alpha is None:
        strength = strengths_of_doubt((doubt or 0.0) * hardness, logits.shape[1], others)
    else:
        strength = alpha * hardness
    logits = logits.to(type_of_losses(logits))
    losses: Any
    if plain:
        losses = _plain(logits, labels, strength, others)
    elif counts is None:
        return Blockwise.apply(logits, labels, strength, others, reduction)  # type: ignore[return-value]
    else:
        losses = Blockwise.apply(logits, labels, strength, others, "none")
    losses = counted(losses, counts)
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


class Blockwise(torch.autograd.Function):
    """The loss by `_loss_and_gradient`; backward hands the gradient's buffer out, once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, strength: Tensor, others: float, reduction: str) -> Tensor:
        loss, ctx.gradient = _loss_and_gradient(logits, labels, strength, others, reduction)
        ctx.save_for_backward(logits, labels, strength)
        ctx.options = others, reduction
        return loss

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        refuse_second_derivative()
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # a second pass over a retained graph: the first one's caller owns the buffer
            _, gradient = _loss_and_gradient(*ctx.saved_tensors, *ctx.options)
        outer = grad_outputs[0]
        if outer.ndim:
            gradient.mul_(outer.unsqueeze(1))
        elif outer.device.type != "cpu" or outer.item() != 1:  # usually 1: to look is free on the CPU, a pass is not
            gradient.mul_(outer)
        return gradient, None, None, None, None


def _loss_and_gradient(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, reduction: str
) -> tuple[Tensor, Tensor]:
    """The reduced loss, and its gradient for an outer gradient of 1."""
    scale = 1 / len(logits) if reduction == "mean" else 1.0
    likelihoods, gradient = _by_blocks(logits, labels, strength, others, scale, masked=False)
    total = likelihoods.sum()
    if math.isnan(total.item()):  # a logit may be -inf, to mask a class: then 0 times -inf must be 0
        likelihoods, gradient = _by_blocks(logits, labels, strength, others, scale, masked=True)
        total = likelihoods.sum()
    return total.mul_(-scale) if reduction == "mean" else likelihoods.neg_(), gradient


def _by_blocks(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, scale: float, *, masked: bool
) -> tuple[Tensor, Tensor]:
    """Minus the losses [n], and `scale` times the gradient, from blocks of rows that fit the cache."""
    rows = max(1, _BLOCK * torch.get_num_threads() // logits.shape[1])
    block = _wide_block if logits.shape[1] >= _WIDE else _narrow_block
    if rows >= len(logits):
        return block(logits, labels, strength, others, scale, masked, None)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    parts = (whole.split(rows) for whole in (logits, labels, strength.expand(len(logits)), gradient))
    likelihoods = [
        block(part, part_labels, part_strength, others, scale, masked, out)[0]
        for part, part_labels, part_strength, out in zip(*parts, strict=True)
    ]
    return torch.cat(likelihoods), gradient


def _wide_block(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, scale: float, masked: bool, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`_by_blocks` of one block of many classes: few passes over it, and one exponential per logit."""
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
    likelihoods, factor = at_label.sub_(log_total), None
    if others != 1:
        likelihoods, factor = _with_right_against_wrong(likelihoods, strength * (1 - others))
        factor.mul_(scale)
        strength = strength * others
    # H = log_total - mean, so that p f + a p (log p + H) = p * (f - a mean) + a * p * shifted.
    scaled = strength * scale
    probs.mul_((scale if factor is None else factor) - scaled * mean).addcmul_(products, scaled)
    _subtract_at_labels(probs, 1, labels, factor, scale)
    return likelihoods.addcmul(log_total.sub(mean), strength).squeeze(1), probs


def _narrow_block(
    logits: Tensor, labels: Tensor, strength: Tensor, others: float, scale: float, masked: bool, out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`_by_blocks` of one block of few classes: few calls, and classes as rows, as kernels are slow on short rows."""
    labels = labels.unsqueeze(0)
    log_probs = torch.log_softmax(logits.t(), dim=0)
    probs = log_probs.exp()
    likelihoods, factor = log_probs.gather(0, labels), None
    if masked:
        log_probs.clamp_(min=-1e4)
    products = log_probs.mul_(probs)
    negative_entropy = products.sum(dim=0)
    products.addcmul_(probs, negative_entropy, value=-1)  # p * (log p + H)
    if others != 1:
        likelihoods, factor = _with_right_against_wrong(likelihoods, strength * (1 - others))
        probs.mul_(factor)
    probs.addcmul_(products, strength, value=others)
    _subtract_at_labels(probs, 0, labels, factor, 1.0)
    gradient = probs.mul_(scale).t()
    likelihoods = likelihoods.squeeze(0).addcmul(negative_entropy, strength, value=-others)
    return likelihoods, gradient if out is None else out.copy_(gradient)


def _with_right_against_wrong(likelihoods: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """The likelihoods plus strength * h(p_y), and the factor of p - onehot(y) in the gradient; shapes as given."""
    slope, entropy = _right_against_wrong(likelihoods)
    return likelihoods.addcmul(entropy, strength), slope.mul_(strength).add_(1)


def _subtract_at_labels(gradient: Tensor, dim: int, labels: Tensor, factor: Tensor | None, scale: float) -> None:
    """Take the factor, or where that is None the scale, off the labels' entries."""
    if factor is None:
        gradient.scatter_(dim, labels, -scale, reduce="add")
    else:
        gradient.scatter_add_(dim, labels, factor.neg())
