"""MMCE: a calibration error of the batch, made differentiable by a kernel over confidences."""

import torch

from diffident.losses.base import (
    Labels,
    Logits,
    Loss,
    Reduced,
    Weights,
    check_number,
    confidences,
    cross_entropies,
    norm_of,
)

# Width of the Laplacian kernel: the paper's.
_WIDTH = 0.4


class MMCE(Loss):
    """CE + alpha * sqrt(mean_ij (a_i - q_i) (a_j - q_j) exp(-|q_i - q_j| / 0.4)), q confidence, a 1 where right.

    The samples of a batch act on each other: with `none`, each carries the whole penalty.

    Args:
        alpha: Strength of the penalty, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Kumar, Sarawagi and Jain 2018, "Trainable Calibration Measures for Neural Networks from Kernel Mean Embeddings",
        ICML: MMCE_m. Its weighted form is left out: published code of that divides by the squared counts twice, against
        the paper. Code of Mukhoti et al. 2020 and Liu et al. 2022 leaves the root out; the latter has alpha 1.
    """

    options = ("alpha",)
    soft_targets = False

    def __init__(self, alpha: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        confidence, correct = confidences(logits, labels)
        gaps = correct - confidence
        kernel = torch.exp((confidence[:, None] - confidence).abs() / -_WIDTH)
        penalty = norm_of((gaps[:, None] * gaps * kernel).mean())
        return self.reduce(cross_entropies(logits, labels) + self.alpha * penalty)
