"""Frozen records that pass between the stages. They hold data and shapes; the work on them is elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.errors import IdMismatchError, InputError, ShapeError


@dataclass(frozen=True)
class Features:
    """Encoder outputs of a dataset, in the dataset's order.

    Attributes:
        ids: Stable sample ids, unique; str objects (n,).
        values: Encoder outputs (n, d), float16 or float32.
        labels: Class of each sample (n,), or None where the dataset has no labels.
        label_names: Name of each class, or None where the labels are plain integers.
        encoder: The encoder's name, for example `timm:resnet18`, or `unknown`.
        columns: Other label columns of the dataset by name, each int64 (n,).
        column_names: Names of the classes of those other label columns that have names of their own.
        label_column: The name of the column that the labels are from.
    """

    ids: np.ndarray
    values: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"] | None
    label_names: tuple[str, ...] | None = None
    encoder: str = "unknown"
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    column_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_column: str = "label"

    def __post_init__(self):
        if len(self.ids) != len(self.values):
            raise ShapeError(f"`ids` must have one entry per feature row; got {len(self.ids)} for {len(self.values)}.")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class DifficultyTable:
    """The columns of `difficulty.parquet`, in the dataset's order.

    Attributes:
        ids: Stable sample ids (n,).
        labels: The given labels, int64 (n,).
        difficulty: Relative squared distance r or another method's score, float64 (n,); higher is harder.
        rank: Rank of the difficulty scaled to [0, 1]; ties share their mean rank.
        nearest_labels: Class of least distance, int64 (n,).
        margin: Difficulty minus the least over classes, >= 0; above 0 where another class is nearer.
        metadata: Method, encoder, shrinkage, condition number, rank, counts: plain JSON values.
        label_names: Name of each class, or None.
        distrust: How little the label is to be believed, float64 (n,) in [0, 1]; None where the method does not say.
        likely_labels: Most probable class, common ones the more so, int64 (n,); None where the method does not say.
        candidates: The most probable classes, int64 (n, m), the label among them; None where the method does not say.
        candidate_probs: Probability of each, whatever the label says, float32 (n, m); of a class that is named twice
            the sum counts.
    """

    ids: np.ndarray
    labels: np.ndarray
    difficulty: np.ndarray
    rank: np.ndarray
    nearest_labels: np.ndarray
    margin: np.ndarray
    metadata: dict = field(default_factory=dict)
    label_names: tuple[str, ...] | None = None
    distrust: np.ndarray | None = None
    likely_labels: np.ndarray | None = None
    candidates: np.ndarray | None = None
    candidate_probs: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "DifficultyTable":
        """Some of the samples, in the order of the rows; ranks stay those among all."""
        columns = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **columns)


@dataclass(frozen=True)
class Predictions:
    """A model's outputs on a dataset, in the dataset's order.

    Attributes:
        ids: Stable sample ids (n,).
        logits: Unnormalised log-probabilities (n, c), float32, or float64 where a file holds that.
        labels: Class of each sample, int64 (n,), or None for out-of-distribution data.
        label_names: Name of each class, or None.
    """

    ids: np.ndarray
    logits: Float[Tensor, "n c"]
    labels: Int[Tensor, " n"] | None = None
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % bootstrap interval; NaN where it is undefined (an AUROC with one class only)."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval: without resamples there is none."""
        return not math.isnan(self.low)


