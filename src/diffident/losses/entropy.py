"""Constant entropy bonus, or confidence penalty: every sample may stay unsure by the same amount."""

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number
from diffident.losses.entropy_regularized import entropy_regularized


class EntropyBonus(Loss):
    """Cross-entropy minus alpha times the entropy of softmax(logits): the control of the difficulty-aware loss.

    It can be differentiated once.

    Args:
        alpha: Strength of the bonus, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Pereyra et al. 2017, arXiv 1701.06548 (the confidence penalty). Alpha 0.1 is that of the code of Liu et al. 2022
        (MbLS), which takes the mean of -p log p over classes where this, as the paper, takes the sum.
    """

    options = ("alpha",)
    takes_halves = True

    def __init__(self, alpha: float = 0.1, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return entropy_regularized(logits, labels, None, self.reduction, alpha=self.alpha)
