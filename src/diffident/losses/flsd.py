"""Sample-dependent focal loss: gamma follows from how well the sample is predicted now."""

import math

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, label_terms
from diffident.losses.focal import focal_terms

# Below this probability of the label the larger gamma holds: the paper's bound, not an option there either.
_BOUND = 0.2


class SampleDependentFocalLoss(Loss):
    """FLSD-53, the focal loss with gamma 5 where the label's probability is below 0.2, and 3 elsewhere.

    Soft targets take the mean of it over the target's classes.

    Args:
        gamma: Where p_y >= 0.2; at least 0.
        gamma_low: Where p_y < 0.2; at least 0. With both 0 it is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Mukhoti et al. 2020, arXiv 2002.09437 (FLSD-53). As in their code, the choice of gamma is not
        differentiated; theirs sums over the batch by default.
    """

    options = ("gamma", "gamma_low")

    def __init__(self, gamma: float = 3.0, gamma_low: float = 5.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.gamma = check_number("gamma", gamma, 0, hint="Take 3.")
        self.gamma_low = check_number("gamma_low", gamma_low, 0, hint="Take 5.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""

        def term(log_probs):
            gamma = torch.where(log_probs.detach() < math.log(_BOUND), self.gamma_low, self.gamma)
            return focal_terms(log_probs, gamma.to(log_probs.dtype))

        return self.reduce(label_terms(logits, labels, term))
