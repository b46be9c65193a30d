"""NumPy files: images or features with their labels; and scikit-learn's digits."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffident.data.columns import other_labels, read_ids, read_labels
from diffident.data.dataset import Dataset
from diffident.data.samples import ReadImageArray, ReadVector
from diffident.errors import InputError, MissingColumnError, did_you_mean
from diffident.files import read_npy, read_npz

_DATA_KEYS = ("features", "images", "x", "X", "data")
_LABEL_KEYS = ("labels", "label", "y", "targets")
_NUM_TRAIN, _NUM_VALIDATION = 1000, 197


def open_npz(path: Path, label_column: str | None) -> Dataset:
    """`images` or `features`, `labels`, and if there: `ids`, `label_names` and other label columns."""
    arrays = read_npz(path, "DATA")
    key = next((key for key in _DATA_KEYS if key in arrays), None)
    if key is None:
        raise InputError(
            f"`DATA` must hold `images` or `features`; {path} holds {', '.join(arrays) or 'nothing'}. Rename one."
        )
    if label_column is not None and label_column not in arrays:
        raise MissingColumnError(
            f"`--label-column` must name an array of {path}; got `{label_column}`. {did_you_mean(label_column, arrays)}"
        )
    values = arrays.pop(key)
    label = label_column or next((name for name in _LABEL_KEYS if name in arrays), "labels")
    labels, ids, names = arrays.pop(label, None), arrays.pop("ids", None), arrays.pop("label_names", None)
    dataset = _from_arrays(values, labels, path, label=label, ids=ids, names=names)
    columns = {
        name: column
        for name, array in arrays.items()
        if array.shape == (len(values),) and (column := other_labels(array.tolist(), dataset.label_names)) is not None
    }
    return replace(dataset, columns=columns, label_column=label)


def open_npy(path: Path) -> Dataset:
    """Images or features; labels from `NAME_labels.npy` or `labels.npy` beside it, if there."""
    beside = [path.with_name(f"{path.stem}_labels.npy"), path.with_name("labels.npy")]
    labels = next((file for file in beside if file.is_file() and file != path), None)
    return _from_arrays(read_npy(path, "DATA"), None if labels is None else read_npy(labels, "labels"), path)


def _from_arrays(
    values: np.ndarray,
    labels: np.ndarray | None,
    path: Path,
    *,
    label: str = "labels",
    ids: np.ndarray | None = None,
    names: np.ndarray | None = None,
) -> Dataset:
    where = str(path)
    modality, read = _reader(values, where)
    for what, array in ((label, labels), ("ids", ids)):
        if array is not None and array.shape != (len(values),):
            raise InputError(
                f"`{what}` must be one per sample, [{len(values)}]; got {list(array.shape)} in {where}. Match them."
            )
    rows = range(len(values))
    classes, known = None, None if names is None else _label_names(names, where)
    if labels is not None:
        classes, known = read_labels(_plain(labels, label, where), label, where, rows=rows, names=known)
    sample_ids = read_ids(
        None if ids is None else _plain(ids, "ids", where), path.stem, len(values), "ids", where, rows
    )
    return Dataset(path.stem, modality, sample_ids, classes, read, fingerprint_of(values), known)


def fingerprint_of(values: np.ndarray) -> str:
    """Hex digest of an array's shape, type and contents."""
    digest = hashlib.sha256(f"{values.shape} {values.dtype}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _plain(array: np.ndarray, name: str, where: str) -> list:
    """The entries as Python numbers and strings."""
    if array.dtype.kind not in "biufUS":
        raise InputError(f"`{name}` must hold numbers or text; got {array.dtype} in {where}. Save it anew.")
    try:
        return (array.astype(str) if array.dtype.kind == "S" else array).tolist()
    except UnicodeDecodeError:
        raise InputError(f"`{name}` must be ASCII or str; got other bytes in {where}. Save it as str.") from None


def _label_names(names: np.ndarray, where: str) -> tuple[str, ...]:
    if names.ndim != 1 or not names.size:
        raise InputError(f"`label_names` must be one per class; got {list(names.shape)} in {where}. Save them as [k].")
    known = tuple(map(str, _plain(names, "label_names", where)))
    if len(set(known)) < len(known):
        twice = next(name for name in known if known.count(name) > 1)
        raise InputError(f"`label_names` must be unique; got {twice!r} twice in {where}. Rename one.")
    return known


def _reader(values: np.ndarray, where: str) -> tuple[str, ReadVector | ReadImageArray]:
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    is_image = values.ndim == 3 or (values.ndim == 4 and values.shape[-1] == 3)
    if not (is_image or values.ndim == 2):
        raise InputError(
            f"`images` must be [n, h, w], [n, h, w, 1] or [n, h, w, 3], `features` [n, d]; got {list(values.shape)} in "
            f"{where}. Transpose the array."
        )
    if not values.size:
        raise InputError(f"`DATA` must hold samples; {where} is of shape {list(values.shape)}. Choose another file.")
    if values.dtype.kind not in "biuf":
        raise InputError(f"`DATA` must hold numbers; got {values.dtype} in {where}. Save it as float32 or uint8.")
    if is_image:
        return "image", ReadImageArray(_pixels(values, where))
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and named below
        vectors = values.astype(np.float32)
    if not np.isfinite(vectors).all():
        row = int((~np.isfinite(vectors).all(axis=1)).argmax())
        raise InputError(f"`features` must be finite; got NaN or infinity at row {row} of {where}. Mend that row.")
    return "vector", ReadVector(vectors)


def _pixels(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype != np.uint8:
        if not (values.min() >= 0 and values.max() <= 1):
            raise InputError(
                f"`images` must be uint8, or floats in [0, 1]; got {values.dtype} beyond that in {where}. Scale it."
            )
        values = np.round(values.astype(np.float32) * 255).astype(np.uint8)
    return np.ascontiguousarray(values)


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
