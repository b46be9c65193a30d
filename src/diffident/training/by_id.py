"""Data sets of your own training loop whose samples carry their id or weight, so that no shuffling can mix them up."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset
from torch.utils.data import Dataset as TorchDataset

from diffident.data.dataset import Dataset
from diffident.difficulties.weights import TEMPERATURE, difficulty_weights
from diffident.errors import IdMismatchError, InputError, ShapeError
from diffident.records import DifficultyTable, positions_of
from diffident.storage.difficulty_table import read_difficulty_table


class SamplesWith(TorchDataset):
    """A map-style data set with one more value in every sample; made by `with_ids` and `with_weights`.

    Tuples get it as their last entry, dictionaries under its name; of anything else a pair is made. As the value is in
    the sample itself it survives shuffling, `Subset`, `random_split`, `ConcatDataset`, samplers, workers, padding by
    distributed samplers, and collation.

    Attributes:
        dataset: What is wrapped.
        key: What the value is: `id` or `weight`.
        values: One a sample.
        ids: The samples' ids (n,).
        labels: The samples' labels (n,) where they are known without reading the samples.
    """

    def __init__(
        self,
        dataset: Any,
        key: str,
        values: Sequence[Any] | np.ndarray | Tensor,
        ids: np.ndarray,
        labels: np.ndarray | None,
    ):
        self.dataset, self.key, self.values, self.ids, self.labels = dataset, key, values, ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Any:
        return self._extended(_read(self.dataset, position), position)

    def __getitems__(self, positions: list[int]) -> list[Any]:
        """Several samples: data sets that read a batch at once do so."""
        read_all = getattr(self.dataset, "__getitems__", None)
        samples = read_all(positions) if read_all else [_read(self.dataset, position) for position in positions]
        return [self._extended(sample, position) for sample, position in zip(samples, positions, strict=True)]

    def _extended(self, sample: Any, position: int) -> Any:
        value = self.values[position]
        if isinstance(sample, dict):
            if self.key in sample:
                raise InputError(f"`{self.key}` must be new to the samples; they have it already. Rename theirs.")
            return {**sample, self.key: value}
        return (*sample, value) if isinstance(sample, tuple | list) else (sample, value)


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
) -> SamplesWith:
    """The data set with each sample's weight: `(input, label)` becomes `(input, label, weight)`.

    Args:
        dataset: As in `with_ids`.
        difficulty: Table of `score`, or its file; joined by id, may hold more ids.
        ids: As in `with_ids`.
        normalizer: Of `difficulty_weights`, over the samples of this data set.
        temperature: Of `difficulty_weights`.
        distrust: Whether labels that the table says not to believe are left out, by a weight of 2.

    Raises:
        InputError: as in `with_ids`; or the table was scored on other labels, where the labels are known.
        IdMismatchError: an id is not in the table, or occurs twice.

    Example:
        >>> train = with_weights(ImageFolder("photos", transform), "difficulty.parquet")
        >>> for inputs, labels, weights in DataLoader(train, batch_size=64, shuffle=True):
        ...     loss = criterion(model(inputs), labels, weights)
    """
    known, labels = _ids_and_labels(dataset, ids)
    weights = weights_by_id(
        difficulty,
        known,
        labels,
        name=_name(dataset),
        normalizer=normalizer,
        temperature=temperature,
        distrust=distrust,
    )
    return SamplesWith(dataset, "weight", weights, known, labels)


def weights_by_id(
    difficulty: DifficultyTable | str | Path,
    ids: np.ndarray,
    labels: np.ndarray | None,
    *,
    name: str,
    normalizer: str,
    temperature: float,
    distrust: bool,
) -> Float[Tensor, " n"]:
    """Weights in the order of the ids; a sample that occurs twice, as in an oversampled `Subset`, counts once.

    Raises:
        InputError: the difficulty was scored on other labels.
        IdMismatchError: an id is not in the table.
    """
    if not isinstance(difficulty, DifficultyTable):
        difficulty = read_difficulty_table(difficulty)
    rows = positions_of(difficulty.ids, ids, what=name, where="the difficulty table")
    differ = () if labels is None else (difficulty.labels[rows] != labels).nonzero()[0]
    if len(differ):
        first = ", ".join(repr(str(ids[row])) for row in differ[:3])
        raise InputError(
            f"`difficulty` must be scored on the labels of {name}; {len(differ)} of {len(rows)} differ: first "
            f"{first}. Score it again on these labels."
        )
    once, places = np.unique(rows, return_inverse=True)
    values = torch.from_numpy(np.array(difficulty.difficulty[once], dtype=np.float64))
    disbelief = difficulty.distrust[once] if distrust and difficulty.distrust is not None else None
    return difficulty_weights(values, normalizer, temperature, disbelief)[torch.from_numpy(places)]


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
    given = np.array(list(map(str, ids)), dtype=object)
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
    ids = np.array(list(map(str, dataset["id"])), dtype=object)
    check_unique(ids, _name(dataset))
    return ids, None


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


def _read(dataset: Any, position: int) -> Any:
    if isinstance(dataset, Dataset) and dataset.labels is not None:
        return dataset[position], int(dataset.labels[position])
    return dataset[position]


def _name(dataset: Any) -> str:
    return getattr(dataset, "name", None) or f"a {type(dataset).__name__}"
