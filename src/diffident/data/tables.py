"""Parquet in the Hugging Face layout, CSV, TSV and JSONL: text, images, or numeric columns."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from PIL import Image

from diffident.data.columns import (
    ID_NAMES,
    IMAGE_NAMES,
    LABEL_NAMES,
    TEXT_NAMES,
    find_column,
    other_columns,
    read_ids,
    read_labels,
)
from diffident.data.dataset import Dataset
from diffident.errors import InputError, UnreadableSampleError


@dataclass(frozen=True)
class ColumnChoice:
    """Which columns to use; None is the usual name."""

    label_column: str | None = None
    text_column: str | None = None
    image_column: str | None = None
    id_column: str | None = None


def open_parquet(path: Path, split: str | None, choice: ColumnChoice) -> Dataset:
    """A Parquet file, or a folder of them; the folder's files are split by the first word of their names."""
    files = _split_files(path, split) if path.is_dir() else [path]
    try:
        tables = [pq.read_table(file) for file in files]
        table = pa.concat_tables(tables, promote_options="default")
    except pa.ArrowInvalid as error:
        raise InputError(f"`DATA` must be readable Parquet; {path} is not: {error}. Write it anew.") from None
    note = json.loads((tables[0].schema.metadata or {}).get(b"huggingface", b"{}"))
    class_names = {
        name: tuple(feature["names"])
        for name, feature in note.get("info", {}).get("features", {}).items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
    }
    name = path.stem if split is None else f"{path.stem}:{split}"
    return open_table(table, name, str(path), path.parent, choice, class_names, _hash_files(files))


def _split_files(folder: Path, split: str | None) -> list[Path]:
    files = sorted(folder.rglob("*.parquet"))
    splits = sorted({file.name.split("-")[0].removesuffix(".parquet") for file in files})
    if split is None and len(splits) > 1:
        raise InputError(
            f"`DATA` must name one split of {folder}; it has {', '.join(splits)}. For example: {folder}:{splits[0]}."
        )
    chosen = splits[0] if split is None else split
    if chosen not in splits:
        raise InputError(f"`DATA` must name a split of {folder}; got `{chosen}`. Splits: {', '.join(splits)}.")
    return [file for file in files if file.name.split("-")[0].removesuffix(".parquet") == chosen]


