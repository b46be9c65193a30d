"""What a training run saw of every sample, epoch by epoch: area under the margin, forgetting, EL2N.

- `aum`: difficulty = minus the mean over epochs of the label's logit minus the greatest other logit.
- `forgetting`: how often the sample was classified rightly in one epoch and wrongly in the next; one that was never
  classified rightly counts as many as there are epochs.
- `el2n`: mean over epochs of the length of probs - onehot(label), in [0, sqrt 2]. Its authors take the first ten epochs
  or so, averaged over runs; take the epochs that you want with `TrainingDynamics.epochs(10)`.

Whatever the statistic, the margin is max(-AUM, 0), and the nearest label is the given one where AUM is at least 0, else
the other class that was predicted most often. Logits are those of the training step, before its update.

Reference:
    Pleiss et al. 2020, arXiv 2001.10528; Toneva et al. 2019, arXiv 1812.05159; Paul et al. 2021, arXiv 2107.07075.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.protocol import Blocks, Scores, check_fitted, make_options
from diffident.errors import InputError, ShapeError
from diffident.options import check_choice, check_whole
from diffident.records import positions_of

STATISTICS = ("aum", "forgetting", "el2n")


@dataclass(frozen=True)
class EpochDynamics:
    """What one epoch saw of every sample.

    Attributes:
        predictions: Class of the greatest logit; the label where it is among the greatest (n,).
        margins: The label's logit minus the greatest other, (n,); at least 0 where the prediction is the label.
        label_probs: Probability of the label (n,).
        el2n: Length of probs - onehot(label) (n,).
    """

    predictions: Int[Tensor, " n"]
    margins: Float[Tensor, " n"]
    label_probs: Float[Tensor, " n"]
    el2n: Float[Tensor, " n"]


@dataclass(frozen=True)
class TrainingDynamics:
    """What every epoch of a run saw of every sample; rows are samples, columns epochs.

    Attributes:
        ids: Stable ids (n,).
        labels: Given labels, int64 (n,).
        predictions: Predicted classes, int64 (n, e).
        margins: The label's logit minus the greatest other (n, e).
        label_probs: Probability of the label (n, e).
        el2n: Length of probs - onehot(label) (n, e).
    """

    ids: np.ndarray
    labels: Int[np.ndarray, " n"]
    predictions: Int[np.ndarray, "n e"]
    margins: Float[np.ndarray, "n e"]
    label_probs: Float[np.ndarray, "n e"]
    el2n: Float[np.ndarray, "n e"]

    def epochs(self, count: int) -> "TrainingDynamics":
        """The first epochs alone."""
        check_whole("count", count, 1)
        names = ("predictions", "margins", "label_probs", "el2n")
        return replace(self, **{name: getattr(self, name)[:, :count] for name in names})

    def aligned(self, ids: np.ndarray) -> "TrainingDynamics":
        """The rows of these ids, in their order.

        Raises:
            IdMismatchError: an id is not there.
        """
        rows = positions_of(self.ids, ids, what="the samples", where="the training dynamics")
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})


@dataclass(frozen=True)
class TrainingDynamicsOptions:
    """Options of `training-dynamics`.

    Attributes:
        dynamics: Of the samples, in the order of the labels.
        statistic: `aum`, `forgetting` or `el2n`.
    """

    dynamics: TrainingDynamics
    statistic: str = "aum"

    def __post_init__(self):
        check_choice("statistic", self.statistic, STATISTICS)


def measure_epoch(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> EpochDynamics:
    """What the logits say of the samples; of a training step, say. At least two classes are needed.

    Example:
        >>> measure_epoch(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).margins
        tensor([2.])
    """
    logits = logits.detach().float()
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ShapeError(f"`logits` must be [n, c] with c at least 2; got {tuple(logits.shape)}. Give one per class.")
    column = labels[:, None]
    own = logits.gather(1, column)[:, 0]
    other, runner_up = logits.scatter(1, column, -torch.inf).max(dim=1)
    probs = torch.softmax(logits, dim=1)
    residual = probs.scatter_add(1, column, -torch.ones_like(probs[:, :1]))
    return EpochDynamics(
        predictions=torch.where(own >= other, labels, runner_up),
        margins=own - other,
        label_probs=probs.gather(1, column)[:, 0],
        el2n=residual.norm(dim=1),
    )


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> TrainingDynamicsOptions:
    """Check the dynamics against the labels; looks at no feature. Options: `TrainingDynamicsOptions`."""
    chosen = make_options(TrainingDynamicsOptions, "training-dynamics", options)
    dynamics = chosen.dynamics
    if len(dynamics.labels) != len(labels):
        raise ShapeError(
            f"`dynamics` must have one row per label; got {len(dynamics.labels)} for {len(labels)}. Align them by id."
        )
    if not dynamics.margins.size:
        raise InputError("`dynamics` must hold at least one sample and one epoch; got none. Train a run first.")
    _check_labels(dynamics, labels)
    for name in ("margins", "label_probs", "el2n"):
        wrong = ~np.isfinite(getattr(dynamics, name)).all(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"`{name}` must be finite; got NaN or infinity at row {row}. Look for a diverged run.")
    outside = ((dynamics.predictions < 0) | (dynamics.predictions >= num_classes)).any(axis=1)
    if outside.any():
        raise InputError(
            f"`predictions` must be in [0, {num_classes}); got another at row {int(outside.argmax())}. "
            "Give the classes of the run."
        )
    return chosen


def score(state: TrainingDynamicsOptions, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """The statistic of every sample, which must be those of the run.

    Raises:
        InputError: other samples than those of the run: it saw nothing of them.
    """
    if not fitted:
        raise InputError(
            "`fitted` must be true for 'training-dynamics'; got false. A run says nothing of samples that it did not "
            "train on: choose another method for them."
        )
    dynamics = state.dynamics
    check_fitted(labels, len(dynamics.labels))
    _check_labels(dynamics, labels)
    area = dynamics.margins.astype(np.float64).mean(axis=1)
    statistic = {"aum": lambda: -area, "forgetting": lambda: _forgetting(dynamics), "el2n": lambda: _el2n(dynamics)}
    others = _most_predicted_other(dynamics, labels)
    own = (area >= 0) | (others < 0)  # of dynamics made elsewhere, margins may be below 0 without another prediction
    return Scores(statistic[state.statistic](), np.where(own, labels, others), np.where(own, 0.0, -area))


def describe(state: TrainingDynamicsOptions) -> dict[str, Any]:
    """The statistic and the number of epochs."""
    return {"statistic": state.statistic, "epochs": state.dynamics.margins.shape[1]}


def _check_labels(dynamics: TrainingDynamics, labels: np.ndarray) -> None:
    wrong = np.flatnonzero(dynamics.labels != labels)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"`labels` must be those that the run was trained on; got {labels[row]}, not {dynamics.labels[row]}, "
            f"at row {row}. Score the labels of the run."
        )


def _forgetting(dynamics: TrainingDynamics) -> np.ndarray:
    right = dynamics.predictions == dynamics.labels[:, None]
    events = (right[:, :-1] & ~right[:, 1:]).sum(axis=1)
    return np.where(right.any(axis=1), events, right.shape[1]).astype(np.float64)


def _el2n(dynamics: TrainingDynamics) -> np.ndarray:
    return dynamics.el2n.astype(np.float64).mean(axis=1)


def _most_predicted_other(dynamics: TrainingDynamics, labels: np.ndarray) -> np.ndarray:
    """The class other than the label that most epochs predicted (the lowest among ties); -1 where there is none."""
    ordered = np.sort(dynamics.predictions, axis=1)
    best, times = np.full(len(labels), -1), np.zeros(len(labels), dtype=np.int64)
    run = np.zeros(len(labels), dtype=np.int64)
    for epoch in range(ordered.shape[1]):
        same = ordered[:, epoch] == ordered[:, epoch - 1] if epoch else np.zeros(len(labels), dtype=bool)
        run = np.where(same, run + 1, 1)
        better = (run > times) & (ordered[:, epoch] != labels)
        best, times = np.where(better, ordered[:, epoch], best), np.where(better, run, times)
    return best.astype(np.int64)
