"""What a sample's weight does to its loss: how unsure it may stay, and how much it counts."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.losses.base import Logits, Weights, check_weights

WEIGHTS_FROM_DIFFICULTY = "Make them with `difficulty_weights(difficulty)` and pass the batch's rows."


def split_weights(weights: Weights, logits: Logits) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"] | None]:
    """S of every sample, in [0, 1], and what it counts, in [0, 1]; None where all are known to count 1.

    Args:
        weights: In [0, 2]: s, or 1 for the hardest and the part of the sample that is left out.
        logits: Of the batch.

    Raises:
        InputError, ShapeError: as `check_weights`.
    """
    checked, largest = check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY, most=2)
    if largest is not None and largest <= 1:
        return checked, None
    return checked.clamp(max=1), (2 - checked).clamp(max=1)


def discounted(losses: Float[Tensor, " n"], counts: Float[Tensor, " n"] | None) -> Float[Tensor, " n"]:
    """The losses times what their samples count; 0 where that is nothing, also of a label that is masked out."""
    return losses if counts is None else torch.where(counts == 0, 0, counts * losses)


def rivals(num_classes: int, others: float) -> float:
    """Equally likely classes beside the label that a bonus on `others` of their entropy amounts to: (c - 1) ** others.

    With 0 it is 1, wrong against right; with 1 all c - 1 classes. One class has no rivals.
    """
    return (num_classes - 1) ** others if num_classes > 1 else 0.0


def strengths_of_doubt(doubt: Float[Tensor, " n"], num_classes: int, others: float) -> Float[Tensor, " n"]:
    """Strengths of the bonus at which the loss of one sample is least where p_label = 1 - e, e = doubt * m / (1 + m).

    With m = (c - 1) ** others rivals, and e spread evenly over the c - 1 other classes, the bonus is
    a (h(e) + e log m), h the entropy of right against wrong; the loss is least for
    a = 1 / ((1 - e) log((1 - e) m / e)).

    Args:
        doubt: In [0, 1).
        num_classes: c; with one class there is no doubt.
        others: How much the entropy among the other classes counts, in [0, 1].
    """
    if num_classes == 1:
        return torch.zeros_like(doubt)
    number = rivals(num_classes, others)
    left = doubt * (number / (1 + number))
    # Few calls, as small batches pay by the call. At doubt 0 the logarithm is infinite, and the strength 0.
    logarithm = torch.rsub(torch.logit(left), math.log(number))
    return logarithm.mul_(1 - left).reciprocal_()
