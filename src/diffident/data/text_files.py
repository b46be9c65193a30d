"""CSV, TSV and JSONL."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from diffident.data.dataset import Dataset
from diffident.data.parquet import hash_files
from diffident.data.tables import ColumnChoice, Table, open_table
from diffident.errors import InputError
from diffident.files import first_line

_LARGEST = 2**31 - 2


def open_csv(path: Path, choice: ColumnChoice) -> Dataset:
    """A CSV or TSV file with a header line; every cell is text, and row 2 is the first below the header.

    Raises:
        InputError: not UTF-8, no header, columns named twice, rows of unequal length, an open quotation mark,
            semicolons for commas.
    """
    content = _content(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header = _header(path, content, delimiter)
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"`DATA` must name every column once; {path} has `{twice}` twice. Rename one.")
    if len(header) == 1 and delimiter == "," and any(sign in header[0] for sign in ";\t"):
        sign = "semicolons" if ";" in header[0] else "tabs"
        raise InputError(f"`DATA` must have commas between cells; {path} has {sign}. Save it with commas, or as .tsv.")
    table = _cells(path, content, delimiter, header)
    if content.count(b'"') % 2 and any("\n" in column[-1].as_py() for column in table.columns if len(column)):
        raise InputError(f"`DATA` must close every quotation mark; {path} has one open up to its end. Close it.")
    columns = dict(zip(header, table.columns, strict=True))
    return _open(path, columns, range(2, len(table) + 2), choice)


def _header(path: Path, content: bytes, delimiter: str) -> list[str]:
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline=""), delimiter=delimiter)
    try:
        return next(cells for cells in lines if cells)
    except (csv.Error, StopIteration) as error:
        raise InputError(
            f"`DATA` must be a CSV file with a header line; {path} is not: {first_line(error)}. Mend that line."
        ) from None


def _cells(path: Path, content: bytes, delimiter: str, header: list[str]) -> pa.Table:
    try:
        return pa_csv.read_csv(
            pa.BufferReader(content),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # A row must lie within a block; one thread, so that errors carry the row's number.
            read_options=pa_csv.ReadOptions(block_size=min(len(content) + 1, _LARGEST), use_threads=False),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except (ValueError, OSError, pa.ArrowException) as error:
        raise InputError(
            f"`DATA` must be a CSV file with a header line; {path} is not: {first_line(error)}. Mend that row."
        ) from None


def open_jsonl(path: Path, choice: ColumnChoice) -> Dataset:
    """A file with one JSON object a line; a key that a line lacks is a missing value, and rows are line numbers."""
    lines, objects = [], []
    for number, line in enumerate(_content(path).decode().split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if "\\ud" in line.lower():  # half of a pair is text that no file can hold
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"`DATA` must have JSON on every line; line {number} of {path} is not: {first_line(error)}. Mend it."
            ) from None
        if not isinstance(found, dict):
            raise InputError(
                f"`DATA` must have an object on every line; got {line.strip()[:40]} at line {number} of {path}. "
                "Mend it."
            )
        lines.append(number)
        objects.append(found)
    names = list(dict.fromkeys(key for found in objects for key in found))
    return _open(path, {name: [found.get(name) for found in objects] for name in names}, lines, choice)


def _open(path: Path, columns: dict, rows: range | list[int], choice: ColumnChoice) -> Dataset:
    return open_table(Table(columns, path.stem, str(path), path.parent, hash_files([path]), rows), choice)


def _content(path: Path) -> bytes:
    """The file's bytes, checked to be UTF-8 and without a byte order mark."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"`DATA` must be UTF-8; {path} is not, at byte {error.start}. Convert it with: iconv -t utf-8."
        ) from None
    if not text.strip():
        raise InputError(f"`DATA` must hold samples; {path} is empty. Choose another file.")
    return content
