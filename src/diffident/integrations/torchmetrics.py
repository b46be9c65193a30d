"""The metrics of an evaluation as one torchmetrics `Metric`: for Lightning, for collections, over several processes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import MissingDependencyError, ShapeError
from diffident.metrics.calibration import NUM_BINS
from diffident.metrics.classwise import ClasswiseSums
from diffident.metrics.inputs import check_labels, check_logits, check_probs
from diffident.metrics.suite import all_values
from diffident.metrics.terms import SampleTerms, sample_terms

try:
    from torchmetrics import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ImportError as error:
    raise MissingDependencyError(
        "`EvaluationMetric` must have torchmetrics; it is not installed. Run: pip install torchmetrics."
    ) from error

_TERMS = {
    "confidence": torch.float64,
    "errors": torch.bool,
    "nll": torch.float64,
    "brier": torch.float64,
    "labels": torch.int64,
    "positive": torch.float64,
}
_SUMS = ("gaps", "sizes", "label_counts", "squares", "probs_by_bin")
"""Names of the states that hold `ClasswiseSums.parts`."""


class EvaluationMetric(Metric):
    """Every metric of `diffident.evaluate` without its interval, with the same values.

    Processes may hold different numbers of samples, none too: what is gathered are a few numbers a sample and sums.

    Example:
        >>> metric = EvaluationMetric(num_classes=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        >>> metric.compute()["accuracy"]
        tensor(1., dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, num_classes: int, *, probs: bool = False, **options: Any) -> None:
        """Make an empty metric.

        Args:
            num_classes: Number of columns of the predictions.
            probs: Whether `update` gets probabilities in the place of logits.
            options: Those of `torchmetrics.Metric`.
        """
        super().__init__(**options)
        self.num_classes, self.probs = num_classes, probs
        self._names = [name for name in _TERMS if name != "positive" or num_classes == 2]
        for name in self._names:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        shapes = {"gaps": (num_classes, NUM_BINS), "sizes": (num_classes, NUM_BINS), "label_counts": (num_classes,)}
        for name, shape in {**shapes, "squares": shapes["gaps"], "probs_by_bin": shapes["gaps"]}.items():
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Float[Tensor, "n c"], target: Int[Tensor, " n"]) -> None:
        """Take in a batch.

        Args:
            preds: Logits, or probabilities where the metric was made with `probs=True`.
            target: Classes in [0, c).

        Raises:
            InputError: as of `diffident.evaluate`.
        """
        if self.probs:
            scores = check_probs(preds, "preds")
        else:
            scores = check_logits(preds, "preds", probs_as="Make the metric with probs=True for probabilities.")
        if scores.num_classes != self.num_classes:
            raise ShapeError(
                f"`preds` must have {self.num_classes} columns; got {scores.num_classes}. Give one per class."
            )
        terms, sums = sample_terms(scores, check_labels(target, len(scores), self.num_classes))
        for name in self._names:
            getattr(self, name).append(getattr(terms, name).to(self.device))
        for name, part in zip(_SUMS, sums.parts, strict=True):
            setattr(self, name, getattr(self, name) + part.to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Every metric of all samples so far, by the keys of an evaluation; NaN where undefined."""
        parts = {name: dim_zero_cat(getattr(self, name)).cpu() for name in self._names}
        sums = [getattr(self, name).cpu() for name in _SUMS]
        values = all_values(SampleTerms(**{"positive": None, **parts}), ClasswiseSums(*sums))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gather from all processes; one that has seen nothing takes part with empty states of the right type."""
        for name in self._names:
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [torch.zeros(0, dtype=_TERMS[name], device=self.device)])
        super().sync(*arguments, **options)
