"""Cross-entropy with an entropy bonus that grows with the sample's difficulty: the method of this library."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.errors import InputError
from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, check_weights
from diffident.losses.entropy_regularized import entropy_regularized

WEIGHTS_FROM_DIFFICULTY = "Make them with `difficulty_weights(difficulty)` and pass the batch's rows."

# Values of alpha, and of `difficulty_weights`, by name.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"alpha": 0.3, "temperature": 0.7, "normalizer": "none", "distrust": False}
}
# Of the hardest sample, where neither alpha nor doubt is given.
DOUBT = 0.25


class DifficultyAwareLoss(Loss):
    """CE(logits, y) - a_i * H(softmax(logits)): hard samples (weight s near 1) may stay unsure.

    By default a_i is the strength at which this loss of one sample is least where softmax(logits) leaves the share
    doubt * s * (c - 1) / c to the other classes: what label smoothing of strength doubt * s asks for. So the default
    means the same for 10 classes and for 1000, where one alpha does not: alpha 0.2 leaves 5 % to nine other classes,
    but 34 % to 999. Masked classes (logits of -inf) are counted too. With `alpha` given, a_i = alpha * s, as in the
    paper.

    The weights come from `difficulty_weights`. A weight above 1 means s = 1 and a label that is not believed: the
    sample counts 2 - weight, so at 2 it is left out. The mean is over the whole batch, samples that are left out too.
    It can be differentiated once, for the logits alone.

    Args:
        alpha: Strength of the bonus of the hardest sample, at least 0; 0 is cross-entropy. None takes it from `doubt`.
        doubt: How unsure the hardest sample should be, from 0 (cross-entropy) to 1 (no class above another); 0.25 where
            alpha is not given.
        reduction: `mean` over the batch, or `none`.

    Raises:
        InputError: alpha and doubt are both given, or out of range.

    Example:
        >>> criterion = DifficultyAwareLoss()
        >>> criterion(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([1.0, 0.0])).shape
        torch.Size([])

    Reference:
        Cui et al. 2023, arXiv 2304.10127. Its form as we know it is `PRESETS["paper"]`: alpha 0.3, and weights of the
        difficulty as it is, at temperature 0.7; our default weights are those of its rank, see `docs/method.md`.
    """

    options = ("alpha", "doubt")
    takes_halves = True

    def __init__(self, alpha: float | None = None, doubt: float | None = None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        if alpha is not None and doubt is not None:
            raise InputError(f"`alpha` and `doubt` must not both be given; got {alpha} and {doubt}. Leave one out.")
        self.alpha, self.doubt = alpha, doubt
        if alpha is not None:
            self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1 to 0.3, or 0 for cross-entropy.")
        else:
            hint = "Take 0.25, or 0 for cross-entropy."
            self.doubt = check_number("doubt", DOUBT if doubt is None else doubt, 0, 0.99, hint=hint)

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' s: 1 gets the whole bonus. Above 1 a sample counts less."""
        hardness, counts = split_weights(weights, logits)
        reduction = "none" if counts is not None else self.reduction
        if self.alpha is not None:
            losses = entropy_regularized(logits, labels, self.alpha, hardness, reduction)
        else:
            losses = entropy_regularized(logits, labels, 1.0, self.strengths(hardness, logits.shape[1]), reduction)
        return losses if counts is None else self.reduce(counts * losses)

    def strengths(self, weights: Float[Tensor, " n"], num_classes: int) -> Float[Tensor, " n"]:
        """a_i, the strength of each sample's entropy bonus, of weights in [0, 1]."""
        if self.alpha is not None:
            return self.alpha * weights
        assert self.doubt is not None
        return strengths_of_doubt(self.doubt * weights, num_classes)


def split_weights(weights: Weights, logits: Logits) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"] | None]:
    """S of every sample, in [0, 1], and what it counts, in [0, 1]; None where all count 1 and it is free to see.

    Args:
        weights: In [0, 2]: s, or 1 for the hardest and the part of the sample that is left out.
        logits: Of the batch.

    Raises:
        InputError, ShapeError: as `check_weights`.
    """
    checked = check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY, most=2)
    if checked.is_cpu and not torch.compiler.is_compiling() and checked.max().item() <= 1:
        return checked, None
    return checked.clamp(max=1), (2 - checked).clamp(max=1)


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
    # The least positive number keeps 0 / 0 away: at doubt 0 the logarithm is so large that the bonus is nearly none.
    left = (doubt * ((num_classes - 1) / num_classes)).clamp(min=torch.finfo(doubt.dtype).tiny)
    strengths = 1 / ((1 - left) * torch.log((1 - left) * (num_classes - 1) / left))
    return torch.where(doubt > 0, strengths, doubt)
