"""Difficulty-aware label smoothing: the labels of hard samples are trusted less."""

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number
from diffident.losses.label_smoothing import smoothed_cross_entropies
from diffident.losses.weighting import discounted, split_weights


class DifficultySmoothing(Loss):
    """Cross-entropy against (1 - e) * target + e / c with e = smoothing * s: a relative of the difficulty-aware loss.

    Where the entropy bonus lets a hard sample stay as unsure as it likes, this says how sure it should be.

    Args:
        smoothing: Of the hardest sample (weight 1), in [0, 1]; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Ours. With weight 1 throughout it is `LabelSmoothing`; the default is twice that one's, as weights are about
        half on average.
    """

    options = ("smoothing",)

    def __init__(self, smoothing: float = 0.1, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.smoothing = check_number("smoothing", smoothing, 0, 1, hint="Take 0.1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' s: 1 gets the whole smoothing. Above 1 a sample counts less."""
        hardness, counts = split_weights(weights, logits)
        losses = smoothed_cross_entropies(logits, labels, self.smoothing * hardness)
        return self.reduce(discounted(losses, counts))
