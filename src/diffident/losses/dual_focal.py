"""Dual focal loss: the focal loss with an eye on the strongest rival of the label."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, at_labels, check_number, powers


class DualFocalLoss(Loss):
    """-(1 - p_y + p_j)^gamma log p_y, p_j the largest probability below the label's: neither too sure nor too unsure.

    Args:
        gamma: At least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Tao, Dong and Xu 2023, arXiv 2305.13665, with gamma 5 for ResNet-50 on CIFAR-10 (chosen for each network there).
        As in their code p_j is 0 where no probability is below the label's, and is differentiated; theirs sums over the
        batch by default.
    """

    options = ("gamma",)
    soft_targets = False

    def __init__(self, gamma: float = 5.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.gamma = check_number("gamma", gamma, 0, hint="Take 5, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        log_probs = torch.log_softmax(logits, dim=1)
        label_log_probs = at_labels(log_probs, labels)
        # Compared as logarithms, which tell probabilities apart that are too small to.
        below = log_probs < label_log_probs[:, None]
        rivals = torch.where(below, log_probs.exp(), 0).amax(dim=1)
        return self.reduce(-powers(rivals - torch.expm1(label_log_probs), self.gamma) * label_log_probs)
