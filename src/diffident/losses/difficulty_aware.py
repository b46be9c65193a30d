"""Cross-entropy with an entropy bonus that grows with the sample's difficulty."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffident.errors import InputError, ShapeError
from diffident.losses.cross_entropy import check_batch, check_reduction, reduce_losses
from diffident.losses.entropy import check_alpha, entropy_regularized_losses


class DifficultyAwareLoss(nn.Module):
    """CE(logits, y) - alpha * s * H(softmax(logits)): hard samples (weight s near 1) may stay unsure.

    Args:
        alpha: Strength of the bonus, >= 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Example:
        >>> criterion = DifficultyAwareLoss(alpha=0.2)
        >>> criterion(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([1.0, 0.0])).shape
        torch.Size([])

    Reference:
        Cui et al. 2023, arXiv 2304.10127.
    """

    def __init__(self, alpha: float = 0.2, *, reduction: str = "mean"):
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        logits: Float[Tensor, "..."],
        labels: Int[Tensor, "..."],
        weights: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The loss; it can be differentiated once, for the logits alone.

        Args:
            logits: Unnormalised log-probabilities [n, c].
            labels: Classes [n] in [0, c).
            weights: Weight s of every sample [n], in [0, 1], from `difficulty_weights`; 1 gets the whole bonus.

        Returns:
            A scalar, or [n] for `none`; float32 where the logits are float16 or bfloat16.

        Raises:
            InputError: no weights, or one that is not in [0, 1]; wrong shapes, an empty batch, a label out of range.
        """
        logits = check_batch(logits, labels)
        weights = _check_weights(weights, len(logits))
        strength = self.alpha * weights.to(device=logits.device, dtype=logits.dtype)
        return reduce_losses(entropy_regularized_losses(logits, labels, strength), self.reduction)

    def extra_repr(self) -> str:
        """The options."""
        return f"alpha={self.alpha}, reduction={self.reduction!r}"


def _check_weights(weights: Float[Tensor, "..."] | None, num_samples: int) -> Float[Tensor, " n"]:
    if weights is None:
        raise InputError(
            f"`weights` must have shape [{num_samples}]; got None. "
            f"Make them with `difficulty_weights(difficulty)` and pass the batch's rows."
        )
    if weights.shape != (num_samples,):
        raise ShapeError(f"`weights` must have shape [{num_samples}], one per sample; got {list(weights.shape)}.")
    wrong = ~((weights >= 0) & (weights <= 1))  # also true for NaN
    if bool(torch.any(wrong)):
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"`weights` must be in [0, 1]; got {float(weights[row]):g} at row {row}. "
            f"Make them with `difficulty_weights(difficulty)`."
        )
    return weights