@dataclass(frozen=True)
class DifficultyGroup:
    """Metrics of the samples of one range of difficulty.

    Attributes:
        low: Least difficulty in the group.
        high: Greatest difficulty in the group; groups do not overlap and tied samples are in one group.
        num_samples: Number of samples.
        metrics: Lower-case key to `Estimate`; NaN where undefined in the group.
    """

    low: float
    high: float
    num_samples: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class ClassGroup:
    """Metrics of the samples of one class, by their label.

    Attributes:
        index: The label.
        name: The class's name, or None where the labels are plain integers.
        num_samples: Number of samples.
        metrics: Lower-case key to `Estimate`; NaN where undefined in the group.
    """

    index: int
    name: str | None
    num_samples: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class Evaluation:
    """Every metric of one set of predictions. All values are fractions or nats, never per cent.

    Attributes:
        metrics: Lower-case key to `Estimate`: accuracy, nll, brier, ece, ...
        ood: Name of an out-of-distribution set, then auroc and fpr95; out-of-distribution is the positive class.
        num_samples: Number of labelled samples.
        num_classes: Number of classes.
        by_difficulty: Groups of about as many samples each, easiest first; empty where no difficulty was given.
        by_class: Classes with at least one sample, by label; empty where not asked for.
        ood_detectors: Name of an out-of-distribution set, then of a detector, then metrics as in `ood`.
        calibrated: Name of a calibrator, then `metrics` of the predictions after it.
        conformal: Name of a method of prediction sets, then coverage, mean_size, empty and singletons.
        abstention: Target error rate as text, then threshold, coverage and selective_risk above the threshold.
    """

    metrics: dict[str, Estimate]
    num_samples: int
    num_classes: int
    ood: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    by_difficulty: tuple[DifficultyGroup, ...] = ()
    by_class: tuple[ClassGroup, ...] = ()
    ood_detectors: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    calibrated: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    conformal: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    abstention: dict[str, dict[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suspects:
    """Samples of an audit, hardest first.

    Attributes:
        table: The difficulty of every sample.
        order: Row numbers of the table, hardest first (n,).
        suspect: Whether another class is nearer than the given label's (n,), in table order.
        probability_wrong: Probability that the given label is wrong (n,), in table order; None if not estimated.
        wrong_share: Share of labels that are wrong, with its interval; None if not estimated.
    """

    table: DifficultyTable
    order: np.ndarray
    suspect: Bool[np.ndarray, " n"]
    probability_wrong: np.ndarray | None = None
    wrong_share: Estimate | None = None


def tensor_of(values: Tensor | np.ndarray, name: str) -> Tensor:
    """A tensor as it is, an array as a tensor, not copied where that can be helped.

    Raises:
        InputError: anything but numbers.
    """
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if array.dtype.kind not in "iufb":
        raise InputError(f"`{name}` must be an array of numbers; got dtype {array.dtype}. Convert it first.")
    if array.dtype.kind == "u":
        array = array.astype(np.int64)
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def first_repeated(ids: Sequence[Any] | np.ndarray) -> tuple[int, int] | None:
    """Places of the first entry that occurs again, and of its last occurrence; None where all differ."""
    entries = ids.tolist() if isinstance(ids, np.ndarray) else ids
    last = dict(zip(entries, range(len(entries)), strict=True))
    if len(last) == len(entries):
        return None
    return next((place, last[entry]) for place, entry in enumerate(entries) if last[entry] != place)


def positions_of(ids: np.ndarray, wanted: np.ndarray, *, what: str, where: str) -> np.ndarray:
    """Position in `ids` of every entry of `wanted`: the one join by id.

    Args:
        ids: The ids to look in (n,); unique.
        wanted: The ids to find (m,).
        what: What `wanted` is, for the error.
        where: What `ids` belongs to, for the error.

    Returns:
        int64 (m,) with `ids[result] == wanted`.

    Raises:
        IdMismatchError: an id is missing or occurs twice; names the first three.
    """
    known, asked = list(map(str, ids.tolist())), list(map(str, wanted.tolist()))
    positions = dict(zip(known, range(len(known)), strict=True))
    if len(positions) != len(ids):
        twice = sorted({sample for place, sample in enumerate(known) if positions[sample] != place})
        shown = ", ".join(map(repr, twice[:3]))
        raise IdMismatchError(
            f"`ids` of {where} must be unique; {len(twice)} occur twice: {shown}. Remove one of each."
        )
    if known == asked:
        return np.arange(len(known), dtype=np.int64)
    found = list(map(positions.get, asked))
    if None in found:
        missing = [sample for sample, position in zip(asked, found, strict=True) if position is None]
        shown = ", ".join(repr(m) for m in missing[:3])
        raise IdMismatchError(
            f"{len(missing)} of {len(wanted)} ids of {what} are not in {where}: first {shown}. "
            f"Make {where} from the same dataset."
        )
    return np.array(found, dtype=np.int64)
