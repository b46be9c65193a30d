"""Cross-entropy with an entropy bonus that grows with the sample's difficulty: the method of this library."""

from typing import Any

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, check_weights
from diffident.losses.entropy_regularized import entropy_regularized

WEIGHTS_FROM_DIFFICULTY = "Make them with `difficulty_weights(difficulty)` and pass the batch's rows."

# Values of alpha, and of `difficulty_weights`, by name.
PRESETS: dict[str, dict[str, Any]] = {"paper": {"alpha": 0.3, "temperature": 0.7, "normalizer": "none"}}


class DifficultyAwareLoss(Loss):
    """CE(logits, y) - alpha * s * H(softmax(logits)): hard samples (weight s near 1) may stay unsure.

    The weights come from `difficulty_weights(difficulty, normalizer, temperature)`. It can be differentiated once, for
    the logits alone.

    Args:
        alpha: Strength of the bonus, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Example:
        >>> criterion = DifficultyAwareLoss(alpha=0.2)
        >>> criterion(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([1.0, 0.0])).shape
        torch.Size([])

    Reference:
        Cui et al. 2023, arXiv 2304.10127. Its form as we know it is `PRESETS["paper"]`: alpha 0.3, and weights of the
        difficulty as it is, at temperature 0.7; our default weights are those of its rank, see `docs/method.md`.
    """

    options = ("alpha",)
    takes_halves = True

    def __init__(self, alpha: float = 0.2, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1 to 0.3, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' s: 1 gets the whole bonus."""
        weights = check_weights(weights, logits, WEIGHTS_FROM_DIFFICULTY)
        return entropy_regularized(logits, labels, self.alpha, weights, self.reduction)
