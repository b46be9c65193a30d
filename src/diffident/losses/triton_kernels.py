"""The entropy-regularized loss on a GPU, weights and strengths and all: one kernel, or one a direction.

Where a row fits one chunk and logits have at least 32 bits, one kernel makes losses and gradient. Else rows are walked
in chunks by a kernel a direction, which keep four numbers a row. Logits of 16 bits are read as they are, and all is
computed in float32; their gradient is rounded once, after it is multiplied with the outer one, for loss scaling to
work. A label or weight out of range makes the row's loss NaN: nothing waits for the GPU to look at them.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffident.losses.entropy_regularized import refuse_second_derivative
from diffident.losses.weighting import rivals

# Logits of a row that are in registers at once.
_MOST_COLUMNS = 4096


@triton.jit
def _strength_and_count(weight, option, rivals, by_doubt: tl.constexpr, number: tl.constexpr):
    """The strength of the bonus and what the sample counts, as `split_weights` and `strengths_of_doubt` say.

    1e-37 is the least normal number of float32 there: what is smaller may be taken for 0 by the GPU.
    """
    weight = weight.to(number)
    count = tl.minimum(2 - weight, 1.0)
    strength = option * tl.minimum(weight, 1.0)
    if by_doubt:
        left = strength * rivals / (1 + rivals)
        odds = tl.where(left > 0, (1 - left) * rivals / tl.maximum(left, 1e-37), 2.0)
        strength = tl.where(left > 0, 1 / ((1 - left) * tl.log(odds)), 0.0)
    return tl.where((weight >= 0) & (weight <= 2), strength, float("nan")), count


@triton.jit
def _loss_and_factor(likelihood, entropy, strength, others):
    """A row's loss, and the factor of p - onehot in its gradient; see `_right_against_wrong` on the CPU."""
    bounded = tl.maximum(likelihood, -1e4)
    prob = tl.exp(bounded)
    log_wrong = tl.log(tl.maximum(1 - prob, 1e-37))
    slope = prob * (log_wrong - bounded)
    loss = -likelihood - strength * (others * entropy + (1 - others) * (slope - log_wrong))
    return loss, 1 + strength * (1 - others) * slope


@triton.jit
def _whole_kernel(
    logits, labels, weights, losses, gradient,
    row_stride, weight_stride, classes, option, rivals, others, scale,
    by_doubt: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Each row's loss, and `scale` times the gradient for its logits; a row has at most `columns` of them."""
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, columns)
    inside = offsets < classes
    number = losses.dtype.element_ty
    values = tl.load(logits + row * row_stride + offsets, mask=inside, other=float("-inf")).to(number)
    label = tl.load(labels + row)
    valid = (label >= 0) & (label < classes)
    at_label = tl.load(logits + row * row_stride + label, mask=valid, other=float("nan")).to(number)
    strength, count = _strength_and_count(tl.load(weights + row * weight_stride), option, rivals, by_doubt, number)
    highest = tl.max(values, axis=0)
    shifted = tl.maximum(values - highest, -1e30)  # a masked class has -inf, and 0 times that is NaN
    exps = tl.exp(shifted)
    total = tl.sum(exps, axis=0)
    log_total = tl.log(total)
    probs = exps / total
    mean = tl.sum(probs * shifted, axis=0)
    loss, factor = _loss_and_factor((at_label - highest) - log_total, log_total - mean, strength, others)
    tl.store(losses + row, tl.where(count == 0, 0.0, count * loss))  # its label may be masked out
    hit = tl.where(offsets == label, 1.0, 0.0)
    result = scale * count * ((probs - hit) * factor + strength * others * probs * (shifted - mean))
    tl.store(gradient + row * classes + offsets, result, mask=inside)


