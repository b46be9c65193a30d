"""Margin-based label smoothing: logits may differ, but not by more than a margin."""

from torch.nn import functional

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, cross_entropies


class MarginLabelSmoothing(Loss):
    """CE + alpha * mean_k max(0, max_j z_j - z_k - margin): bounds confidence without pulling to the uniform.

    Args:
        margin: Difference of logits that costs nothing, at least 0.
        alpha: Strength of the penalty, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Liu et al. 2022, arXiv 2111.15430, with margin 10 and alpha 0.1. As in their code the penalty is the mean
        over classes, not the sum.
    """

    options = ("margin", "alpha")

    def __init__(self, margin: float = 10.0, alpha: float = 0.1, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.margin = check_number("margin", margin, 0, hint="Take 10.")
        self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        excess = functional.relu(logits.amax(dim=1, keepdim=True) - logits - self.margin).mean(dim=1)
        return self.reduce(cross_entropies(logits, labels) + self.alpha * excess)
