"""Cross-entropy against labels mixed with the uniform distribution."""

import math

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from diffident.errors import InputError
from diffident.losses.cross_entropy import check_batch, check_reduction


class LabelSmoothing(nn.Module):
    """Cross-entropy against (1 - smoothing) * onehot(label) + smoothing / c.

    Args:
        smoothing: Share given to the uniform distribution, in [0, 1]; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Szegedy et al. 2016, arXiv 1512.00567, section 7.
    """

    def __init__(self, smoothing: float = 0.05, *, reduction: str = "mean"):
        super().__init__()
        if not (math.isfinite(smoothing) and 0 <= smoothing <= 1):
            raise InputError(f"`smoothing` must be in [0, 1]; got {smoothing}. Take 0.05, or 0 for cross-entropy.")
        self.smoothing = float(smoothing)
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
        return functional.cross_entropy(logits, labels.long(), reduction=self.reduction, label_smoothing=self.smoothing)

    def extra_repr(self) -> str:
        """The options."""
        return f"smoothing={self.smoothing}, reduction={self.reduction!r}"
