"""Columns of tables: which is what, and ids and labels from any kind of cell."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from diffident.errors import InputError, MissingColumnError, did_you_mean
from diffident.files import row_ids
from diffident.records import first_repeated

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "category", "intent", "y")
TEXT_NAMES = ("text", "sentence", "content", "utterance", "review", "question")
IMAGE_NAMES = ("image", "img", "image_path", "path", "file", "filename", "file_name")
ID_NAMES = ("id",)
# More classes than the largest benchmarks have: a number beyond is an id, an amount or a date.
MOST_CLASSES = 100_000
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def find_column(columns: list[str], wanted: str | None, usual: tuple[str, ...], what: str, where: str) -> str | None:
    """The named column, else the first with a usual name, else None.

    Raises:
        MissingColumnError: the named column is not there; names near ones.
    """
    if wanted is None:
        return next((name for name in usual if name in columns), None)
    if wanted not in columns:
        raise MissingColumnError(
            f"`--{what}-column` must name a column of {where}; got `{wanted}`. {did_you_mean(wanted, columns)}"
        )
    return wanted


def is_missing(cell: Any) -> bool:
    """Whether a cell of a label, id, path or number holds nothing: null, NaN or blank text."""
    return (
        cell is None or (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())
    )


def read_labels(
    values: list, column: str, where: str, *, rows: Sequence[int], names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Classes (n,) int64 and the classes' names, from numbers or words.

    Args:
        values: One cell per sample. Whole numbers (1, 1.0, "1", "1.0") are class numbers; all other words, and true
            and false, are names of classes, in the order of the alphabet.
        column: The column's name, for errors.
        where: The file, for errors.
        rows: Row number of each cell, for errors.
        names: Names that are known already; words must be among them.

    Raises:
        InputError: a cell is missing, negative, a fraction, too large for a class, or neither number nor word; numbers
            and words are mixed; a name is unknown.
    """
    numbers: dict[Any, int] = {}
    first: dict[bool, tuple[Any, int]] = {}
    for value, row in _distinct(values, rows):
        if is_missing(value):
            raise InputError(
                f"`{column}` must have a label in every row; got none at row {row} of {where}. "
                "Fill it in, or remove the row."
            )
        number = _class_number(value, column, row, where)
        first.setdefault(number is None, (value, row))
        if number is not None:
            _check_range(number, column, row, where, names)
            numbers[value] = number
    if len(first) == 2:
        (number, number_row), (word, word_row) = first[False], first[True]
        raise InputError(
            f"`{column}` must hold numbers or names, not both; got {number} at row {number_row} and {str(word)!r} at "
            f"row {word_row} of {where}. Write all labels in one way."
        )
    if True in first:
        return _from_words([str(value) for value in values], column, where, rows, names)
    return np.array([numbers[value] for value in values], dtype=np.int64), names


def _distinct(values: list, rows: Sequence[int]) -> Iterable[tuple[Any, int]]:
    """Each different cell with its first row, in the order of rows; all cells where types are mixed."""
    if len(set(map(type, values))) == 1 and isinstance(values[0], str | int):
        # The first row of several equal cells comes last, and stays.
        first = dict(zip(reversed(values), reversed(rows), strict=True))
        return sorted(first.items(), key=lambda pair: pair[1])
    return zip(values, rows, strict=True)


def _check_range(number: int, column: str, row: int, where: str, names: tuple[str, ...] | None) -> None:
    if number < 0:
        raise InputError(f"`{column}` must be at least 0; got {number} at row {row} of {where}. Re-index.")
    limit = MOST_CLASSES if names is None else len(names)
    if number >= limit:
        how = "Choose another column" if names is None else "Re-index the labels, or mend the list of label names"
        raise InputError(f"`{column}` must be in [0, {limit:,}); got {number} at row {row} of {where}. {how}.")


def _from_words(words: list[str], column: str, where: str, rows: Sequence[int], names: tuple[str, ...] | None):
    names = names or tuple(sorted(set(words)))
    index = {name: number for number, name in enumerate(names)}
    unknown = next(((word, row) for word, row in zip(words, rows, strict=True) if word not in index), None)
    if unknown is not None:
        raise InputError(
            f"`{column}` must be a known label name; got {unknown[0]!r} at row {unknown[1]} of {where}. "
            f"{did_you_mean(unknown[0], names)}"
        )
    return np.array([index[word] for word in words], dtype=np.int64), names


def _class_number(value: Any, column: str, row: int, where: str) -> int | None:
    """The class number that a cell holds, or None for a name."""
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
        if value.partition(".")[2].strip("0"):
            raise _fraction(value, column, row, where)
        return int(value.partition(".")[0][:30])  # far beyond any class is as good as the number itself
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value) or value != int(value):
            raise _fraction(value, column, row, where)
        return int(value)
    raise InputError(
        f"`{column}` must be a number or a name; got a {type(value).__name__} at row {row} of {where}. "
        "Choose another column."
    )


def _fraction(value: Any, column: str, row: int, where: str) -> InputError:
    return InputError(
        f"`{column}` must hold class numbers or names; got {value} at row {row} of {where}. "
        "Write classes, or choose another column."
    )


def read_ids(values: Iterable | None, name: str, num_rows: int, column: str, where: str, rows: Sequence[int]):
    """Ids, str objects (n,): the column's if there is one, else name and row.

    Raises:
        InputError: an id occurs twice, is missing, or is neither text nor a number.
    """
    if values is None:
        return row_ids(name, num_rows)
    values = list(values)
    if set(map(type, values)) != {str} or not all(map(str.strip, values)):
        _check_ids(values, column, where, rows)
    ids = np.array(list(map(str, values)), dtype=object)
    twice = first_repeated(ids)
    if twice is not None:
        first, last = twice
        raise InputError(
            f"`{column}` must be unique; got {ids[first]!r} at rows {rows[first]} and {rows[last]} of {where}. "
            "Choose another id column."
        )
    return ids


def _check_ids(values: list, column: str, where: str, rows: Sequence[int]) -> None:
    for value, row in zip(values, rows, strict=True):
        if is_missing(value) or not isinstance(value, str | int | float | np.integer):
            got = "none" if is_missing(value) else f"a {type(value).__name__}"
            raise InputError(
                f"`{column}` must have an id in every row; got {got} at row {row} of {where}. Fill it in with text or "
                "a number."
            )


def other_labels(values: list, names: tuple[str, ...] | None) -> np.ndarray | None:
    """A further label column, int64 (n,): whole numbers, or words that are all label names; else None."""
    index = {name: number for number, name in enumerate(names or ())}
    numbers: dict[Any, int] = {}
    for value, _ in _distinct(values, range(len(values))):
        number = index.get(value) if isinstance(value, str) else None
        if number is None and not is_missing(value):
            try:
                number = _class_number(value, "", 0, "")
            except InputError:
                number = None
        if number is None or not -MOST_CLASSES < number < MOST_CLASSES:
            return None
        numbers[value] = number
    return np.array([numbers[value] for value in values], dtype=np.int64)


def near_path(path: Path) -> str:
    """The end of an error about a path that is not there."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f"{parent} is not there either."
    try:
        entries = [entry.name for entry in os.scandir(parent)][:1000]
    except OSError:
        entries = []
    return did_you_mean(path.name, entries).split("Choices:")[0].strip() or "Check the spelling."
