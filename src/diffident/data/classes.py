"""Labels of one data set as classes of another."""

from collections import Counter
from dataclasses import replace

import numpy as np

from diffident.data.dataset import Dataset
from diffident.errors import InputError, did_you_mean

_MOST_SHOWN = 20


def in_classes_of(dataset: Dataset, num_classes: int, names: tuple[str, ...] | None, where: str) -> Dataset:
    """The data set with the numbers that its labels have among the classes of `where`; classes are joined by name.

    Args:
        dataset: May lack classes, or have their names in another order; without labels it is returned as it is.
        num_classes: Of `where`.
        names: Of its classes, or None where they are numbers.
        where: What has these classes, for the errors.

    Raises:
        InputError: a label that is not among the classes, or whose name two of them have; or classes that are numbers
            here and names there.
    """
    if dataset.labels is None:
        return dataset
    if (dataset.label_names is None) != (names is None):  # which is which nobody said
        own, others = ("numbers", "names") if dataset.label_names is None else ("names", "numbers")
        raise InputError(
            f"`labels` of {dataset.name} must be {others} of classes, as those of {where} are; got {own}. Write all "
            "labels in one way."
        )
    if dataset.label_names is None or names is None or tuple(dataset.label_names) == tuple(names):
        _check_range(dataset, num_classes, where)
        return dataset
    _check_range(dataset, len(dataset.label_names), f"{dataset.name} itself")
    return _joined(dataset, tuple(dataset.label_names), tuple(names), where)


def _check_range(dataset: Dataset, num_classes: int, where: str) -> None:
    labels = np.asarray(dataset.labels)
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"`labels` must be in [0, {num_classes}), the classes of {where}; got {int(labels[row])} at "
            f"{str(dataset.ids[row])!r} of {dataset.name}. Re-index them, or leave them out: predict --no-labels."
        )


def _joined(dataset: Dataset, own: tuple[str, ...], names: tuple[str, ...], where: str) -> Dataset:
    given, counts = np.asarray(dataset.labels), Counter(names)
    numbers = {name: number for number, name in enumerate(names) if counts[name] == 1}
    labels = np.array([numbers.get(name, -1) for name in own], dtype=np.int64)[given]
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        name, sample = own[int(given[row])], repr(str(dataset.ids[row]))
        if name in counts:
            raise InputError(
                f"`label_names` must be unique to be joined by; {where} has {name!r} twice, which {sample} of "
                f"{dataset.name} is. Give both the same list of names."
            )
        hint = did_you_mean(name, names)
        if len(names) > _MOST_SHOWN:
            hint = hint.split("Choices:")[0]
        raise InputError(
            f"`labels` of {dataset.name} must be classes of {where}; got {name!r} at {sample}. {hint} Of data with "
            "other classes leave the labels out: predict --no-labels."
        )
    return replace(dataset, labels=labels, label_names=names)
