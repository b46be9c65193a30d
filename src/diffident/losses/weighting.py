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


def counted(losses: Float[Tensor, " n"], counts: Float[Tensor, " n"] | None) -> Float[Tensor, " n"]:
    """The losses times what their samples count; 0 where that is nothing, also of a label that is masked out."""
    return losses if counts is None else torch.where(counts == 0, 0, counts * losses)


def strengths_of_doubt(doubt: Float[Tensor, " n"], num_classes: int) -> Float[Tensor, " n"]:
    """Strengths of the entropy bonus at which the loss of one sample is least where p_label = 1 - e.

    With e = doubt * (c - 1) / c spread evenly over the c - 1 other classes, the gradient p_k (1 + a (log p_k + H)) of
    such a class is 0 for a = 1 / ((1 - e) log((1 - e) (c - 1) / e)).

    Args:
        doubt: In [0, 1).
        num_classes: c; with one class there is no doubt.
    """
    if num_classes == 1:
        return torch.zeros_like(doubt)
    left = doubt * ((num_classes - 1) / num_classes)
    # Few calls, as small batches pay by the call. At doubt 0 the logarithm is infinite, and the strength 0.
    logarithm = torch.rsub(torch.logit(left), math.log(num_classes - 1))
    return logarithm.mul_(1 - left).reciprocal_()
