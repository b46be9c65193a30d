"""Mixup: the model learns from mixtures of samples and answers with mixtures of labels."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, cross_entropies
from diffident.losses.mixing import Mixing


class Mixup(Loss):
    """Cross-entropy on mixtures share * x_i + (1 - share) * x_j, with share from Beta(alpha, alpha).

    Makes the model go from one answer to another gradually between samples. The loss of the mixture is
    share * CE(y_i) + (1 - share) * CE(y_j), that of its mixed label. `Mixing` makes both, one share a batch; called by
    itself this is cross-entropy. Other losses learn from mixtures with the setting `mixup`.

    Args:
        alpha: Of the Beta distribution, at least 0; 0 mixes nothing: cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Zhang et al. 2018, arXiv 1710.09412; alpha 1 is that of their code (facebookresearch/mixup-cifar10).
    """

    options = ("alpha",)

    def __init__(self, alpha: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 1, or 0 for cross-entropy.")

    def draw_mixing(self, count: int, generator: torch.Generator) -> Mixing:
        """Which samples of a batch of `count` to mix."""
        return Mixing.draw(count, self.alpha, generator)

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return self.reduce(cross_entropies(logits, labels))
