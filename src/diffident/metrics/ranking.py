"""Samples sorted once by a score, tied scores in one group; resamples then need only cumulative sums."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
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

    def at(self, columns: Int[Tensor, " k"]) -> "CumulativeCounts":
        """Some columns, in their order."""
        return CumulativeCounts(self.totals.index_select(1, columns), self.positives.index_select(1, columns))

    @cached_property
    def sizes(self) -> Float[Tensor, "r g"]:
        """Samples of every group (r, g)."""
        return self.totals.diff(dim=1)

    @cached_property
    def negatives(self) -> Float[Tensor, "r g"]:
        """The other samples among them (r, g + 1)."""
        return self.totals - self.positives

    @cached_property
    def new_positives(self) -> Float[Tensor, "r g"]:
        """Positive samples of every group (r, g)."""
        return self.positives.diff(dim=1)


@dataclass(frozen=True)
class Ranking:
    """Samples in descending order of a score.

    Attributes:
        order: Row of the sample at every place (n,), or None where the rows are in that order themselves.
        ends: Last place of every group of tied scores (g,).
        positive: 1.0 where the sample at a place is positive (n,).
        scores: Score at every place, descending (n,).
    """

    order: Int[Tensor, " n"] | None
    ends: Int[Tensor, " g"]
    positive: Float[Tensor, " n"]
    scores: Float[Tensor, " n"]

    def cumulate(self, counts: Float[Tensor, "r n"] | None = None) -> CumulativeCounts:
        """Cumulative counts of the samples (r = 1), or of each resample.

        Args:
            counts: How often each sample occurs in each resample, in the samples' own order.
        """
        if counts is None:
            totals = torch.nn.functional.pad(self.ends + 1, (1, 0)).to(torch.float64)
            return CumulativeCounts(totals[None], self._at_ends(self.positive[None]))
        drawn = self._drawn(counts)
        return CumulativeCounts(self._at_ends(drawn), self._at_ends(drawn * self.positive))

    @cached_property
    def gaps(self) -> Float[Tensor, " n"]:
        """Score at every place, minus 1 where the sample is not positive: confidences minus right predictions."""
        return self.scores - 1 + self.positive

    def cumulate_gaps(self, counts: Float[Tensor, "r n"] | None = None) -> Float[Tensor, "r g"]:
        """Cumulative sums of the gaps, 0 first (r, g + 1); arguments as for `cumulate`."""
        return self._at_ends(self.gaps[None] if counts is None else self._drawn(counts) * self.gaps)

    def cumulate_consistent(self, num_rows: int, generator: torch.Generator) -> Float[Tensor, "r g"]:
        """As `cumulate_gaps` where each score is the probability of not being positive: outcomes drawn from them."""
        right = torch.rand(num_rows, len(self.scores), dtype=torch.float64, generator=generator) < self.scores
        return self._at_ends(self.scores - right.to(torch.float64))

    def in_place_order(self) -> "Ranking":
        """The same ranking for rows that the caller has brought into its order."""
        return replace(self, order=None)

    def _drawn(self, counts: Float[Tensor, "r n"]) -> Float[Tensor, "r n"]:
        counts = counts.to(torch.float64)
        return counts if self.order is None else counts.index_select(1, self.order)

    def _at_ends(self, values: Float[Tensor, "r n"]) -> Float[Tensor, "r g"]:
        num_rows, num_samples = values.shape
        if len(self.ends) < num_samples:
            return torch.nn.functional.pad(values.cumsum(dim=1).index_select(1, self.ends), (1, 0))
        sums = values.new_empty(num_rows, num_samples + 1)  # summed in place: a pad would copy all
        sums[:, 0] = 0
        torch.cumsum(values, dim=1, out=sums[:, 1:])
        return sums


def rank_samples(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Ranking:
    """Sort once, highest score first; equal scores form one group."""
    ordered, order = scores.sort(descending=True, stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    return Ranking(order, last.nonzero().squeeze(1), positive[order].to(torch.float64), ordered.to(torch.float64))


def rank_unordered(scores: Float[Tensor, " n"], positive: Bool[Tensor, " n"]) -> Ranking:
    """As `rank_samples` for scores of at least 0, where the order of the rows is not needed.

    Score and outcome are made one whole number, whose sort is several times as fast as one that remembers rows: the
    bits of floats from 0 up are in the floats' own order, and the topmost, their sign, makes room for the outcome.
    """
    keys = (scores.to(torch.float64).view(torch.int64) * 2).add_(positive)  # the sign of -0.0 drops out
    keys.numpy().sort()
    keys = keys.flip(0)
    ordered = keys >> 1
    last = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(ordered[:-1], ordered[1:], out=last[:-1])
    ends = torch.from_numpy(np.flatnonzero(last.numpy()))  # several times as fast as torch's
    return Ranking(None, ends, keys.bitwise_and_(1).to(torch.float64), ordered.view(torch.float64))


def bends(ranking: Ranking, sought: Float[Tensor, " n"]) -> Int[Tensor, " k"]:
    """Columns of `CumulativeCounts` between which curves of the samples sought are not straight, first and last too.

    A run of groups that hold none of the sought is one straight piece, whatever a resample draws of them. So areas and
    rates need none of the columns inside it: few are left where few samples are sought.

    Args:
        ranking: The samples.
        sought: Above 0 where the sample at a place of the ranking is sought.
    """
    found = torch.nn.functional.pad(sought.cumsum(0)[ranking.ends], (1, 0)).diff() > 0
    end = found.new_ones(1)
    return (torch.cat([end, found]) | torch.cat([found, end])).nonzero().squeeze(1)


def one_or_all(values: Float[Tensor, " r"], counts: Float[Tensor, "r n"] | None) -> Float[Tensor, "..."]:
    """The only value as a scalar where nothing was resampled, else one value per resample."""
    return values[0] if counts is None else values
