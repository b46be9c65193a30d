"""From columns to a data set: which are labels, ids and samples, whatever file they come from."""

import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diffident.data.columns import (
    ID_NAMES,
    IMAGE_NAMES,
    LABEL_NAMES,
    TEXT_NAMES,
    find_column,
    is_missing,
    other_labels,
    read_ids,
    read_labels,
)
from diffident.data.dataset import Dataset
from diffident.data.samples import ReadImageBytes, ReadImageFile, ReadText, ReadVector
from diffident.errors import DataWarning, InputError

Column = pa.ChunkedArray | list


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns to use; None is the usual name."""

    label_column: str | None = None
    text_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None


@dataclass(frozen=True)
class Table:
    """Columns and where they come from.

    Attributes:
        columns: Arrow columns, or lists of what JSON holds; all of one length, at least one.
        name: The data set's name; ids that the table lacks begin with it.
        where: The file, for errors.
        folder: Where relative image paths start.
        fingerprint: Digest of the contents.
        rows: Row number of each entry, for errors.
        class_names: Names of the classes of the columns that have some.
    """

    columns: dict[str, Column]
    name: str
    where: str
    folder: Path
    fingerprint: str
    rows: Sequence[int]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def cells(self, column: str) -> list:
        """The entries of a column as Python objects."""
        values = self.columns[column]
        return values if isinstance(values, list) else values.to_pylist()


def open_table(table: Table, choice: ColumnChoice) -> Dataset:
    """A data set from columns: text, images, or else the vectors of the numeric columns.

    Raises:
        InputError: a column that is not there or does not hold what it should; says which, where and how to mend it.
    """
    if not len(table.rows):
        raise InputError(f"`DATA` must hold samples; {table.where} has none. Choose another file or split.")
    label, text, image, identity = _choose(table, choice)
    used = {column for column in (label, text, image, identity) if column is not None}
    cells = None if identity is None else table.cells(identity)
    ids = read_ids(cells, table.name, len(table.rows), identity or "id", table.where, table.rows)
    labels, names = _labels(table, label)
    features: list[str] = []
    if text is not None:
        modality, read = "text", ReadText(_texts(table, text))
    elif image is not None:
        modality, read = "image", _image_reader(table, image, ids)
    else:
        vectors = _vectors(table, [column for column in table.columns if column not in used])
        features, modality, read = list(vectors), "vector", ReadVector(np.stack(list(vectors.values()), axis=1))
    others = _other_labels(table, used | set(features), names)
    fingerprint = _fingerprint(table, [modality, text, image, identity, features], read)
    own_names = {column: table.class_names[column] for column in others if column in table.class_names}
    return Dataset(table.name, modality, ids, labels, read, fingerprint, names, others, own_names, label or "label")


def _choose(table: Table, choice: ColumnChoice) -> tuple[str | None, str | None, str | None, str | None]:
    if choice.text_column is not None and choice.image_column is not None:
        raise InputError("`--text-column` and `--image-column` must not be used together; leave one out.")
    columns, where = list(table.columns), table.where
    named = {name for name in vars(choice).values() if name is not None}
    free = [column for column in columns if column not in named]

    def find(wanted: str | None, usual: tuple[str, ...], what: str) -> str | None:
        return find_column(free if wanted is None else columns, wanted, usual, what, where)

    label = find(choice.label_column, LABEL_NAMES, "label")
    text = None if choice.image_column is not None else find(choice.text_column, TEXT_NAMES, "text")
    image = None if text is not None else find(choice.image_column, IMAGE_NAMES, "image")
    return label, text, image, find(choice.id_column, ID_NAMES, "id")


def _labels(table: Table, column: str | None) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if column is None:
        return None, None
    values, rows, places = _different_cells(table, column)
    names = table.class_names.get(column)
    if names is not None and all(value == -1 for value in values):
        return None, names  # the convention of Hugging Face's for a split whose labels are kept back
    if names is None:
        names = _shared_names(table, values)
    labels, names = read_labels(values, column, table.where, rows=rows, names=names)
    return labels[places], names


def _different_cells(table: Table, column: str) -> tuple[list, Sequence[int], Any]:
    """The different cells of a column, the first row of each, and the place of every row's cell among them.

    They are told apart where Arrow has them as words or whole numbers; else every cell stands for itself.
    """
    values = table.columns[column]
    if isinstance(values, list) or not (pa.types.is_integer(values.type) or _is_text(values.type)):
        return table.cells(column), table.rows, slice(None)
    encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    places = encoded.indices.to_numpy()
    first = np.zeros(len(encoded.dictionary), dtype=np.int64)
    first[places[::-1]] = np.arange(len(places))[::-1]  # of several equal cells the first is written last
    return encoded.dictionary.to_pylist(), [table.rows[row] for row in first.tolist()], places


def _shared_names(table: Table, values: list) -> tuple[str, ...] | None:
    """The class names of the published label column, where another column of whole numbers fits them."""
    published = find_column(list(table.class_names), None, LABEL_NAMES, "label", table.where)
    names = table.class_names[published] if published is not None else next(iter(table.class_names.values()), None)
    fits = names is not None and all(type(value) is int and 0 <= value < len(names) for value in values)
    return names if fits else None


def _other_labels(table: Table, used: set[str], names: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    found = {}
    for column, values in table.columns.items():
        kind = None if isinstance(values, list) else values.type
        if column in used or (kind is not None and not _may_be_label(kind)):
            continue
        labels = other_labels(table.cells(column), names)
        if labels is not None:
            found[column] = labels
    return found


def _may_be_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_integer(kind) or _is_text(kind)


def _texts(table: Table, column: str) -> tuple[str, ...]:
    """Texts; an empty one is a text (a CSV cannot say otherwise), a null is none."""
    values = table.cells(column)
    if set(map(type, values)) == {str}:
        return tuple(values)
    for value, row in zip(values, table.rows, strict=True):
        if not isinstance(value, str | int | float) or value != value:
            got = "none" if value is None or value != value else f"a {type(value).__name__}"
            raise InputError(
                f"`{column}` must have a text in every row; got {got} at row {row} of {table.where}. Fill it in."
            )
    return tuple(map(str, values))


def _image_reader(table: Table, column: str, ids: np.ndarray) -> ReadImageBytes | ReadImageFile:
    values = table.columns[column]
    kind = pa.string() if isinstance(values, list) else values.type
    if not _is_text(kind):
        return _bytes_reader(table, column, ids)
    paths = table.cells(column)
    for path, row in zip(paths, table.rows, strict=True):
        if is_missing(path) or not isinstance(path, str):
            got = "none" if is_missing(path) else f"a {type(path).__name__}"
            raise InputError(
                f"`{column}` must have a path in every row; got {got} at row {row} of {table.where}. Fill it in."
            )
    return ReadImageFile(table.folder, tuple(paths), ids)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _bytes_reader(table: Table, column: str, ids: np.ndarray) -> ReadImageBytes:
    """Images as bytes, or as the struct of bytes and path that `datasets` writes."""
    values: Any = table.columns[column]
    parts = {"bytes": values}
    if pa.types.is_struct(values.type):
        parts = dict(zip([entry.name for entry in values.type], values.flatten(), strict=True))
    nothing = pa.chunked_array([pa.nulls(len(ids))])
    contents, paths = parts.get("bytes", nothing), parts.get("path", nothing)
    if not (_is_bytes(contents.type) and _is_text(paths.type) and {"bytes", "path"} & parts.keys()):
        raise InputError(
            f"`{column}` must hold images or their paths; got {values.type} in {table.where}. Choose another."
        )
    missing = contents.is_null().to_numpy() & paths.is_null().to_numpy()
    if missing.any():
        row = table.rows[int(missing.argmax())]
        raise InputError(f"`{column}` must have an image in every row; got none at row {row} of {table.where}. Add it.")
    return ReadImageBytes(contents, paths, table.folder, ids)


def _vectors(table: Table, columns: list[str]) -> dict[str, np.ndarray]:
    """The numeric columns, float32 each; further label columns and row numbers of pandas are no features."""
    found, left_out = {}, []
    for column in columns:
        if "label" in column.lower():
            continue
        is_index = column in ("", "Unnamed: 0") or column.startswith("__index_level_")
        numbers = None if is_index else _numbers(table, column)
        if numbers is None:
            left_out.append(f"`{column}`")
        else:
            found[column] = numbers
    if not found:
        raise InputError(
            f"`DATA` must have a text, image or numeric column; {table.where} has the columns "
            f"{', '.join(table.columns) or 'none'}. Name one with --text-column or --image-column."
        )
    if left_out:
        warnings.warn(f"no numbers in {', '.join(left_out)} of {table.where}: left out.", DataWarning, stacklevel=2)
    return found


def _numbers(table: Table, column: str) -> np.ndarray | None:
    """The column as float32, or None where no entry is a number."""
    values: Any = table.columns[column]
    if not isinstance(values, list) and _are_numbers(values):
        numbers = values.to_numpy().astype(np.float64)
    else:
        values = table.cells(column)
        try:
            numbers = np.array(list(map(float, values)))
        except (TypeError, ValueError, OverflowError):
            numbers = np.array([_number(value) for value in values])
    unknown = np.isnan(numbers)
    if unknown.all():
        return None
    if unknown.any():
        row = int(unknown.argmax())
        cell = values[row].as_py() if isinstance(values, pa.ChunkedArray) else values[row]
        missing = is_missing(cell)
        raise InputError(
            f"`{column}` must have a number in every row; got {'none' if missing else repr(cell)[:40]} at row "
            f"{table.rows[row]} of {table.where}. {'Fill it in' if missing else 'Mend it, or remove the column'}."
        )
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and named below
        narrow = numbers.astype(np.float32)
    if not np.isfinite(narrow).all():
        row = int((~np.isfinite(narrow)).argmax())
        raise InputError(
            f"`{column}` must be finite; got {numbers[row]:g} at row {table.rows[row]} of {table.where}. Mend it."
        )
    return narrow


def _are_numbers(values: pa.ChunkedArray) -> bool:
    return not values.null_count and (pa.types.is_floating(values.type) or pa.types.is_integer(values.type))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _fingerprint(table: Table, columns: list, read: Any) -> str:
    """Digest of the contents, of the columns that are samples, and of the sizes and times of image files."""
    stats = []
    if isinstance(read, ReadImageFile):
        for path in read.paths:
            try:
                found = os.stat(table.folder / path)
                stats.append((found.st_size, found.st_mtime_ns))
            except (OSError, ValueError):
                stats.append(None)
    return hashlib.sha256(json.dumps([table.fingerprint, columns, stats]).encode()).hexdigest()
