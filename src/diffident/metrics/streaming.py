"""Metrics of predictions that come in batches, on several machines if need be: the same values as in one go."""

import numpy as np
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.metrics.classwise import ClasswiseSums
from diffident.metrics.inputs import check_labels, check_scores
from diffident.metrics.suite import all_values
from diffident.metrics.terms import SampleTerms, concatenate_terms, sample_terms


class MetricAccumulator:
    """Every metric of an evaluation without its interval, from batches.

    It keeps 41 bytes a sample (49 for binary tasks) and the classwise sums, never the logits. Batches and shards may
    differ in size, and come in any order.

    Example:
        >>> accumulator = MetricAccumulator()
        >>> accumulator.update(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> accumulator.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
        >>> accumulator.compute()["accuracy"]
        0.5
    """

    def __init__(self) -> None:
        self._pieces: list[SampleTerms] = []
        self._sums: ClasswiseSums | None = None

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def update(
        self,
        logits: Tensor | np.ndarray | None = None,
        labels: Tensor | np.ndarray | None = None,
        *,
        probs: Tensor | np.ndarray | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            logits: Unnormalised log-probabilities [n, c].
            labels: Classes [n], integers in [0, c).
            probs: Probabilities [n, c] in the place of logits.

        Raises:
            InputError: as of `evaluate`, or another number of classes than before.
        """
        scores = check_scores(logits, probs, labels, called="update")
        assert labels is not None  # seen to by `check_scores`
        self._add(*sample_terms(scores, check_labels(labels, len(scores), scores.num_classes)))

    def merge(self, other: "MetricAccumulator") -> None:
        """Take in what another accumulator has seen, which is left as it is.

        Raises:
            ShapeError: another number of classes.
        """
        if other._sums is not None:
            self._add(concatenate_terms(other._pieces), other._sums)

    def compute(self) -> dict[str, float]:
        """Every metric of all samples so far, by the keys of an evaluation.

        Raises:
            InputError: there are none.
        """
        if self._sums is None:
            raise InputError("`compute` must follow at least one sample; got none. Call `update` or `merge` first.")
        self._pieces = [concatenate_terms(self._pieces)]
        return all_values(self._pieces[0], self._sums)

    def reset(self) -> None:
        """Forget all samples."""
        self.__init__()

    def _add(self, terms: SampleTerms, sums: ClasswiseSums) -> None:
        if self._sums is not None and len(sums.labels) != len(self._sums.labels):
            raise ShapeError(
                f"`logits` must have {len(self._sums.labels)} columns like those before; got {len(sums.labels)}. "
                f"Use one accumulator a task."
            )
        self._pieces.append(terms)
        self._sums = sums if self._sums is None else self._sums + sums
