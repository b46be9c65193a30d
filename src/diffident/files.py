"""Reading files that may be damaged: whatever goes wrong becomes one `InputError`."""

import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffident.errors import InputError


def read_npz(path: str | Path, name: str) -> dict[str, np.ndarray]:
    """Every array of an .npz; pickled objects are refused.

    Args:
        path: The file.
        name: What the user calls it, for the error.

    Raises:
        InputError: no file, no .npz, truncated, or with pickled objects.
    """
    try:
        with _opened_npz(path) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:
        # A damaged archive raises nearly anything: BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ...
        raise _unreadable_array(path, name, ".npz", error) from None


def npz_keys(path: str | Path, name: str) -> list[str]:
    """The names of an .npz's arrays, without reading them; raises like `read_npz`."""
    try:
        with _opened_npz(path) as file:
            return list(file.files)
    except Exception as error:
        raise _unreadable_array(path, name, ".npz", error) from None


def read_npy(path: str | Path, name: str) -> np.ndarray:
    """The array of an .npy; raises like `read_npz`."""
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise _unreadable_array(path, name, ".npy", error) from None


def read_parquet(path: str | Path, name: str, how_to_mend: str) -> pa.Table:
    """A Parquet file; while it is read, no more than a row group is held twice.

    Raises:
        InputError: no file, no Parquet, truncated, text that is no UTF-8, or two columns of one name.
    """
    try:
        with pq.ParquetFile(path) as file:
            # A row group at a time, so that its compressed pages are gone before the next is read.
            groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
            table = pa.concat_tables(groups) if groups else file.schema_arrow.empty_table()
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"`{name}` must be readable Parquet; {path} is not: {first_line(error)}. {how_to_mend}"
        ) from None
    twice = next((column for column in table.column_names if table.column_names.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"`{name}` must name every column once; {path} has `{twice}` twice. Rename one.")
    return table


def parquet_column(table: pa.Table, name: str, kind: pa.DataType, path: str | Path, how_to_mend: str) -> np.ndarray:
    """A column as an array of its own, of this kind; strings become objects.

    Raises:
        InputError: of a kind that does not become this one without loss, or a cell is null.
    """
    values = table[name]
    try:
        cast = values.cast(kind)
    except pa.ArrowException:
        raise InputError(f"`{name}` must be {kind}; got {values.type} in {path}. {how_to_mend}") from None
    if cast.null_count:
        row = int(cast.is_null().to_numpy().argmax())
        raise InputError(f"`{name}` must be there in every row; got null at row {row} of {path}. {how_to_mend}")
    return np.array(cast.to_pylist(), dtype=object) if kind == pa.string() else cast.to_numpy().copy()


def holds_lists(kind: pa.DataType) -> bool:
    """Whether a column has a list in every row."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def parquet_rows(table: pa.Table, name: str, kind: pa.DataType, path: str | Path, how_to_mend: str) -> np.ndarray:
    """A column of lists, all of one length, as an array (n, m) of this kind.

    Raises:
        InputError: no lists, of several lengths or of a kind that does not become this one, or a cell is null.
    """
    lists = table[name].combine_chunks()
    if not holds_lists(lists.type):
        raise InputError(f"`{name}` must be a list in every row; got {lists.type} in {path}. {how_to_mend}")
    lengths = np.unique(lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False))
    if len(lengths) > 1 or (lengths < 1).any():
        raise InputError(f"`{name}` must be as long in every row, and not empty; it is not in {path}. {how_to_mend}")
    cells = lists.flatten()
    if cells.null_count:
        row = int(cells.is_null().to_numpy(zero_copy_only=False).argmax()) // int(lengths[0])
        raise InputError(f"`{name}` must have no nulls in its lists; got one at row {row} of {path}. {how_to_mend}")
    values = parquet_column(pa.table({name: cells}), name, kind, path, how_to_mend)
    return values.reshape(len(lists), -1 if len(lists) else 0)


def texts_of(values: np.ndarray) -> list[str]:
    """Every entry as text; bytes are UTF-8.

    Raises:
        InputError: bytes that are not.
    """
    try:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in values.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"`ids` and names must be text; got bytes that are no UTF-8: {error}. Save str.") from None


def check_unique_ids(ids: np.ndarray, path: str | Path, how_to_mend: str) -> None:
    """Refuse ids of a file that occur twice."""
    if len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise InputError(f"`id` must be unique; got {twice!r} {count} times in {path}. {how_to_mend}")


def first_line(error: Exception) -> str:
    """The first line of an exception's text without its full stop, else the exception's name."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__


@contextmanager
def _opened_npz(path: str | Path) -> Iterator[np.lib.npyio.NpzFile]:
    # Opened here, as numpy leaves a damaged file open; it also takes any file for a pickle, to be loaded unsafely.
    with open(path, "rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no whole zip archive")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as file:
            yield file


def _unreadable_array(path: str | Path, name: str, suffix: str, error: Exception) -> InputError:
    reason = str(error.strerror) if isinstance(error, OSError) and error.strerror else first_line(error)
    reason = "it holds pickled objects" if "allow_pickle" in reason else reason
    return InputError(
        f"`{name}` must be a readable {suffix}; {path} is not: {reason}. Save plain numbers and strings with "
        f"numpy.{'savez' if suffix == '.npz' else 'save'}, without objects."
    )


def read_toml(path: str | Path, name: str) -> dict[str, Any]:
    """The tables and values of a TOML file.

    Args:
        path: The file.
        name: What the user calls it, for the error.

    Raises:
        InputError: no file, or no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"`{name}` must be a file; {path} does not exist. Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"`{name}` must be a TOML file; got {path}: {error}. Mend it there.") from error


def row_ids(name: str, num_rows: int) -> np.ndarray:
    """Ids of samples that have none of their own, str objects (n,): the name and the row, at least six digits.

    Samples and features of one file stem have the same ids, so that stages can be joined.
    """
    width = max(6, len(str(max(num_rows - 1, 0))))
    return np.array([f"{name}:{row:0{width}d}" for row in range(num_rows)], dtype=object)
