"""Focal loss: samples that are predicted well already count less."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, label_terms, powers


class FocalLoss(Loss):
    """-(1 - p_y)^gamma log p_y, which holds confidence back, as it bounds cross-entropy minus gamma times the entropy.

    Soft targets take the mean of it over the target's classes.

    Args:
        gamma: At least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Lin et al. 2017, arXiv 1708.02002, with gamma 2; Mukhoti et al. 2020, arXiv 2002.09437, for calibration. Their
        published code sums over the batch by default; here it is the mean, as for every loss.
    """

    options = ("gamma",)

    def __init__(self, gamma: float = 2.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.gamma = check_number("gamma", gamma, 0, hint="Take 2, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return self.reduce(label_terms(logits, labels, lambda log_probs: focal_terms(log_probs, self.gamma)))


def focal_terms(log_probs: Float[Tensor, "..."], gamma: float | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """-(1 - p)^gamma log p."""
    return -powers(-torch.expm1(log_probs), gamma) * log_probs
