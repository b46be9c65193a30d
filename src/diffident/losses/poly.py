"""PolyLoss: cross-entropy with another first coefficient of its series."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, label_terms


class PolyLoss(Loss):
    """Poly-1, CE + epsilon * (1 - p_y): fits one number to how much being right counts beside being sure.

    Soft targets take the mean of it over the target's classes.

    Args:
        epsilon: At least -1; 0 is cross-entropy, above 0 pulls the label's probability up more.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Leng et al. 2022, arXiv 2204.12511; epsilon is chosen for each task there, 1 doubles the first term.
    """

    options = ("epsilon",)

    def __init__(self, epsilon: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.epsilon = check_number("epsilon", epsilon, -1, hint="Take 1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return self.reduce(
            label_terms(logits, labels, lambda log_probs: -log_probs - self.epsilon * torch.expm1(log_probs))
        )
