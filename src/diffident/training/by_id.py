"""Ids and what training learns of every sample, joined to data sets so that no shuffling can mix them up."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, IterableDataset, Subset

from diffident.data.dataset import Dataset
from diffident.difficulties.targets import Targets, training_targets
from diffident.difficulties.weights import TEMPERATURE
from diffident.errors import IdMismatchError, InputError, ShapeError
from diffident.records import DifficultyTable, positions_of
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.training.wrappers import LABEL_KEYS, Relabelled, SamplesWith


def with_ids(dataset: Any, ids: Iterable[Any] | None = None) -> SamplesWith:
    """The data set with each sample's id: `(input, label)` becomes `(input, label, id)`.

    Args:
        dataset: Map-style; a data set of `open_dataset` counts as pairs of input and label.
        ids: One a sample, unique; those that `extract` and `score` saw. Not needed where they are known: data sets of
            `open_dataset`, torchvision's `ImageFolder` (`class/name.png`), Hugging Face data sets with a column `id`,
            and what `Subset`, `random_split` and `ConcatDataset` make of these.

    Raises:
        InputError: no ids are known, or the data set has no length or positions.
        IdMismatchError: an id occurs twice.

    Example:
        >>> with_ids(TensorDataset(torch.zeros(2, 3), torch.tensor([0, 1])), ["a", "b"])[1]
        (tensor([0., 0., 0.]), tensor(1), 'b')
    """
    known, labels = _ids_and_labels(dataset, ids)
    return SamplesWith(dataset, "id", known, known, labels)


def with_weights(
    dataset: Any,
    difficulty: DifficultyTable | str | Path,
    *,
    ids: Iterable[Any] | None = None,
    normalizer: str = "rank",
    temperature: float = TEMPERATURE,
    distrust: bool = True,
    relabel: bool = False,
) -> SamplesWith:
    """The data set with each sample's weight: `(input, label)` becomes `(input, label, weight)`.

    Args:
        dataset: As in `with_ids`.
        difficulty: Table of `score`, or its file; joined by id, may hold more ids.
        ids: As in `with_ids`.
        normalizer: Of `difficulty_weights`, over the samples of this data set.
        temperature: Of `difficulty_weights`.
        distrust: Whether samples whose labels the table does not believe are left out, by a weight of 2.
        relabel: Whether these samples learn the table's likely label instead, as in `training_targets`: better for
            networks that must find their features in images (docs/method.md). The label is the second entry of tuples,
            or `label`, `labels` or `label_ids` of dictionaries.

    Raises:
        InputError: as in `with_ids`; or the table was scored on other labels, where the labels are known.
        IdMismatchError: an id is not in the table, or occurs twice.

    Example:
        >>> train = with_weights(ImageFolder("photos", transform), "difficulty.parquet")
        >>> for inputs, labels, weights in DataLoader(train, batch_size=64, shuffle=True):
        ...     loss = criterion(model(inputs), labels, weights)
    """
    known, labels = _ids_and_labels(dataset, ids)
    targets = targets_by_id(
        difficulty,
        known,
        labels,
        name=_name(dataset),
        normalizer=normalizer,
        temperature=temperature,
        distrust=distrust,
        relabel=relabel,
    )
    if targets.changed.any():
        dataset, labels = Relabelled(dataset, targets.given, targets.labels), targets.labels
    return SamplesWith(dataset, "weight", targets.weights, known, labels)


def targets_by_id(
    difficulty: DifficultyTable | str | Path,
    ids: np.ndarray,
    labels: np.ndarray | None,
    *,
    name: str,
    normalizer: str,
    temperature: float,
    distrust: bool,
    relabel: bool,
    soft_targets: float = 0.0,
) -> Targets:
    """Weights and labels in the order of the ids.

    A sample that occurs twice, as in an oversampled `Subset`, counts once.

    Raises:
        InputError: the difficulty was scored on other labels.
        IdMismatchError: an id is not in the table.
    """
    if not isinstance(difficulty, DifficultyTable):
        difficulty = read_difficulty_table(difficulty)
    rows = positions_of(difficulty.ids, ids, what=name, where="the difficulty table")
    given = difficulty.labels[rows]
    differ = () if labels is None else (given != labels).nonzero()[0]
    if len(differ):
        first = ", ".join(repr(str(ids[row])) for row in differ[:3])
        raise InputError(
            f"`difficulty` must be scored on the labels of {name}; {len(differ)} of {len(rows)} differ: first "
            f"{first}. Score it again on these labels."
        )
    once, places = np.unique(rows, return_inverse=True)
    targets = training_targets(
        difficulty.take(once),
        normalizer=normalizer,
        temperature=temperature,
        distrust=distrust,
        relabel=relabel,
        soft_targets=soft_targets,
    )
    again = torch.from_numpy(places)
    soft = None if targets.soft is None else targets.soft.rows(again)
    return Targets(targets.weights[again], given, targets.labels[places], soft)


def check_unique(ids: np.ndarray, name: str) -> None:
    """Raise `IdMismatchError` if an id occurs twice."""
    counts = Counter(map(str, ids))
    if len(counts) < len(ids):
        twice = [sample for sample, count in counts.items() if count > 1]
        raise IdMismatchError(
            f"`ids` of {name} must be unique; {len(twice)} occur more than once: first {twice[0]!r}. "
            f"Give every sample its own id."
        )


def _ids_and_labels(dataset: Any, ids: Iterable[Any] | None) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InputError(
            f"`dataset` must have a length and positions; got {type(dataset).__name__}. Put the id into its samples."
        )
    if ids is None:
        return _known(dataset)
    given = np.array(list(map(str, ids.tolist() if hasattr(ids, "tolist") else ids)), dtype=object)  # type: ignore[attr-defined]
    if len(given) != len(dataset):
        raise ShapeError(f"`ids` must have one entry per sample; got {len(given)} for {len(dataset)}. Match them.")
    check_unique(given, _name(dataset))
    return given, getattr(dataset, "labels", None) if isinstance(dataset, Dataset | SamplesWith) else None


def _known(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The ids that a data set has of its own, and its labels where they can be had without reading samples."""
    for fits, read in _KNOWN:
        if fits(dataset):
            return read(dataset)
    raise InputError(
        f"`ids` must be given for a data set without ids of its own; got {_name(dataset)}. "
        f"Pass ids=, those that the difficulty was scored with."
    )


