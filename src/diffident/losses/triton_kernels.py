"""The entropy-regularized loss on a GPU: a kernel a direction, which read the logits and keep two numbers a row.

Rows are walked in chunks, so that any number of classes fits. Logits of 16 bits are read as they are, and all is
computed in float32; the gradient is rounded once, after it is multiplied with the outer one, for loss scaling to work.
A label out of range makes the row's loss NaN: nothing waits for the GPU to look at labels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffident.losses.entropy_regularized import refuse_second_derivative

# Logits of a row that are in registers at once.
_MOST_COLUMNS = 4096


@triton.jit
def _forward_kernel(
    logits, labels, weights, losses, log_totals, means, row_stride, weight_stride, classes, alpha, columns: tl.constexpr
):
    """Each row's loss, log sum exp of its logits, and mean of its log-probabilities under softmax."""
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
        shifted = tl.maximum(values - new_highest, -1e30)  # a masked class has -inf, and 0 times that is NaN
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
    strength = alpha * tl.load(weights + row * weight_stride).to(number)
    tl.store(losses + row, (highest - at_label) + log_total - strength * (log_total - mean))
    tl.store(log_totals + row, highest + log_total)
    tl.store(means + row, mean - log_total)


@triton.jit
def _backward_kernel(
    outer, logits, labels, weights, log_totals, means, gradient,
    outer_stride, row_stride, weight_stride, gradient_stride, classes, alpha, columns: tl.constexpr,
):  # fmt: skip
    """The logits' gradient: outer * (p - onehot + alpha * weight * p * (log p - mean of log p))."""
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * columns
    offsets = start + tl.arange(0, columns)
    inside = offsets < classes
    log_total = tl.load(log_totals + row)
    number = log_total.dtype
    values = tl.load(logits + row * row_stride + offsets, mask=inside, other=float("-inf")).to(number)
    log_probs = tl.maximum(values - log_total, -1e30)
    probs = tl.exp(log_probs)
    strength = alpha * tl.load(weights + row * weight_stride).to(number)
    bonus = probs * (log_probs - tl.load(means + row))
    hit = tl.where(offsets == tl.load(labels + row), 1.0, 0.0)
    result = tl.load(outer + row * outer_stride).to(number) * (probs - hit + strength * bonus)
    tl.store(gradient + row * gradient_stride + offsets, result.to(gradient.dtype.element_ty), mask=inside)


class TritonEntropyRegularized(torch.autograd.Function):
    """The losses [n] of logits [n, c] on a GPU, float32 for logits of 16 bits; alpha and weights as in the caller."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, alpha: float, weights: Tensor) -> Tensor:
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        count, classes = logits.shape
        losses, log_totals, means = (
            torch.empty(count, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
            for _ in range(3)
        )
        labels, weights = labels.contiguous(), weights.expand(count)
        columns = min(triton.next_power_of_2(classes), _MOST_COLUMNS)
        with torch.cuda.device_of(logits):
            _forward_kernel[(count,)](
                logits, labels, weights, losses, log_totals, means,
                logits.stride(0), weights.stride(0), classes, alpha, **_launch(columns),
            )  # fmt: skip
        ctx.save_for_backward(logits, labels, weights, log_totals, means)
        ctx.alpha, ctx.columns = alpha, columns
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        refuse_second_derivative()
        logits, labels, weights, log_totals, means = ctx.saved_tensors
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        count, classes = logits.shape
        with torch.cuda.device_of(logits):
            _backward_kernel[(count, triton.cdiv(classes, ctx.columns))](
                grad_outputs[0], logits, labels, weights, log_totals, means, gradient,
                grad_outputs[0].stride(0), logits.stride(0), weights.stride(0), gradient.stride(0), classes, ctx.alpha,
                **_launch(ctx.columns),
            )  # fmt: skip
        return gradient, None, None, None


def _launch(columns: int) -> dict[str, Any]:
    """How a kernel is launched: Triton's own names."""
    return {"columns": columns, "num_warps": min(8, max(1, columns // 256))}
