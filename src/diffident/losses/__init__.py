"""Training losses: one file a method, all called as `loss(logits, labels, weights=None)`."""

from dataclasses import dataclass, field
from typing import Any

from diffident.errors import InputError
from diffident.losses.base import Loss
from diffident.losses.correctness_ranking import CorrectnessHistory, CorrectnessRankingLoss
from diffident.losses.cross_entropy import CrossEntropy
from diffident.losses.difficulty_aware import PRESETS, DifficultyAwareLoss
from diffident.losses.difficulty_smoothing import DifficultySmoothing
from diffident.losses.difficulty_temperature import DifficultyTemperature
from diffident.losses.dual_focal import DualFocalLoss
from diffident.losses.entropy import EntropyBonus
from diffident.losses.flsd import SampleDependentFocalLoss
from diffident.losses.focal import FocalLoss
from diffident.losses.inverse_focal import InverseFocalLoss
from diffident.losses.l1 import L1Penalty
from diffident.losses.label_smoothing import LabelSmoothing
from diffident.losses.logit_norm import LogitNorm
from diffident.losses.mbls import MarginLabelSmoothing
from diffident.losses.mixing import Mixing, draw_mixing, mixed_loss
from diffident.losses.mixup import Mixup
from diffident.losses.mmce import MMCE
from diffident.losses.poly import PolyLoss
from diffident.losses.regmixup import RegMixup
from diffident.losses.soft_ece import SoftBinnedECE
from diffident.options import check_choice, check_option, plain

__all__ = [
    "LOSSES",
    "MMCE",
    "CorrectnessHistory",
    "CorrectnessRankingLoss",
    "CrossEntropy",
    "DifficultyAwareLoss",
    "DifficultySmoothing",
    "DifficultyTemperature",
    "DualFocalLoss",
    "EntropyBonus",
    "FocalLoss",
    "InverseFocalLoss",
    "L1Penalty",
    "LabelSmoothing",
    "LogitNorm",
    "Loss",
    "LossKind",
    "MarginLabelSmoothing",
    "Mixing",
    "Mixup",
    "PolyLoss",
    "RegMixup",
    "SampleDependentFocalLoss",
    "SoftBinnedECE",
    "draw_mixing",
    "make_loss",
    "mixed_loss",
]


@dataclass(frozen=True)
class LossKind:
    """What can be asked of a loss by name.

    Attributes:
        loss_class: The module's class.
        summary: One line for lists of losses.
        needs_weights: Whether a call must give the weights of the samples' difficulty.
        needs_history: Whether a call must give the shares of a `CorrectnessHistory` as weights.
        mixes: Whether training mixes its inputs, so that these must be pixels or features.
        couples: Whether the samples of a batch act on each other, so that parts of a batch are not the batch.
        presets: Values of its options, and of `difficulty_weights`, by name.
        learnt: The option that training learns from validation data where it is not given, or None.
    """

    loss_class: type[Loss]
    summary: str
    needs_weights: bool = False
    needs_history: bool = False
    mixes: bool = False
    couples: bool = False
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    learnt: str | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the numbers it takes."""
        return self.loss_class.options

    def resolved(self, **given: Any) -> dict[str, float | None]:
        """What all its options are where these are given; None where another one rules it out."""
        made = self.loss_class(**given)
        return {option: getattr(made, option) for option in self.options}

    @property
    def soft_targets(self) -> bool:
        """Whether labels may be probabilities [n, c]."""
        return self.loss_class.soft_targets


LOSSES: dict[str, LossKind] = {
    "cross-entropy": LossKind(CrossEntropy, "negative log-likelihood"),
    "label-smoothing": LossKind(LabelSmoothing, "cross-entropy against smoothed labels"),
    "entropy": LossKind(EntropyBonus, "cross-entropy minus a constant entropy bonus (confidence penalty)"),
    "difficulty-aware": LossKind(
        DifficultyAwareLoss,
        "entropy bonus that grows with difficulty",
        needs_weights=True,
        presets=PRESETS,
        learnt="doubt",
    ),
    "difficulty-smoothing": LossKind(
        DifficultySmoothing, "label smoothing that grows with difficulty", needs_weights=True
    ),
    "difficulty-temperature": LossKind(
        DifficultyTemperature, "temperature of training that falls with difficulty", needs_weights=True
    ),
    "focal": LossKind(FocalLoss, "less weight on samples predicted well"),
    "flsd": LossKind(SampleDependentFocalLoss, "focal with gamma by the label's probability (FLSD-53)"),
    "dual-focal": LossKind(DualFocalLoss, "focal that also looks at the label's strongest rival"),
    "inverse-focal": LossKind(InverseFocalLoss, "more weight on samples predicted well"),
    "l1": LossKind(L1Penalty, "penalty on the distance of the probabilities from uniform"),
    "poly": LossKind(PolyLoss, "cross-entropy plus epsilon times (1 - probability of the label)"),
    "mbls": LossKind(MarginLabelSmoothing, "penalty on logits that differ by more than a margin"),
    "logit-norm": LossKind(LogitNorm, "cross-entropy of logits of constant norm"),
    "crl": LossKind(CorrectnessRankingLoss, "confidence ranked as past correctness", needs_history=True, couples=True),
    "mmce": LossKind(MMCE, "kernel calibration error of the batch as penalty", couples=True),
    "soft-ece": LossKind(SoftBinnedECE, "soft-binned calibration error of the batch as penalty", couples=True),
    "mixup": LossKind(Mixup, "cross-entropy on mixtures of samples", mixes=True),
    "regmixup": LossKind(RegMixup, "cross-entropy on samples and on mixtures", mixes=True),
}


def make_loss(name: str, *, reduction: str = "mean", **options: Any) -> Loss:
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
    check_choice("loss", name, LOSSES)
    kind = LOSSES[name]
    options = {name: plain(value) for name, value in options.items()}
    for option, value in options.items():
        check_option(option, value, kind.options, f"loss {name!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"`{option}` must be a number; got {value!r} for the loss {name!r}. Write {option}=0.1.")
    return kind.loss_class(reduction=reduction, **options)
