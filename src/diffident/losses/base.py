"""What every loss shares: the checks of a batch, soft targets, the reduction, the options."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from diffident.errors import InputError, ShapeError
from diffident.options import check_choice
from diffident.records import tensor_of

REDUCTIONS = ("mean", "none")
HALVES = (torch.float16, torch.bfloat16)

Logits = Float[Tensor, "n c"]
Labels = Shaped[Tensor, "n ..."]  # classes [n], or probabilities [n, c]
Weights = Float[Tensor, "..."] | None
Reduced = Float[Tensor, "..."]  # a scalar, or [n]


class Loss(nn.Module, ABC):
    """A loss of a batch, called as `loss(logits, labels, weights=None)`; abstract.

    Attributes:
        soft_targets: Whether labels may be probabilities [n, c] instead of classes [n].
        takes_halves: Whether `compute` gets float16 and bfloat16 as they are; else they become float32.
        options: Names of the numbers that the constructor takes; each is an attribute.

    Args:
        reduction: `mean` over the batch, or `none`.
    """

    soft_targets: ClassVar[bool] = True
    takes_halves: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction

    def forward(
        self,
        logits: Float[Tensor, "..."],
        labels: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."],
        weights: Float[Tensor, "..."] | Float[np.ndarray, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The loss; labels and weights may be arrays, but where it is compiled.

        Args:
            logits: Unnormalised log-probabilities [n, c].
            labels: Classes [n] in [0, c), or where `soft_targets` probabilities [n, c] whose rows sum to 1.
            weights: One number a sample [n], for the losses that want one; the others ignore it.

        Returns:
            A scalar, or [n] for `none`; float32 where the logits are float16 or bfloat16.

        Raises:
            InputError: wrong shapes, an empty batch or a label out of range. On a GPU ranges are not looked at, as that
                would wait for it: a label out of range makes the loss NaN, or fails as in `F.cross_entropy`.
        """
        labels = check_batch(logits, tensor_of(labels, "labels"), soft_targets=self.soft_targets)
        weights = None if weights is None else tensor_of(weights, "weights")
        if not self.takes_halves:
            logits = logits.to(type_of_losses(logits))
        if torch.compiler.is_compiling():
            return self.compute(logits, labels, weights)
        try:
            return self.compute(logits, labels, weights)
        except (IndexError, RuntimeError):
            # To look a label up fails where it is out of range: so ranges are looked at only then, which is free.
            _check_range(labels, logits.shape[1])
            raise

    @abstractmethod
    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """The reduced loss of a batch that `check_batch` has passed."""

    def reduce(self, losses: Float[Tensor, " n"]) -> Reduced:
        """The mean over the batch, or the losses themselves for `none`."""
        return losses.mean() if self.reduction == "mean" else losses

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join([*(f"{name}={getattr(self, name)}" for name in self.options), f"reduction={self.reduction!r}"])


def check_batch(logits: Float[Tensor, "..."], labels: Shaped[Tensor, "..."], *, soft_targets: bool) -> Labels:
    """The labels, as int64 classes or as probabilities in the type that the losses of these logits have.

    Raises:
        ShapeError: logits are not [n, c] or labels do not fit them.
        InputError: the batch is empty, or a label is out of range.
    """
    if logits.ndim != 2:
        raise ShapeError(f"`logits` must have shape [n, c]; got {list(logits.shape)}. Flatten other dimensions into n.")
    soft = labels.is_floating_point()
    if soft and not soft_targets:
        raise InputError(
            f"`labels` must be classes [{len(logits)}] for this loss; got {labels.dtype} {list(labels.shape)}. "
            f"Probabilities suit losses such as cross-entropy."
        )
    if labels.shape != (logits.shape if soft else logits.shape[:1]):
        wanted = f"{list(logits.shape)}, those of the logits" if soft else f"[{len(logits)}], one per row of logits"
        raise ShapeError(f"`labels` must have shape {wanted}; got {list(labels.shape)}.")
    if not logits.numel():
        raise InputError(f"`logits` must not be empty; got shape {list(logits.shape)}. Drop empty batches.")
    if soft:
        _check_soft(labels)
        return labels.to(type_of_losses(logits))
    return labels.long()


def _check_range(labels: Labels, num_classes: int) -> None:
    if labels.device.type == "cpu" and not labels.is_floating_point():
        outside = ((labels < 0) | (labels >= num_classes)).nonzero()
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"`labels` must be in [0, {num_classes}); got {int(labels[row])} at row {row}. "
                f"Re-index the labels or give the model more outputs."
            ) from None