@triton.jit
def _forward_kernel(
    logits, labels, weights, losses, highests, log_totals, means, factors,
    row_stride, weight_stride, classes, option, rivals, others, by_doubt: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Each row's loss, factor and largest logit; log sum exp of, and mean under softmax of, its logits minus that."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    offsets = tl.arange(0, columns)
    number = losses.dtype.element_ty
    highest = tl.full((), -1e30, number)
    total = tl.full((), 0.0, number)
    moment = tl.full((), 0.0, number)  # sum of exp(shifted) * shifted
    for start in range(0, classes, columns):
        inside = start + offsets < classes
        values = tl.load(logits + start + offsets, mask=inside, other=float("-inf")).to(number)
        new_highest = tl.maximum(highest, tl.max(values, axis=0))
        fall = highest - new_highest
        shifted = tl.maximum(values - new_highest, -1e30)
        exps = tl.exp(shifted)
        kept = tl.exp(fall)
        moment = kept * (moment + fall * total) + tl.sum(exps * shifted, axis=0)
        total = kept * total + tl.sum(exps, axis=0)
        highest = new_highest
    log_total = tl.log(total)
    mean = moment / total
    label = tl.load(labels + row)
    valid = (label >= 0) & (label < classes)
    at_label = tl.load(logits + label, mask=valid, other=float("nan")).to(number)
    strength, count = _strength_and_count(tl.load(weights + row * weight_stride), option, rivals, by_doubt, number)
    loss, factor = _loss_and_factor((at_label - highest) - log_total, log_total - mean, strength, others)
    tl.store(losses + row, tl.where(count == 0, 0.0, count * loss))
    # Apart, as their sum would round what large logits differ by.
    tl.store(highests + row, highest)
    tl.store(log_totals + row, log_total)
    tl.store(means + row, mean)
    tl.store(factors + row, factor)


@triton.jit
def _backward_kernel(
    outer, logits, labels, weights, highests, log_totals, means, factors, gradient,
    outer_stride, row_stride, weight_stride, classes, option, rivals, others, scale,
    by_doubt: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """The logits' gradient, `scale` and the outer one in it."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * columns
    offsets = start + tl.arange(0, columns)
    inside = offsets < classes
    log_total = tl.load(log_totals + row)
    number = log_total.dtype
    values = tl.load(logits + row * row_stride + offsets, mask=inside, other=float("-inf")).to(number)
    shifted = tl.maximum(values - tl.load(highests + row), -1e30)
    probs = tl.exp(shifted - log_total)
    strength, count = _strength_and_count(tl.load(weights + row * weight_stride), option, rivals, by_doubt, number)
    bonus = probs * (shifted - tl.load(means + row))
    hit = tl.where(offsets == tl.load(labels + row), 1.0, 0.0)
    outer_factor = scale * count * tl.load(outer + row * outer_stride).to(number)
    result = outer_factor * ((probs - hit) * tl.load(factors + row) + strength * others * bonus)
    tl.store(gradient + row * classes + offsets, result.to(gradient.dtype.element_ty), mask=inside)


class TritonEntropyRegularized(torch.autograd.Function):
    """The loss of logits [n, c] on a GPU, float32 for logits of 16 bits; arguments as of `entropy_regularized`."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        alpha: float | None,
        doubt: float | None,
        others: float,
        reduction: str,
    ) -> Tensor:
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        ctx.option, ctx.by_doubt = (doubt, True) if alpha is None else (alpha, False)
        ctx.rivals, ctx.others = rivals(logits.shape[1], others), others
        ctx.scale = 1 / len(logits) if reduction == "mean" else 1.0
        number = torch.promote_types(logits.dtype, torch.float32)
        losses = torch.empty(len(logits), dtype=number, device=logits.device)
        labels = labels.contiguous()
        ctx.whole = logits.dtype == number and logits.shape[1] <= _MOST_COLUMNS
        with torch.cuda.device_of(logits):
            if ctx.whole:
                ctx.gradient = _whole(ctx, logits, labels, weights, losses)
                ctx.save_for_backward(logits, labels, weights)
            else:
                kept = [torch.empty_like(losses) for _ in range(4)]
                _forward_kernel[(len(logits),)](
                    logits, labels, weights, losses, kept[0], kept[1], kept[2], kept[3],
                    logits.stride(0), weights.stride(0), logits.shape[1], ctx.option, ctx.rivals, ctx.others,
                    **_launch(ctx, logits.shape[1]),
                )  # fmt: skip
                ctx.save_for_backward(logits, labels, weights, *kept)
        return losses.mean() if reduction == "mean" else losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        refuse_second_derivative()
        outer, (logits, labels, weights, *kept) = grad_outputs[0], ctx.saved_tensors
        with torch.cuda.device_of(logits):
            if ctx.whole:
                gradient, ctx.gradient = ctx.gradient, None
                if gradient is None:  # a second pass over a retained graph: the first one's caller owns the buffer
                    gradient = _whole(ctx, logits, labels, weights, torch.empty_like(logits[:, 0]))
                gradient.mul_(outer.unsqueeze(1) if outer.ndim else outer)
            else:
                gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
                launch = _launch(ctx, logits.shape[1])
                _backward_kernel[(len(logits), triton.cdiv(logits.shape[1], launch["columns"]))](
                    outer, logits, labels, weights, kept[0], kept[1], kept[2], kept[3], gradient,
                    outer.stride(0) if outer.ndim else 0, logits.stride(0), weights.stride(0), logits.shape[1],
                    ctx.option, ctx.rivals, ctx.others, ctx.scale, **launch,
                )  # fmt: skip
        return gradient, None, None, None, None, None, None


def _whole(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor, losses: Tensor) -> Tensor:
    """Fill in the losses; the gradient for an outer gradient of 1."""
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    _whole_kernel[(len(logits),)](
        logits, labels, weights, losses, gradient,
        logits.stride(0), weights.stride(0), logits.shape[1], ctx.option, ctx.rivals, ctx.others,
        ctx.scale, **_launch(ctx, logits.shape[1]),
    )  # fmt: skip
    return gradient


def _launch(ctx: Any, classes: int) -> dict[str, Any]:
    """How a kernel is launched: Triton's own names."""
    columns = min(triton.next_power_of_2(classes), _MOST_COLUMNS)
    return {"by_doubt": ctx.by_doubt, "columns": columns, "num_warps": min(8, max(1, columns // 256))}
