"""From difficulty to what training learns of every sample: a label and a weight."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.difficulties.weights import LEFT_OUT, TEMPERATURE, difficulty_weights
from diffident.errors import InputError
from diffident.records import DifficultyTable


@dataclass(frozen=True)
class SoftTargets:
    """What training learns of every sample where that is not one class alone.

    Attributes:
        classes: int64 (n, m); the probabilities of one that is named twice add up.
        probs: float32 (n, m); rows sum to 1.
    """

    classes: Int[Tensor, "n m"]
    probs: Float[Tensor, "n m"]

    def rows(self, rows: Int[Tensor, " b"]) -> "SoftTargets":
        """Those of some of the samples."""
        return SoftTargets(self.classes[rows], self.probs[rows])

    def to(self, device: torch.device) -> "SoftTargets":
        """The same on a device."""
        return SoftTargets(self.classes.to(device, non_blocking=True), self.probs.to(device, non_blocking=True))

    def beyond(self, num_classes: int) -> Bool[Tensor, "n m"]:
        """Which of the classes are none of the first `num_classes`, and yet have a probability."""
        return (self.classes >= num_classes) & (self.probs > 0)

    def over(self, num_classes: int) -> Float[Tensor, "n k"]:
        """Probabilities of all classes, as the losses take them in the place of labels.

        Raises:
            InputError: a class beyond these has a probability. On a GPU, where to look would wait, it goes to the last.
        """
        if self.classes.device.type == "cpu":
            beyond = self.beyond(num_classes)
            if bool(beyond.any()):
                raise InputError(
                    f"`num_classes` must be above every probable class; got {num_classes}, and a probability of class "
                    f"{int(self.classes[beyond].max())}. Give the number of classes that were scored."
                )
        empty = self.probs.new_zeros(len(self.probs), num_classes)
        return empty.scatter_add_(1, self.classes.clamp(max=num_classes - 1), self.probs)


@dataclass(frozen=True)
class Targets:
    """What training learns of every sample.

    Attributes:
        weights: Of the loss, float32 (n,); 2 where the sample is left out.
        given: The labels that were scored, int64 (n,).
        labels: Those to learn, int64 (n,).
        soft: These labels and what the features say of the classes, or None: the labels alone.
    """

    weights: Float[Tensor, " n"]
    given: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    soft: SoftTargets | None = None

    @property
    def changed(self) -> Bool[np.ndarray, " n"]:
        """Whether each sample learns another label than the given one."""
        return self.labels != self.given

    @property
    def believed(self) -> float:
        """Share of the samples that learn the given label, in [0, 1]."""
        return float(1 - np.mean(self.changed | (self.weights == LEFT_OUT).numpy()))


def training_targets(
    table: DifficultyTable,
    *,
    normalizer: str = "rank",
    temperature: float = TEMPERATURE,
    distrust: bool = True,
    relabel: bool = False,
    soft_targets: float = 0.0,
) -> Targets:
    """Weights and labels of all samples of a table, in its order.

    Args:
        table: Of the samples to train on; `table.take(rows)` picks some.
        normalizer: Of `difficulty_weights`.
        temperature: Of `difficulty_weights`.
        distrust: Whether samples whose labels the table does not believe are left out, by a weight of 2.
        relabel: Whether these samples learn the table's likely label instead, with a weight of 1: better for a network
            that must find its features in images (docs/method.md). Left out are still those whose own label is the
            likely one, or whose likely label no sample has.
        soft_targets: Share in [0, 1] of what is learnt that is the table's probabilities of the classes; the rest is
            the label.

    Raises:
        InputError: as `difficulty_weights`; or the share is out of range, or the table has no probabilities.

    Example:
        >>> targets = training_targets(read_difficulty_table("difficulty.parquet"), relabel=True, soft_targets=0.5)
        >>> loss = criterion(logits, targets.soft.rows(rows).over(num_classes), targets.weights[rows])
    """
    weights = difficulty_weights(table.difficulty, normalizer, temperature, table.distrust if distrust else None)
    labels = table.labels
    if relabel and table.likely_labels is not None:
        left_out = (weights == LEFT_OUT).numpy()
        labels = np.where(left_out & np.isin(table.likely_labels, labels), table.likely_labels, labels)
        weights[labels != table.labels] = 1.0
    return Targets(weights, table.labels, labels, _soft(table, labels, soft_targets) if soft_targets else None)


def candidates_of(table: DifficultyTable, why: str) -> tuple[Int[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """The classes that each sample may be, and how probable each is.

    Args:
        table: Of `posterior`.
        why: What needs them, for the message: `for soft_targets=0.5`.

    Raises:
        InputError: the table has none.
    """
    if table.candidates is None or table.candidate_probs is None:
        raise InputError(
            f"`difficulty` must have probabilities of the classes {why}; got a table of "
            f"{table.metadata.get('method', 'an unknown method')!r} without. Make it with: diffident score FEATURES "
            "--method posterior."
        )
    return table.candidates, table.candidate_probs


def _soft(table: DifficultyTable, labels: Int[np.ndarray, " n"], share: float) -> SoftTargets:
    """The label's share first, then the candidates'."""
    if not 0 <= share <= 1:
        raise InputError(f"`soft_targets` must be in [0, 1]; got {share}. Take 0.5, or 0 for the labels alone.")
    candidates, candidate_probs = candidates_of(table, f"for soft_targets={share}")
    if candidates.min(initial=0) < 0:
        raise InputError(f"`candidates` must be at least 0; got {candidates.min()}. Score the samples again.")
    classes = np.concatenate([labels[:, None], candidates.astype(np.int64)], axis=1)
    of_label = np.full((len(labels), 1), 1 - share, dtype=np.float32)
    probs = np.concatenate([of_label, np.float32(share) * candidate_probs.astype(np.float32)], axis=1)
    return SoftTargets(torch.from_numpy(classes), torch.from_numpy(probs))
