"""RegMixup: mixtures as a regularizer beside the samples, not in their place."""

import torch

from diffident.errors import ShapeError
from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, cross_entropies
from diffident.losses.mixing import Mixing


class RegMixup(Loss):
    """(CE of samples + eta * CE of mixtures) / (1 + eta): robust features without `Mixup`'s lower confidence.

    The model sees twice as many rows. `Mixing` makes them; called with classes and no weights this is cross-entropy.

    Args:
        alpha: Of Beta(alpha, alpha), at least 0; large, so that mixtures are far from the samples.
        eta: What a mixture counts beside a sample, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Pinto et al. 2022, arXiv 2206.14502, with alpha 20 on CIFAR-10 (10 on CIFAR-100) and eta 1. The paper adds both
        parts; their code (FrancescoPinto/RegMixup) takes the mean over all rows, which is ours at eta 1.
    """

    options = ("alpha", "eta")

    def __init__(self, alpha: float = 20.0, eta: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 20.")
        self.eta = check_number("eta", eta, 0, hint="Take 1, or 0 for cross-entropy.")

    def draw_mixing(self, count: int, generator: torch.Generator) -> Mixing:
        """Which samples of a batch of `count` to mix."""
        return Mixing.draw(count, self.alpha, generator, self.eta)

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights, from `Mixing.loss`, are what each row counts; None counts all alike."""
        losses = cross_entropies(logits, labels)
        if weights is not None:
            if weights.shape != losses.shape:
                raise ShapeError(
                    f"`weights` must have shape {list(losses.shape)}, one per row; got {list(weights.shape)}."
                )
            losses = losses * (weights / weights.mean())
        return self.reduce(losses)
