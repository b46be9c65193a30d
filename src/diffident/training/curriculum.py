"""Easy samples first: which of them an epoch shows.

In few epochs a network that must find its features in images learns more from samples that are easy to tell than from
all: in the first epoch it sees the easiest part of each class, in every later one evenly more, and after a share of the
epochs all. An epoch has as many steps as without, so that samples are seen several times in it while they are few.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Sampler

from diffident.errors import InputError
from diffident.records import tensor_of
from diffident.training.optimization import epoch_seed

# Of each class, in the first epoch.
FIRST_SHARE = 0.15
# Of training above validation accuracy: more, and the network learns the few samples that it sees by heart.
_MOST_GAP = 0.2


@dataclass(frozen=True)
class Curriculum:
    """Samples in the order in which they are shown.

    Attributes:
        places: Share of its class's samples that are easier, in [0, 1) (n,); of equally hard ones in random order.
    """

    places: Float[Tensor, " n"]

    @classmethod
    def of(cls, weights: Float[Tensor, " n"], labels: Int[Tensor, " n"], seed: int) -> "Curriculum":
        """The curriculum of the classes that are learnt; samples that are left out come last.

        Args:
            weights: Of the samples, from difficulty: higher is harder, 2 is left out.
            labels: The classes that they learn.
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
        return cls(places)

    def rows(self, share: float, generator: torch.Generator) -> Int[Tensor, " n"]:
        """As many rows as there are samples, of the easiest `share` of each class, which has one at least.

        Each is there as often as every other, or once more, which the generator decides.
        """
        shown = (self.places < share).nonzero().flatten()
        count = len(self.places)
        rest = shown[torch.randperm(len(shown), generator=generator)[: count % len(shown)]]
        return torch.cat([shown.repeat(count // len(shown)), rest])


def share_shown(length: float, epochs: int, lines: list[dict[str, Any]]) -> float:
    """Part of each class that the next epoch shows: from `FIRST_SHARE` evenly up to 1.

    Args:
        length: Share of the epochs in which some samples are not shown, in [0, 1].
        epochs: Of the run.
        lines: Metrics of the epochs before. Training accuracy far above validation accuracy ends the curriculum.
    """
    if len(lines) >= epochs_held_back(length, epochs, lines):
        return 1.0
    return FIRST_SHARE + (1 - FIRST_SHARE) * len(lines) / (length * epochs)


def epochs_held_back(length: float, epochs: int, lines: list[dict[str, Any]]) -> float:
    """Epochs, of which the last may be a part, in which a curriculum holds samples back; as `share_shown`."""
    ends = (number for number, line in enumerate(lines, 1) if _gap(line) > _MOST_GAP)
    return min(length * epochs, float(next(ends, epochs)))


def _gap(line: dict[str, Any]) -> float:
    return line.get("train_accuracy", 0.0) - line.get("validation_accuracy", line.get("train_accuracy", 0.0))


class CurriculumSampler(Sampler[int]):
    """Rows for a data loader of a loop of your own, easy samples first.

    Each pass is an epoch and has as many rows as there are samples; `set_epoch` goes to another, as that of
    `DistributedSampler`, and Lightning calls it.

    Args:
        weights: Of the samples, in [0, 2], in the data's order (n,); from `difficulty_weights` or `training_targets`.
        labels: The classes that they learn, at least 0 (n,).
        epochs: Passes that there will be; later ones show all samples.
        length: Share of the epochs in which some samples are not shown yet, in [0, 1]; 0 shows all from the first.
        seed: Of the order.

    Raises:
        InputError: weights and labels of different lengths or none, or a number out of range.

    Example:
        >>> targets = diffident.training_targets(table)  # of the samples of `dataset`, in its order
        >>> sampler = diffident.CurriculumSampler(targets.weights, targets.labels, epochs=30)
        >>> loader = DataLoader(dataset, batch_size=64, sampler=sampler)

    Reference:
        Bengio, Louradour, Collobert and Weston 2009, Curriculum learning, ICML.
    """

    def __init__(
        self,
        weights: Float[Tensor, "..."] | Float[np.ndarray, "..."],
        labels: Int[Tensor, "..."] | Int[np.ndarray, "..."],
        epochs: int,
        *,
        length: float = 0.5,
        seed: int = 0,
    ):
        weights, labels = tensor_of(weights, "weights"), tensor_of(labels, "labels")
        if weights.shape != labels.shape or weights.ndim != 1 or not len(weights):
            raise InputError(
                f"`weights` and `labels` must be one each a sample; got {list(weights.shape)} and "
                f"{list(labels.shape)}. Take both from `training_targets`."
            )
        if not bool(((weights >= 0) & (weights <= 2)).all()):
            raise InputError("`weights` must be in [0, 2]; got others. Take them from `difficulty_weights`.")
        if int(labels.min()) < 0:
            raise InputError(f"`labels` must be at least 0; got {int(labels.min())}. Leave such samples out.")
        if epochs < 1 or not 0 <= length <= 1:
            raise InputError(
                f"`epochs` must be at least 1 and `length` in [0, 1]; got {epochs} and {length}. Take 0.5 of them."
            )
        self._curriculum = Curriculum.of(weights, labels.long(), seed)
        self._epochs, self._length, self._seed, self._epoch = epochs, length, seed, 0

    def __len__(self) -> int:
        return len(self._curriculum.places)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is this epoch, counted from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(epoch_seed(self._seed, self._epoch))
        order = torch.randperm(len(self), generator=generator)
        share = share_shown(self._length, self._epochs, [{}] * self._epoch)
        self._epoch += 1
        return iter((self._curriculum.rows(share, generator)[order] if share < 1 else order).tolist())
