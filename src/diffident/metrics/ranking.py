"""Samples sorted once by a score, tied scores in one group; resamples then need only cumulative sums."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CumulativeCounts:
    """How many samples lie above each threshold, one entry per group of tied scores, highest score first.

    Attributes:
        totals: Samples accepted so far, 0 first (r, g + 1).
        positives: Positive samples among them, 0 first (r, g + 1).
    """

    totals: Float[Tensor, "r g"]
    positives: Float[Tensor, "r g"]


@dataclass(frozen=True)
class Ranking:
    """Samples in descending order of a score.

    Attributes:
        order: Row of the sample at every place (n,).
        ends: Last place of every group of tied scores (g,).
        positive: 1.0 where the sample at a place is positive (n,).
    """

    order: Int[Tensor, " n"]
    ends: Int[Tensor, " g"]
    positive: Float[Tensor, " n"]

    def cumulate(self, counts: Float[Tensor, "r n"] | None = None) -> CumulativeCounts:
        """Cumulative counts of the samples (r = 1), or of each resample.

        Args:
            counts: How often each sample occurs in each resample, in the samples' own order.
        """
        if counts is None:
            drawn = torch.ones(1, len(self.order), dtype=torch.float64, device=self.order.device)
        else:
            drawn = counts.index_select(1, self.order).to(torch.float64)
        totals = drawn.cumsum(dim=1).index_select(1, self.ends)
        positives = (drawn * self.positive).cumsum(dim=1).index_select(1, self.ends)
        pad = (1, 0)
        return CumulativeCounts(torch.nn.functional.pad(totals, pad), torch.nn.functional.pad(positives, pad))


def rank_samples(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Ranking:
    """Sort once, highest score first; equal scores form one group."""
    ordered, order = scores.sort(descending=True, stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    return Ranking(order, last.nonzero().squeeze(1), positive[order].to(torch.float64))


def one_or_all(values: Float[Tensor, " r"], counts: Float[Tensor, "r n"] | None) -> Float[Tensor, "..."]:
    """The only value as a scalar where nothing was resampled, else one value per resample."""
    return values[0] if counts is None else values
