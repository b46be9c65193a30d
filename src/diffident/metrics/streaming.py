"""Metrics of predictions that come in batches, on several machines if need be: the same values as in one go."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from diffident.errors import InputError, ShapeError, did_you_mean
from diffident.metrics.classwise import CLASSWISE_METRICS, ClasswiseSums
from diffident.metrics.inputs import check_labels, check_scores
from diffident.metrics.suite import all_values, metric_order, sample_values
from diffident.metrics.terms import SampleTerms, concatenate_terms, light_terms, sample_terms


class MetricAccumulator:
    """The metrics of an evaluation without their intervals, from batches.

    It keeps at most 41 bytes a sample (49 for binary tasks) and the classwise sums, never the logits. Batches and
    shards may differ in size, and come in any order.

    Example:
        >>> accumulator = MetricAccumulator()
        >>> accumulator.update(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        >>> accumulator.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
        >>> accumulator.compute()["accuracy"]
        0.5
    """

    def __init__(self, metrics: Sequence[str] | None = None) -> None:
        """Make an empty accumulator.

        Args:
            metrics: Keys of an evaluation; None is all. Without the classwise ones and the Brier score it is several
                times as fast.

        Raises:
            InputError: an unknown metric.
        """
        known = metric_order(binary=True)
        for name in metrics or ():
            if name not in known:
                raise InputError(f"`metrics` must be keys of an evaluation; got `{name}`. {did_you_mean(name, known)}")
        self.metrics = None if metrics is None else tuple(metrics)
        self._needed = {name: metrics is not None and name in metrics for name in ("nll", "brier")}
        self._whole = metrics is None or not set(CLASSWISE_METRICS).isdisjoint(metrics)
        self.reset()

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def reset(self) -> None:
        """Forget all samples."""
        self._pieces: list[SampleTerms] = []
        self._sums: ClasswiseSums | None = None
        self._num_classes: int | None = None

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
            InputError: as of `evaluate`, another number of classes than before, or one that a metric is not for.
        """
        scores = check_scores(logits, probs, labels, called="update")
        assert labels is not None  # seen to by `check_scores`
        labels = check_labels(labels, len(scores), scores.num_classes)
        self._check_classes(scores.num_classes)
        if self._whole:
            self._add(*sample_terms(scores, labels))
        else:
            self._add(light_terms(scores, labels, **self._needed), None)

    def merge(self, other: "MetricAccumulator") -> None:
        """Take in what another accumulator has seen, which is left as it is.

        Raises:
            InputError: it is of other metrics.
            ShapeError: it has another number of classes.
        """
        if other.metrics != self.metrics:
            raise InputError(f"`other` must have the metrics {self.metrics}; got {other.metrics}. Make both alike.")
        if other._num_classes is not None:
            self._check_classes(other._num_classes)
            self._add(concatenate_terms(other._pieces), other._sums)

    def compute(self) -> dict[str, float]:
        """Every metric of all samples so far, by the keys of an evaluation.

        Raises:
            InputError: there are none.
        """
        if not self._pieces:
            raise InputError("`compute` must follow at least one sample; got none. Call `update` or `merge` first.")
        self._pieces = [concatenate_terms(self._pieces)]
        if self.metrics is None or self._whole:
            assert self._sums is not None  # there are samples
            values = all_values(self._pieces[0], self._sums)
            return values if self.metrics is None else {name: values[name] for name in self.metrics}
        return sample_values(self._pieces[0], self.metrics)

    def _check_classes(self, num_classes: int) -> None:
        if self._num_classes == num_classes:
            return
        if self._num_classes is not None:
            raise ShapeError(
                f"`logits` must have {self._num_classes} columns like those before; got {num_classes}. "
                f"Use one accumulator a task."
            )
        for name in self.metrics or ():
            if num_classes != 2 and name not in metric_order(binary=False):
                raise InputError(f"`metrics` must be for {num_classes} classes; got `{name}`, which is for two.")
        self._num_classes = num_classes

    def _add(self, terms: SampleTerms, sums: ClasswiseSums | None) -> None:
        self._pieces.append(terms)
        if sums is not None:
            self._sums = sums if self._sums is None else self._sums + sums
