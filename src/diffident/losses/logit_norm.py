"""LogitNorm: only the direction of the logits is learnt."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, cross_entropies

# Smaller norms count as this: the gradient of logits that are 0 would be beyond 16 bits.
_LEAST_NORM = 0.01


class LogitNorm(Loss):
    """Cross-entropy of z / (|z| temperature): against being sure far from the data (out-of-distribution detection).

    Logits of norm 1 / temperature get plain cross-entropy. The model may give them any norm, so that its probabilities
    mean little before they are calibrated.

    Args:
        temperature: Above 0; the lower, the surer the model can be.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Wei et al. 2022, arXiv 2205.09310, with temperature 0.04 on CIFAR-10; their code's example takes 0.01. They
        add 1e-7 to norms.
    """

    options = ("temperature",)

    def __init__(self, temperature: float = 0.04, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.temperature = check_number("temperature", temperature, 0, open_low=True, hint="Take 0.04.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        norms = torch.linalg.vector_norm(logits, dim=1, keepdim=True).clamp(min=_LEAST_NORM)
        return self.reduce(cross_entropies(logits / (norms * self.temperature), labels))
