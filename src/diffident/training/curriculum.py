"""Easy samples first: which of them an epoch shows.

In few epochs a network that must find its features in images learns more from samples that are easy to tell than from
all: in the first epoch it sees the easiest part of each class, in every later one evenly more, and after a share of the
epochs all. An epoch has as many steps as without, so that samples are seen several times in it while they are few.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Of each class, in the first epoch.
FIRST_SHARE = 0.3


@dataclass(frozen=True)
class Curriculum:
    """Samples in the order in which they are shown.

    Attributes:
        places: Share of its class's samples that are easier, in [0, 1) (n,); of equally hard ones in random order.
        length: Share of the epochs in which some samples are not shown yet, in [0, 1].
    """

    places: Float[Tensor, " n"]
    length: float

    @classmethod
    def of(cls, weights: Float[Tensor, " n"], labels: Int[Tensor, " n"], length: float, seed: int) -> "Curriculum":
        """The curriculum of the classes that are learnt; samples that are left out come last.

        Args:
            weights: Of the samples, from difficulty: higher is harder, 2 is left out.
            labels: The classes that they learn.
            length: Share of the epochs.
            seed: Of the order of equally hard samples.
        """
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        weights, labels = weights.cpu(), labels.cpu()
        order = order[weights[order].argsort(stable=True)]
        order = order[labels[order].argsort(stable=True)]  # class by class, the easiest first
        sizes = torch.bincount(labels)
        before = (sizes.cumsum(0) - sizes)[labels[order]]
        places = torch.empty(len(labels), dtype=torch.float64)
        places[order] = (torch.arange(len(labels)) - before).double() / sizes[labels[order]]
        return cls(places, length)

    def share(self, epoch: int, epochs: int) -> float:
        """Part of each class that is shown in an epoch, counted from 0: from `FIRST_SHARE` evenly up to 1."""
        if epoch >= self.length * epochs:
            return 1.0
        return FIRST_SHARE + (1 - FIRST_SHARE) * epoch / (self.length * epochs)

    def rows(self, epoch: int, epochs: int, generator: torch.Generator) -> Int[Tensor, " n"] | None:
        """As many rows as there are samples, of those that are shown; None where these are all.

        Each is there as often as every other, or once more, which the generator decides.
        """
        share = self.share(epoch, epochs)
        if share == 1:
            return None
        shown = (self.places < share).nonzero().flatten()
        count = len(self.places)
        rest = shown[torch.randperm(len(shown), generator=generator)[: count % len(shown)]]
        return torch.cat([shown.repeat(count // len(shown)), rest])
