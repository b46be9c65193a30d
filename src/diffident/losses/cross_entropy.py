"""Cross-entropy, and the checks of a batch that every loss shares."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diffident.errors import InputError, ShapeError, did_you_mean

REDUCTIONS = ("mean", "none")


def check_reduction(reduction: str) -> str:
    """The reduction itself, if it is `mean` (over the batch) or `none`.

    Raises:
        InputError: it is another word.
    """
    if reduction not in REDUCTIONS:
        raise InputError(f"`reduction` must be a known name; got {reduction!r}. {did_you_mean(reduction, REDUCTIONS)}")
    return reduction


def check_batch(logits: Float[Tensor, "..."], labels: Int[Tensor, "..."]) -> Float[Tensor, "n c"]:
    """Logits ready for a loss: halves become float32, other types stay.

    Raises:
        ShapeError: logits are not [n, c] or labels are not [n].
        InputError: the batch is empty, or a label is outside [0, c).
    """
    if logits.ndim != 2:
        raise ShapeError(f"`logits` must have shape [n, c]; got {list(logits.shape)}. Flatten other dimensions into n.")
    if labels.shape != logits.shape[:1]:
        raise ShapeError(f"`labels` must have shape [{len(logits)}], one per row of logits; got {list(labels.shape)}.")
    if not logits.numel():
        raise InputError(f"`logits` must not be empty; got shape {list(logits.shape)}. Drop empty batches.")
    outside = (labels < 0) | (labels >= logits.shape[1])
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"`labels` must be in [0, {logits.shape[1]}); got {int(labels[row])} at row {row}. "
            f"Re-index the labels or give the model more outputs."
        )
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def reduce_losses(losses: Float[Tensor, " n"], reduction: str) -> Float[Tensor, "..."]:
    """The mean over the batch, or the losses themselves for `none`."""
    return losses.mean() if reduction == "mean" else losses


class CrossEntropy(nn.Module):
    """Negative log-likelihood of the label under softmax(logits), in nats.

    Args:
        reduction: `mean` over the batch, or `none`.

    Example:
        >>> CrossEntropy()(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
        tensor(0.6931)
    """

    def __init__(self, *, reduction: str = "mean"):
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        logits: Float[Tensor, "..."],
        labels: Int[Tensor, "..."],
        weights: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The loss.

        Args:
            logits: Unnormalised log-probabilities [n, c].
            labels: Classes [n] in [0, c).
            weights: Ignored; here so that every loss is called alike.

        Returns:
            A scalar, or [n] for `none`; float32 where the logits are float16 or bfloat16.

        Raises:
            InputError: wrong shapes, an empty batch or a label out of range.
        """
        logits = check_batch(logits, labels)
        return functional.cross_entropy(logits, labels.long(), reduction=self.reduction)

    def extra_repr(self) -> str:
        """The options."""
        return f"reduction={self.reduction!r}"
