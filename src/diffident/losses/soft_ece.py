"""Soft-binned ECE: the expected calibration error of the batch, with bins that overlap so that it has a gradient."""

import torch

from diffident.errors import InputError
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

_LEAST_BIN = 1e-5


class SoftBinnedECE(Loss):
    """CE + alpha * sqrt(sum_b w_b (confidence_b - accuracy_b)^2) over soft bins b of weight w_b.

    A sample of confidence q belongs to the bin of centre m in proportion to exp(-(q - m)^2 / bin_temperature). The
    samples of a batch act on each other: with `none`, each carries the whole penalty.

    Args:
        alpha: Strength of the penalty, at least 0; 0 is cross-entropy.
        num_bins: Of equal width.
        bin_temperature: Above 0; towards 0 the bins become hard.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Karandikar et al. 2021, arXiv 2108.00106, eq. 11 (p = 2), and its code in google/uncertainty-baselines. Strength
        and temperature are chosen for each data set there; 0.01 spreads a sample over about one bin to each side.
    """

    options = ("alpha", "num_bins", "bin_temperature")
    soft_targets = False

    def __init__(
        self, alpha: float = 1.0, num_bins: int | float = 15, bin_temperature: float = 0.01, *, reduction: str = "mean"
    ):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 1, or 0 for cross-entropy.")
        if num_bins != int(check_number("num_bins", num_bins, 1, hint="Take 15.")):
            raise InputError(f"`num_bins` must be a whole number; got {num_bins}. Take 15.")
        self.num_bins = int(num_bins)
        self.bin_temperature = check_number("bin_temperature", bin_temperature, 0, open_low=True, hint="Take 0.01.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        confidence, correct = confidences(logits, labels)
        centres = (torch.arange(self.num_bins, device=logits.device, dtype=logits.dtype) + 0.5) / self.num_bins
        members = torch.softmax((confidence[:, None] - centres).square() / -self.bin_temperature, dim=1)
        sizes = members.sum(dim=0)
        gaps = ((confidence - correct)[:, None] * members).sum(dim=0) / sizes.clamp(min=_LEAST_BIN)
        penalty = norm_of((sizes / len(logits) * gaps.square()).sum())
        return self.reduce(cross_entropies(logits, labels) + self.alpha * penalty)
