"""Tables: which column is what, and labels from any kind of column."""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from diffident.errors import InputError, did_you_mean

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "category", "intent", "y")
TEXT_NAMES = ("text", "sentence", "content", "utterance", "review", "question")
IMAGE_NAMES = ("image", "img", "image_path", "path", "file", "filename", "file_name")
ID_NAMES = ("id",)


def find_column(columns: list[str], wanted: str | None, usual: tuple[str, ...], what: str, where: str) -> str | None:
    """The named column, else the first with a usual name, else None.

    Raises:
        InputError: the named column is not there; names near ones.
    """
    if wanted is None:
        return next((name for name in usual if name in columns), None)
    if wanted not in columns:
        raise InputError(
            f"`--{what}-column` must name a column of {where}; got `{wanted}`. {did_you_mean(wanted, columns)}"
        )
    return wanted


def read_labels(
    values: list, column: str, where: str, *, first_line: int = 0, names: tuple[str, ...] | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Classes (n,) int64 and the classes' names, from numbers or words.

    Args:
        values: One entry per sample: int, whole float, bool, numeric string, class name, or None.
        column: The column's name, for errors.
        where: The file, for errors.
        first_line: Line number of the first entry, for errors.
        names: Names that are known already; words must be among them.

    Raises:
        InputError: an entry is missing, negative or no whole number; numbers and words are mixed.
    """
    words, numbers = {}, {}
    for row, value in enumerate(values):
        line = row + first_line
        if (
            value is None
            or (isinstance(value, float) and math.isnan(value))
            or (isinstance(value, str) and not value.strip())
        ):
            raise InputError(
                f"`{column}` must have a label in every row; got none at row {line} of {where}. "
                "Fill it in, or remove the row."
            )
        number = _whole_number(value)
        (words if number is None else numbers).setdefault(str(value) if number is None else number, line)
    if words and numbers:
        (word, word_line), (number, number_line) = next(iter(words.items())), next(iter(numbers.items()))
        raise InputError(
            f"`{column}` must hold numbers or names, not both; got {number} at row {number_line} and {word!r} at row "
            f"{word_line} of {where}. Write all labels in one way."
        )
    if words:
        return _from_words(values, column, where, names)
    labels = np.array([_whole_number(value) for value in values], dtype=np.int64)
    if len(labels) and labels.min() < 0:
        row = int(np.flatnonzero(labels < 0)[0])
        raise InputError(
            f"`{column}` must be at least 0; got {labels[row]} at row {row + first_line} of {where}. Re-index."
        )
    if names is not None and len(labels) and labels.max() >= len(names):
        row = int(np.flatnonzero(labels >= len(names))[0])
        raise InputError(
            f"`{column}` must be in [0, {len(names)}); got {labels[row]} at row {row + first_line} of {where}. "
            "Re-index the labels, or mend the list of label names."
        )
    return labels, names


def _from_words(values: list, column: str, where: str, names: tuple[str, ...] | None):
    words = [str(value) for value in values]
    names = names or tuple(sorted(set(words)))
    index = {name: number for number, name in enumerate(names)}
    unknown = next((word for word in words if word not in index), None)
    if unknown is not None:
        raise InputError(
            f"`{column}` must be a known label name; got {unknown!r} in {where}. {did_you_mean(unknown, names)}"
        )
    return np.array([index[word] for word in words], dtype=np.int64), names


def _whole_number(value) -> int | None:
    """The integer that a cell holds, or None for words and fractions."""
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.lstrip("+-").isdecimal() else None
    if isinstance(value, bool | int | np.integer):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def read_ids(values: list | None, name: str, num_rows: int, column: str, where: str) -> np.ndarray:
    """Ids (n,) of str: the column's if there is one, else name and row.

    Raises:
        InputError: an id occurs twice or is missing.
    """
    if values is None:
        width = max(6, len(str(max(num_rows - 1, 0))))
        return np.array([f"{name}:{row:0{width}d}" for row in range(num_rows)], dtype=object)
    if any(value is None for value in values):
        raise InputError(f"`{column}` must have an id in every row; {where} lacks some. Fill them in.")
    ids = np.array([str(value) for value in values], dtype=object)
    twice = [sample for sample, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"`{column}` must be unique; got {twice[0]!r} more than once in {where}. Choose another id column."
        )
    return ids


def other_columns(table: dict[str, list], used: set[str], names: tuple[str, ...] | None) -> dict:
    """Every other column that can serve as labels: whole numbers, or words that are label names."""
    found = {}
    index = {name: number for number, name in enumerate(names or ())}
    for column, values in table.items():
        if column in used or any(value is None for value in values):
            continue
        if all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in values):
            found[column] = np.array(values, dtype=np.int64)
        elif index and all(isinstance(value, str) and value in index for value in values):
            found[column] = np.array([index[value] for value in values], dtype=np.int64)
    return found


def near_path(path: Path) -> str:
    """The end of an error about a path that is not there."""
    parent = path.parent
    if not parent.is_dir():
        return f"{parent} is not there either."
    entries = [entry.name for entry in parent.iterdir()][:1000]
    return did_you_mean(path.name, entries).split("Choices:")[0].strip() or "Check the spelling."