def open_csv(path: Path, choice: ColumnChoice) -> Dataset:
    """A CSV or TSV file with a header line."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    content = _text_of(path)
    try:
        with io.BytesIO(content.encode()) as file:
            header = pa_csv.read_csv(file, parse_options=_csv_rules(delimiter)).column_names
        with io.BytesIO(content.encode()) as file:
            strings = pa_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=False,
            )  # fmt: skip
            table = pa_csv.read_csv(file, parse_options=_csv_rules(delimiter), convert_options=strings)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"`DATA` must be a CSV file with a header line; {path} is not: {error}. Mend that row."
        ) from None
    return open_table(table, path.stem, str(path), path.parent, choice, {}, _hash_files([path]), first_line=2)


def _csv_rules(delimiter: str) -> pa_csv.ParseOptions:
    return pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


def open_jsonl(path: Path, choice: ColumnChoice) -> Dataset:
    """A file with one JSON object a line; a key that a line lacks is a missing value."""
    rows = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"`DATA` must have JSON on every line; line {number} of {path} is not: {error}. Mend it."
            ) from None
        if not isinstance(row, dict):
            raise InputError(
                f"`DATA` must have an object on every line; got {line[:40]} at line {number} of {path}. Mend it."
            )
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = {column: [row.get(column) for row in rows] for column in columns}
    return open_table(table, path.stem, str(path), path.parent, choice, {}, _hash_files([path]), first_line=1)


def _text_of(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"`DATA` must be UTF-8; {path} is not, at byte {error.start}. Convert it with: iconv -t utf-8."
        ) from None
    if not text.strip():
        raise InputError(f"`DATA` must hold samples; {path} is empty. Choose another file.")
    return text


def open_table(
    table: Any,
    name: str,
    where: str,
    folder: Path,
    choice: ColumnChoice,
    class_names: dict[str, tuple[str, ...]],
    fingerprint: str,
    *,
    first_line: int = 0,
) -> Dataset:
    """A data set from columns; image paths are relative to `folder`, `first_line` numbers the first row in errors."""
    columns = list(table.column_names if isinstance(table, pa.Table) else table)
    num_rows = len(table) if isinstance(table, pa.Table) else max((len(column) for column in table.values()), default=0)
    if not num_rows:
        raise InputError(f"`DATA` must hold samples; {where} has none. Choose another file or split.")
    label = find_column(columns, choice.label_column, LABEL_NAMES, "label", where)
    text = find_column(columns, choice.text_column, TEXT_NAMES, "text", where)
    image = find_column(columns, choice.image_column, IMAGE_NAMES, "image", where)
    identity = find_column(columns, choice.id_column, ID_NAMES, "id", where)
    if text is not None and choice.image_column is None:
        image = None
    elif image is not None and choice.text_column is None:
        text = None
    cells = {column: _cells(table, column) for column in columns if column != image}
    labels = names = None
    if label is not None:
        names = class_names.get(label) or _shared_names(label, cells[label], class_names)
        labels, names = read_labels(cells[label], label, where, first_line=first_line, names=names)
    ids = read_ids(None if identity is None else cells[identity], name, num_rows, identity or "id", where)
    used = {column for column in (label, text, image, identity) if column is not None}
    others = other_columns(cells, used, names) if isinstance(table, pa.Table) else {}
    if text is not None:
        modality, read = "text", ReadText(_texts(cells[text], text, where, first_line))
    elif image is not None:
        modality, read = "image", _image_reader(table, image, folder, ids)
    else:
        modality, read = "vector", _vector_reader(cells, used, where, first_line)
    return Dataset(name, modality, ids, labels, read, fingerprint, names, others)


def _shared_names(label: str, values: list, class_names: dict) -> tuple[str, ...] | None:
    """The class names of the published label column, where another column of whole numbers fits them."""
    for names in class_names.values():
        if all(isinstance(value, int) and 0 <= value < len(names) for value in values):
            return names
    return None


def _cells(table: Any, column: str) -> list:
    return table[column].to_pylist() if isinstance(table, pa.Table) else table[column]


def _texts(values: list, column: str, where: str, first_line: int) -> tuple[str, ...]:
    for row, value in enumerate(values):
        if value is None:
            raise InputError(
                f"`{column}` must have a text in every row; got none at row {row + first_line} of {where}. Fill it in."
            )
    return tuple(str(value) for value in values)


@dataclass(frozen=True)
class ReadText:
    """The text at a position."""

    texts: tuple[str, ...]

    def __call__(self, position: int) -> str:
        return self.texts[position]


@dataclass(frozen=True)
class ReadVector:
    """The numeric columns at a position, float32 (d,)."""

    values: np.ndarray

    def __call__(self, position: int) -> np.ndarray:
        return self.values[position]


@dataclass(frozen=True)
class ReadImageBytes:
    """Decodes the image at a position; the compressed bytes stay in one Arrow buffer."""

    data: Any
    ids: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        return decode_image(self.data[position].as_py(), str(self.ids[position]))


@dataclass(frozen=True)
class ReadImageFile:
    """Decodes the image file at a position."""

    folder: Path
    paths: tuple[str, ...]
    ids: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        try:
            content = (self.folder / self.paths[position]).read_bytes()
        except OSError as error:
            raise UnreadableSampleError(
                f"sample `{self.ids[position]}` must be a readable image file; {self.folder / self.paths[position]}: "
                f"{error.strerror}. Mend the path, or remove the row."
            ) from None
        return decode_image(content, str(self.ids[position]))


def decode_image(content: bytes | None, sample: str) -> Image.Image:
    """The decoded picture, L or RGB; transparency on white.

    Raises:
        UnreadableSampleError: the bytes are no whole image; names the sample.
    """
    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            image.load()
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image).convert("RGB")
            return image.copy() if image.mode in ("L", "RGB") else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is empty" if not content else str(error).split(" <")[0]
        raise UnreadableSampleError(
            f"sample `{sample}` must be a readable image; {reason}. Replace or remove it."
        ) from None


def _image_reader(table: Any, column: str, folder: Path, ids: np.ndarray):
    kind = table.schema.field(column).type if isinstance(table, pa.Table) else pa.string()
    if pa.types.is_struct(kind):
        return ReadImageBytes(table[column].combine_chunks().field("bytes"), ids)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return ReadImageBytes(table[column].combine_chunks(), ids)
    paths = _cells(table, column)
    missing = next((row for row, path in enumerate(paths) if not path), None)
    if missing is not None:
        raise InputError(f"`{column}` must have a path in every row; sample `{ids[missing]}` has none. Fill it in.")
    return ReadImageFile(folder, tuple(map(str, paths)), ids)


def _vector_reader(cells: dict[str, list], used: set[str], where: str, first_line: int) -> ReadVector:
    columns = {}
    for column, values in cells.items():
        if column in used:
            continue
        try:
            columns[column] = np.array(
                [np.nan if value is None else float(value) for value in values], dtype=np.float32
            )
        except (TypeError, ValueError):
            continue
    if not columns:
        raise InputError(
            f"`DATA` must have a text, image or numeric column; {where} has the columns {', '.join(cells)}. "
            "Name one with --text-column or --image-column."
        )
    for column, values in columns.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0]) + first_line
            raise InputError(
                f"`{column}` must have a number in every row; got none at row {row} of {where}. Fill it in."
            )
    return ReadVector(np.stack(list(columns.values()), axis=1))


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