def _check_soft(labels: Float[Tensor, "n c"]) -> None:
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = ~((labels.amin(dim=1) >= 0) & ((labels.double().sum(dim=1) - 1).abs() < 1e-2))  # also true for NaN
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"`labels` must be probabilities that sum to 1; got {float(labels[row].sum()):g} as the sum and "
            f"{float(labels[row].min()):g} as the least at row {row}. Divide each row by its sum."
        )


def check_weights(
    weights: Weights, logits: Logits, how: str, most: int = 1
) -> tuple[Float[Tensor, " n"], float | None]:
    """The weights on the device and in the type of the logits, and the largest; None on a GPU and while compiling.

    On a GPU the range is not looked at, as that would wait for it: weights out of range become NaN, and so the loss.

    Args:
        weights: One per sample, in [0, most].
        logits: Of the batch.
        how: A sentence that says where the weights come from.
        most: The largest weight there is.

    Raises:
        InputError: no weights, or one that is not in [0, most].
        ShapeError: not one per sample.
    """
    weights = one_per_sample(weights, logits, how)
    if not weights.is_cpu or torch.compiler.is_compiling():
        weights = torch.where((weights >= 0) & (weights <= most), weights, torch.nan)
        return weights.to(logits.device, type_of_losses(logits)), None
    low, high = (end.item() for end in torch.aminmax(weights))  # one call: for small batches calls are what counts
    if not (low >= 0 and high <= most):  # also true for NaN
        row = int((~((weights >= 0) & (weights <= most))).nonzero()[0])
        raise InputError(f"`weights` must be in [0, {most}]; got {float(weights[row]):g} at row {row}. {how}")
    return weights.to(logits.device, type_of_losses(logits)), high


def one_per_sample(weights: Weights, logits: Logits, how: str) -> Float[Tensor, " n"]:
    """The weights, if there is one for every row of the logits; errors as `check_weights`."""
    count = len(logits)
    if weights is None:
        raise InputError(f"`weights` must have shape [{count}]; got None. {how}")
    if weights.shape != (count,):
        raise ShapeError(f"`weights` must have shape [{count}], one per sample; got {list(weights.shape)}.")
    return weights


def check_number(
    name: str, value: float | int, low: float | int, high: float | int = math.inf, *, open_low: bool = False, hint: str
) -> float:
    """The option as a float, if it is finite and in [low, high], or (low, high] where `open_low`.

    Raises:
        InputError: it is not; the message ends with the hint.
    """
    if not (math.isfinite(value) and low <= value <= high and not (open_low and value == low)):
        bound = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"{'above' if open_low else 'at least'} {low:g}"
        raise InputError(f"`{name}` must be {bound}; got {value}. {hint}")
    return float(value)


def type_of_losses(logits: Float[Tensor, "..."]) -> torch.dtype:
    """The logits' type, or float32 where that has 16 bits."""
    return torch.float32 if logits.dtype in HALVES else logits.dtype


def at_labels(values: Float[Tensor, "n c"], labels: Labels) -> Float[Tensor, " n"]:
    """The value of each label, or the mean value under each soft target."""
    if labels.is_floating_point():
        # A class that the target excludes may have the value -inf, and 0 times that is NaN.
        return torch.where(labels > 0, labels * values, 0).sum(dim=1)
    return values.gather(1, labels[:, None]).squeeze(1)


def label_terms(logits: Logits, labels: Labels, term: Callable[[Tensor], Tensor]) -> Float[Tensor, " n"]:
    """`term` of the label's log-probability, or its mean under each soft target."""
    return terms_at_labels(torch.log_softmax(logits, dim=1), labels, term)


def terms_at_labels(
    log_probs: Float[Tensor, "n c"], labels: Labels, term: Callable[[Tensor], Tensor]
) -> Float[Tensor, " n"]:
    """`label_terms` where the log-probabilities are known."""
    if labels.is_floating_point():
        return at_labels(term(log_probs), labels)
    return term(at_labels(log_probs, labels))


def cross_entropies(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Cross-entropy of every sample, of classes or soft targets."""
    return label_terms(logits, labels, torch.neg)


def powers(base: Float[Tensor, "..."], exponent: float | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Powers of numbers from 0 up, whose gradient at 0 is not infinite for exponents below 1."""
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** exponent


def confidences(logits: Logits, labels: Int[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Largest probability of every sample, and 1 where it is the label's, else 0."""
    confidence, predictions = torch.softmax(logits, dim=1).max(dim=1)
    return confidence, (predictions == labels).to(confidence.dtype)


def norm_of(square: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The square root, with gradient 0 instead of infinity at 0."""
    return square.clamp(min=torch.finfo(square.dtype).eps ** 2).sqrt()
