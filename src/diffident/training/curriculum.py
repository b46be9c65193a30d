"""Easy samples first: which of them an epoch shows.

In the first epoch a network sees the easiest part of each class, in every later one evenly more, and after some epochs
all. An epoch has as many steps as without, so that samples are seen several times in it while they are few.

Reference:
    Bengio, Louradour, Collobert and Weston 2009, Curriculum learning, ICML.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.weights import LEFT_OUT
from diffident.folds import places_in_classes
from diffident.settings import TrainingSettings

# Share of the epochs, where the settings leave it open.
_LENGTH = 0.5
# Of each class, in the first epoch.
FIRST_SHARE = 0.15
# Of training above validation accuracy: more, and the network has probably learnt the samples that it sees by heart.
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
        easier = places_in_classes(order[weights[order].argsort(stable=True)], labels)
        return cls(easier.double() / torch.bincount(labels)[labels])

    def rows(self, share: float, generator: torch.Generator) -> Int[Tensor, " n"]:
        """As many rows as there are samples, of the easiest `share` of each class, which is one sample at least.

        Each is there as often as every other, or once more, which the generator decides.
        """
        shown = (self.places < share).nonzero().flatten()
        count = len(self.places)
        rest = shown[torch.randperm(len(shown), generator=generator)[: count % len(shown)]]
        return torch.cat([shown.repeat(count // len(shown)), rest])


def length_of(settings: TrainingSettings, weights: Float[Tensor, " n"] | None, *, ends: bool, augmented: bool) -> float:
    """Share of the epochs in which some samples are held back.

    Where the settings leave it open there is no curriculum without validation data, which end it, nor without
    augmentation, as a network may learn the few samples of the first epochs by heart; nor where none is easier.

    Args:
        settings: Of the run.
        weights: Of the samples, or None.
        ends: Whether there are validation data.
        augmented: Whether inputs are cropped and mirrored.
    """
    if settings.curriculum is not None:
        return settings.curriculum
    assert weights is not None  # settings leave it open for losses with difficulty alone
    kept = weights[weights < LEFT_OUT]
    return _LENGTH if ends and augmented and bool((kept != kept[:1]).any()) else 0.0


def share_shown(length: float, epochs: int, lines: list[dict[str, Any]]) -> float:
    """Part of each class that the next epoch shows: from `FIRST_SHARE` evenly up to 1.

    Args:
        length: Share of the epochs in which some samples are held back, in [0, 1].
        epochs: Of the run.
        lines: Metrics of the epochs before.
    """
    if len(lines) >= epochs_held_back(length, epochs, lines):
        return 1.0
    return FIRST_SHARE + (1 - FIRST_SHARE) * len(lines) / (length * epochs)


def epochs_held_back(length: float, epochs: int, lines: list[dict[str, Any]]) -> int:
    """Epochs in which a curriculum holds samples back: as planned, or until training accuracy is far too high."""
    ends = (number for number, line in enumerate(lines, 1) if accuracy_gap(line) > _MOST_GAP)
    return min(math.ceil(length * epochs), epochs - 1, next(ends, epochs))  # the last shows all


def accuracy_gap(line: dict[str, Any]) -> float:
    """Of an epoch's metrics: training minus validation accuracy, 0 without validation data."""
    return line["train_accuracy"] - line["validation_accuracy"] if "validation_accuracy" in line else 0.0
