"""NumPy files: images or features with their labels; and scikit-learn's digits."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffident.data.columns import read_ids, read_labels
from diffident.data.dataset import Dataset
from diffident.data.tables import ReadVector
from diffident.errors import InputError, did_you_mean

_DATA_KEYS = ("features", "images", "x", "X", "data")
_LABEL_KEYS = ("labels", "label", "y", "targets")
_NUM_TRAIN, _NUM_VALIDATION = 1000, 197


@dataclass(frozen=True)
class ReadImageArray:
    """The image at a position, L or RGB."""

    values: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        return Image.fromarray(self.values[position])


def open_npz(path: Path, label_column: str | None) -> Dataset:
    """`images` or `features`, `labels`, and if there: `ids`, `label_names` and other label columns."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError) as error:
        raise InputError(
            f"`DATA` must be a readable .npz; {path} is not: {error}. Write it anew with np.savez."
        ) from None
    key = next((key for key in _DATA_KEYS if key in arrays), None)
    if key is None:
        raise InputError(
            f"`DATA` must hold `images` or `features`; {path} holds {', '.join(arrays) or 'nothing'}. Rename one."
        )
    if label_column is not None and label_column not in arrays:
        raise InputError(
            f"`--label-column` must name an array of {path}; got `{label_column}`. {did_you_mean(label_column, arrays)}"
        )
    label = label_column or next((name for name in _LABEL_KEYS if name in arrays), None)
    labels = None if label is None else arrays[label]
    names = tuple(map(str, arrays["label_names"])) if "label_names" in arrays else None
    columns = {
        name: array.astype(np.int64)
        for name, array in arrays.items()
        if name not in (key, label) and array.shape == (len(arrays[key]),) and array.dtype.kind in "iu"
    }
    ids = arrays["ids"].tolist() if "ids" in arrays else None
    return _from_arrays(arrays[key], labels, path, ids=ids, names=names, columns=columns, label=label or "labels")


def open_npy(path: Path) -> Dataset:
    """Images or features; labels from `NAME_labels.npy` or `labels.npy` beside it, if there."""
    beside = [path.with_name(f"{path.stem}_labels.npy"), path.with_name("labels.npy")]
    labels = next((np.load(file, allow_pickle=False) for file in beside if file.exists() and file != path), None)
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError(
            f"`DATA` must be a readable .npy; {path} is not: {error}. Write it anew with np.save."
        ) from None
    return _from_arrays(values, labels, path)


def _from_arrays(values, labels, path: Path, *, ids=None, names=None, columns=None, label="labels") -> Dataset:
    where = str(path)
    if not len(values):
        raise InputError(f"`DATA` must hold samples; {where} has none. Choose another file.")
    for what, array in (("labels", labels), ("ids", ids)):
        if array is not None and len(array) != len(values):
            raise InputError(
                f"`{what}` must be one per sample; got {len(array)} for {len(values)} in {where}. Match them."
            )
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    classes = None
    if labels is not None:
        classes, names = read_labels(labels.tolist(), label, where, names=names)
    modality, read = _reader(values, where)
    sample_ids = read_ids(ids, path.stem, len(values), "ids", where)
    return Dataset(path.stem, modality, sample_ids, classes, read, digest.hexdigest(), names, columns or {})


def _reader(values: np.ndarray, where: str):
    if values.ndim == 2:
        vectors = values.astype(np.float32)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise InputError(f"`features` must be finite; got NaN or infinity at row {row} of {where}. Mend that row.")
        return "vector", ReadVector(vectors)
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[-1] != 3):
        raise InputError(
            f"`images` must be [n, h, w], [n, h, w, 1] or [n, h, w, 3], `features` [n, d]; got {list(values.shape)} in "
            f"{where}. Transpose the array."
        )
    if values.dtype != np.uint8:
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"`images` must be uint8, or floats in [0, 1]; got {values.dtype} beyond that in {where}. Scale it."
            )
        values = np.round(values * 255).astype(np.uint8)
    return "image", ReadImageArray(np.ascontiguousarray(values))


def open_digits(split: str | None) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8: `train` (1,000), `validation` (197), `test` (600), or all."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch: Any = load_digits()
    rows = np.arange(len(bunch.target))
    train, rest = train_test_split(rows, train_size=_NUM_TRAIN, stratify=bunch.target, random_state=0)
    validation, test = train_test_split(rest, train_size=_NUM_VALIDATION, stratify=bunch.target[rest], random_state=0)
    splits = {None: rows, "train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}
    if split not in splits:
        raise InputError(
            f"`digits` must have a known split; got `{split}`. {did_you_mean(str(split), [s for s in splits if s])}"
        )
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)
    ids = np.array([f"digits:{row:04d}" for row in rows], dtype=object)
    fingerprint = hashlib.sha256(images.tobytes()).hexdigest()
    names = tuple(str(digit) for digit in range(10))
    labels = bunch.target.astype(np.int64)
    name = "digits" if split is None else f"digits:{split}"
    dataset = Dataset(name, "image", ids, labels, ReadImageArray(images), fingerprint, names)
    return dataset if split is None else dataset.select(splits[split])
