"""Data sets of your own training loop with something more, or another label, in every sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from diffident.data.dataset import Dataset
from diffident.errors import InputError

LABEL_KEYS = ("label", "labels", "label_ids")


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
        return self._extended(read_sample(self.dataset, position), position)

    def __getitems__(self, positions: list[int]) -> list[Any]:
        """Several samples: data sets that read a batch at once do so."""
        samples = read_samples(self.dataset, positions)
        return [self._extended(sample, position) for sample, position in zip(samples, positions, strict=True)]

    def _extended(self, sample: Any, position: int) -> Any:
        value = self.values[position]
        if isinstance(sample, dict):
            if self.key in sample:
                raise InputError(f"`{self.key}` must be new to the samples; they have it already. Rename theirs.")
            return {**sample, self.key: value}
        return (*sample, value) if isinstance(sample, tuple | list) else (sample, value)


class Relabelled(TorchDataset):
    """A map-style data set some of whose samples have another label.

    The label is the second entry of a tuple, or what a dictionary holds under one of `LABEL_KEYS`; a whole number, also
    as an array or tensor. The first sample that changes is read at once, to see that it is there.

    Args:
        dataset: What is wrapped.
        given: The samples' own labels (n,).
        labels: Those that take their place (n,).

    Raises:
        InputError: the label is not there, or not the given one.
    """

    def __init__(self, dataset: Any, given: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]):
        self.dataset, self.given, self.labels = dataset, given, labels
        changed = np.flatnonzero(given != labels)
        if len(changed):
            self[int(changed[0])]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> Any:
        return self._relabelled(read_sample(self.dataset, position), position)

    def __getitems__(self, positions: list[int]) -> list[Any]:
        """Several samples: data sets that read a batch at once do so."""
        return [self._relabelled(*pair) for pair in zip(read_samples(self.dataset, positions), positions, strict=True)]

    def _relabelled(self, sample: Any, position: int) -> Any:
        given, label = int(self.given[position]), int(self.labels[position])
        if given == label:
            return sample
        place = _place_of_label(sample)
        own = sample[place]
        if _number(own) != given:
            where = f"`{place}`" if isinstance(sample, dict) else "second"
            raise InputError(
                f"`label` of every sample must be {where} and the one that was scored; got {own!r} instead of {given} "
                f"at {position}. Score it again on these labels, or set relabel=False."
            )
        changed = _like(own, label)
        if isinstance(sample, dict):
            return {**sample, place: changed}
        return (sample[0], changed, *sample[2:])


def _place_of_label(sample: Any) -> int | str:
    if isinstance(sample, tuple | list) and len(sample) > 1:
        return 1
    if isinstance(sample, dict):
        for key in LABEL_KEYS:
            if key in sample:
                return key
    raise InputError(
        f"`label` must be in every sample to be changed; got a {type(sample).__name__} without one. Make the samples "
        "pairs of input and label, or set relabel=False."
    )


def _number(label: Any) -> int | None:
    """The class that the label is, or None where it is no whole number."""
    if not isinstance(label, int | np.integer | np.ndarray | Tensor):
        return None
    values = np.asarray(label.tolist() if isinstance(label, Tensor) else label)
    return int(values.item()) if values.dtype.kind in "iu" and values.size == 1 else None


def _like(own: Any, label: int) -> Any:
    """The label in the type and shape of the sample's own."""
    if isinstance(own, Tensor):
        return torch.full_like(own, label)
    return np.full_like(own, label) if isinstance(own, np.ndarray) else type(own)(label)


def read_sample(dataset: Any, position: int) -> Any:
    """The sample at a position; of a data set of ours, with its label where there is one."""
    if isinstance(dataset, Dataset) and dataset.labels is not None:
        return dataset[position], int(dataset.labels[position])
    return dataset[position]


def read_samples(dataset: Any, positions: list[int]) -> list[Any]:
    """The samples at several positions, read at once where the data set can."""
    read_all = getattr(dataset, "__getitems__", None)
    return read_all(positions) if read_all else [read_sample(dataset, position) for position in positions]
