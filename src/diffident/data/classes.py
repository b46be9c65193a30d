"""Labels of one data set as classes of another."""

from dataclasses import replace

import numpy as np

from diffident.data.dataset import Dataset
from diffident.errors import InputError, did_you_mean


def in_classes_of(dataset: Dataset, num_classes: int, names: tuple[str, ...] | None, where: str) -> Dataset:
    """The data set with the numbers that its labels have among the classes of `where`; classes are joined by name.

    Args:
        dataset: May lack classes, or have their names in another order; without labels it is returned as it is.
        num_classes: Of `where`.
        names: Of its classes, or None where they are numbers.
        where: What has these classes, for the errors.

    Raises:
        InputError: a label that is not among the classes, or classes that are numbers here and names there.
    """
    if dataset.labels is None:
        return dataset
    if (dataset.label_names is None) != (names is None):  # which is which nobody said
        own, others = ("numbers", "names") if dataset.label_names is None else ("names", "numbers")
        raise InputError(
            f"`labels` of {dataset.name} must be {others} of classes, as those of {where} are; got {own}. Write all "
            "labels in one way."
        )
    if dataset.label_names is not None and names is not None and tuple(dataset.label_names) != tuple(names):
        dataset = _joined(dataset, tuple(names), where)
    labels = np.asarray(dataset.labels)
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"`labels` must be in [0, {num_classes}), the classes of {where}; got {int(labels[row])} at "
            f"{str(dataset.ids[row])!r} of {dataset.name}. Re-index them, or drop the labels."
        )
    return dataset


def _joined(dataset: Dataset, names: tuple[str, ...], where: str) -> Dataset:
    given, known = np.asarray(dataset.labels), tuple(dataset.label_names or ())
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers.get(name, -1) for name in known], dtype=np.int64)[given]
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        name = known[int(given[row])]
        raise InputError(
            f"`labels` of {dataset.name} must be classes of {where}; got {name!r} at {str(dataset.ids[row])!r}. "
            f"{did_you_mean(name, names)[:200]}"
        )
    return replace(dataset, labels=labels, label_names=names)
