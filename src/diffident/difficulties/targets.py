"""From difficulty to what training learns of every sample: a label and a weight."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.difficulties.weights import LEFT_OUT, TEMPERATURE, difficulty_weights
from diffident.records import DifficultyTable


@dataclass(frozen=True)
class Targets:
    """What training learns of every sample.

    Attributes:
        weights: Of the loss, float32 (n,); 2 where the sample is left out.
        given: The labels that were scored, int64 (n,).
        labels: Those to learn, int64 (n,).
    """

    weights: Float[Tensor, " n"]
    given: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]

    @property
    def changed(self) -> Bool[np.ndarray, " n"]:
        """Whether each sample learns another label than the given one."""
        return self.labels != self.given


def training_targets(
    table: DifficultyTable,
    *,
    normalizer: str = "rank",
    temperature: float = TEMPERATURE,
    distrust: bool = True,
    relabel: bool = False,
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

    Raises:
        InputError: as `difficulty_weights`.

    Example:
        >>> targets = training_targets(read_difficulty_table("difficulty.parquet"), relabel=True)
        >>> loss = criterion(logits, torch.from_numpy(targets.labels)[rows], targets.weights[rows])
    """
    weights = difficulty_weights(table.difficulty, normalizer, temperature, table.distrust if distrust else None)
    labels = table.labels
    if relabel and table.likely_labels is not None:
        left_out = (weights == LEFT_OUT).numpy()
        labels = np.where(left_out & np.isin(table.likely_labels, labels), table.likely_labels, labels)
        weights[labels != table.labels] = 1.0
    return Targets(weights, table.labels, labels)