def _of_own(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if isinstance(dataset, Dataset):  # the others were checked when they were made
        check_unique(dataset.ids, _name(dataset))
    return dataset.ids, dataset.labels


def _of_subset(dataset: Subset) -> tuple[np.ndarray, np.ndarray | None]:
    ids, labels = _known(dataset.dataset)
    rows = np.asarray(dataset.indices, dtype=np.int64)
    return ids[rows], None if labels is None else labels[rows]


def _of_parts(dataset: ConcatDataset) -> tuple[np.ndarray, np.ndarray | None]:
    ids, labels = zip(*map(_known, dataset.datasets), strict=True)
    # Within a part an id may come twice, in an oversampled subset; the same id in two parts may be two samples.
    check_unique(np.concatenate([np.array(list(set(part)), dtype=object) for part in ids]), _name(dataset))
    whole = [part for part in labels if part is not None]
    return np.concatenate(ids), np.concatenate(whole) if len(whole) == len(labels) else None


def _of_folder(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    root = Path(dataset.root)
    paths = [Path(path).relative_to(root).as_posix() for path, _ in dataset.samples]
    return np.array(paths, dtype=object), np.array([label for _, label in dataset.samples], dtype=np.int64)


def _of_id_column(dataset: Any) -> tuple[np.ndarray, np.ndarray | None]:
    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset  # numbers, not tensors
    ids = np.array(list(map(str, plain["id"])), dtype=object)
    check_unique(ids, _name(dataset))
    column = next((name for name in LABEL_KEYS if name in plain.column_names), None)
    labels = None if column is None else np.asarray(plain[column])
    return ids, labels if labels is not None and labels.dtype.kind in "iu" else None


def _is_folder(dataset: Any) -> bool:
    from torchvision.datasets import DatasetFolder

    return isinstance(dataset, DatasetFolder)


_KNOWN: tuple[tuple[Callable[[Any], bool], Callable[[Any], tuple[np.ndarray, np.ndarray | None]]], ...] = (
    (lambda dataset: isinstance(dataset, Dataset | SamplesWith), _of_own),
    (lambda dataset: isinstance(dataset, Subset), _of_subset),
    (lambda dataset: isinstance(dataset, ConcatDataset), _of_parts),
    (_is_folder, _of_folder),
    (lambda dataset: "id" in (getattr(dataset, "column_names", None) or ()), _of_id_column),
)


def _name(dataset: Any) -> str:
    return getattr(dataset, "name", None) or f"a {type(dataset).__name__}"
