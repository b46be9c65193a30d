"""Training losses: one file a method, all called as `loss(logits, labels, weights=None)`."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from diffident.errors import InputError, did_you_mean
from diffident.losses.cross_entropy import CrossEntropy
from diffident.losses.difficulty_aware import DifficultyAwareLoss
from diffident.losses.entropy import EntropyBonus
from diffident.losses.label_smoothing import LabelSmoothing

__all__ = ["LOSSES", "CrossEntropy", "DifficultyAwareLoss", "EntropyBonus", "LabelSmoothing", "LossKind", "make_loss"]


@dataclass(frozen=True)
class LossKind:
    """What can be asked of a loss by name.

    Attributes:
        loss_class: The module's class.
        options: Names of the numbers it takes.
        needs_weights: Whether a call must give the weights of the samples.
        summary: One line for lists of losses.
    """

    loss_class: type[nn.Module]
    options: tuple[str, ...]
    needs_weights: bool
    summary: str


LOSSES: dict[str, LossKind] = {
    "cross-entropy": LossKind(CrossEntropy, (), False, "negative log-likelihood"),
    "label-smoothing": LossKind(LabelSmoothing, ("smoothing",), False, "cross-entropy against smoothed labels"),
    "entropy": LossKind(EntropyBonus, ("alpha",), False, "cross-entropy minus a constant entropy bonus"),
    "difficulty-aware": LossKind(DifficultyAwareLoss, ("alpha",), True, "entropy bonus that grows with difficulty"),
}


def make_loss(name: str, *, reduction: str = "mean", **options: Any) -> nn.Module:
    """The loss of this name.

    Args:
        name: A key of `LOSSES`.
        reduction: `mean` over the batch, or `none`.
        options: Numbers that the loss takes; the others keep their defaults.

    Raises:
        InputError: a wrong name, a wrong option or a value that the loss refuses.

    Example:
        >>> make_loss("entropy", alpha=0.1)
        EntropyBonus(alpha=0.1, reduction='mean')
    """
    if name not in LOSSES:
        raise InputError(f"`loss` must be a known name; got {name!r}. {did_you_mean(name, LOSSES)}")
    kind = LOSSES[name]
    for option, value in options.items():
        if option not in kind.options:
            mend = did_you_mean(option, kind.options) if kind.options else "It takes no options."
            raise InputError(f"`{option}` must be an option of the loss {name!r}; got {option}={value!r}. {mend}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"`{option}` must be a number; got {value!r} for the loss {name!r}. Write {option}=0.1.")
    return kind.loss_class(reduction=reduction, **options)
