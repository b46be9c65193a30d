"""Difficulty-aware temperature: hard samples are fitted with smaller logits."""

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, cross_entropies
from diffident.losses.weighting import discounted, split_weights


class DifficultyTemperature(Loss):
    """T * CE(logits / T) with T = 1 - alpha * s in training alone: a relative of the difficulty-aware loss.

    At T below 1 a sample is fitted before its logits are large, so that the model, which predicts at temperature 1, is
    less sure of hard samples. The factor T makes the gradient softmax(logits / T) - target: what changes is where a
    sample stops to pull, not how strongly.

    Args:
        alpha: In [0, 1), how far T goes down for the hardest sample (weight 1); 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Ours.
    """

    options = ("alpha",)

    def __init__(self, alpha: float = 0.3, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, 0.99, hint="Take 0.3, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' s: 1 is the lowest temperature. Above 1 it counts less."""
        hardness, counts = split_weights(weights, logits)
        temperatures = 1 - self.alpha * hardness
        losses = temperatures * cross_entropies(logits / temperatures[:, None], labels)
        return self.reduce(discounted(losses, counts))
