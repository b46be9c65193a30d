"""Label smoothing: keeps every prediction from growing too sure, by the same amount."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, at_labels, check_number


class LabelSmoothing(Loss):
    """Cross-entropy against (1 - smoothing) * target + smoothing / c.

    Args:
        smoothing: Share given to the uniform distribution, in [0, 1]; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Szegedy et al. 2016, arXiv 1512.00567, section 7, with 0.1; the default is the 0.05 of studies of calibration,
        such as Mukhoti et al. 2020, arXiv 2002.09437.
    """

    options = ("smoothing",)

    def __init__(self, smoothing: float = 0.05, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.smoothing = check_number("smoothing", smoothing, 0, 1, hint="Take 0.05, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return self.reduce(smoothed_cross_entropies(logits, labels, self.smoothing))


def smoothed_cross_entropies(
    logits: Logits, labels: Labels, smoothing: float | Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Cross-entropy of every sample against (1 - smoothing) * target + smoothing / c."""
    log_probs = torch.log_softmax(logits, dim=1)
    return (smoothing - 1) * at_labels(log_probs, labels) - smoothing * log_probs.mean(dim=1)
