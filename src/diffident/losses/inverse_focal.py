"""Inverse focal loss: samples that are predicted well count more."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, label_terms


class InverseFocalLoss(Loss):
    """-(1 + p_y)^gamma log p_y: lets the model be overconfident, for those who calibrate afterwards.

    Soft targets take the mean of it over the target's classes.

    Args:
        gamma: At least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Wang, Feng and Zhang 2021, "Rethinking Calibration of Deep Neural Networks: Do Not Be Afraid of Overconfidence",
        NeurIPS. It has no single gamma; 2 is what the code of arXiv 2505.23463 takes for ResNet-50 on CIFAR.
    """

    options = ("gamma",)

    def __init__(self, gamma: float = 2.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.gamma = check_number("gamma", gamma, 0, hint="Take 2, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""

        def term(log_probs):
            return -((1 + torch.exp(log_probs)) ** self.gamma) * log_probs

        return self.reduce(label_terms(logits, labels, term))
