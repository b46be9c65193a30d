"""Parquet in the Hugging Face layout: one file, or a folder of shards and splits."""

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path

import pyarrow as pa

from diffident.data.dataset import Dataset
from diffident.data.tables import ColumnChoice, Table, open_table
from diffident.errors import InputError, did_you_mean
from diffident.files import first_line, read_parquet

_SHARD = re.compile(r"(?P<split>.+?)-\d+-of-(?P<count>\d+)")


def open_parquet(path: Path, split: str | None, choice: ColumnChoice) -> Dataset:
    """A Parquet file, or a split of a folder of them.

    A split is `train-00000-of-00002.parquet`, `train.parquet` or `train/0000.parquet`. The compressed images stay in
    memory, once; a data set beyond the memory opens as `hf:FOLDER`. Relative paths of images start at the file's
    folder, or at the folder that was named.

    Raises:
        InputError: no Parquet, shards that are missing or differ, several splits and none named.
    """
    files = _split_files(path, split) if path.is_dir() else [path]
    tables = [read_parquet(file, "DATA", "Write it anew.") for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise InputError(
            f"`DATA` must have shards of one kind; {path}: {first_line(error)}. Write them anew."
        ) from None
    stem = path.resolve().name if path.is_dir() else path.stem
    return open_table(
        Table(
            columns=dict(zip(table.column_names, table.columns, strict=True)),
            name=stem if split is None else f"{stem}:{split}",
            where=str(path),
            folder=path if path.is_dir() else path.parent,
            fingerprint=hash_files(files),
            rows=range(len(table)),
            class_names=_class_names(table.schema.metadata or {}, path),
        ),
        choice,
    )


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder, at any depth, without hidden ones."""
    found = (file for file in folder.rglob("*.parquet") if file.is_file())
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(folder).parts))


def hash_files(files: list[Path]) -> str:
    """sha256 over the files' contents; about a second a gigabyte."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _split_files(folder: Path, split: str | None) -> list[Path]:
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in parquet_files(folder):
        splits[_split_of(file, folder)].append(file)
    if split is None and len(splits) > 1:
        names = sorted(splits)
        raise InputError(
            f"`DATA` must name one split of {folder}; it has {', '.join(names)}. For example: {folder}:{names[0]}."
        )
    chosen = next(iter(splits)) if split is None else split
    if chosen not in splits:
        raise InputError(f"`DATA` must name a split of {folder}; got `{chosen}`. {did_you_mean(chosen, splits)}")
    files = splits[chosen]
    folders = sorted({file.parent for file in files})
    if len(folders) > 1:
        raise InputError(
            f"`DATA` must have a split in one folder; {chosen} is in {folders[0]} and {folders[1]}. Name one of them."
        )
    shard = _SHARD.fullmatch(files[0].stem)
    if shard is not None and int(shard["count"]) != len(files):
        raise InputError(
            f"`DATA` must have all shards; {folder} has {len(files)} of {int(shard['count'])} of {chosen}. "
            "Fetch the others, or name one file."
        )
    return files


def _split_of(file: Path, folder: Path) -> str:
    shard = _SHARD.fullmatch(file.stem)
    if shard is not None:
        return shard["split"]
    return file.parent.relative_to(folder.parent).name if file.stem.isdecimal() else file.stem


def _class_names(metadata: dict[bytes, bytes], path: Path) -> dict[str, tuple[str, ...]]:
    """The names of the columns that `datasets` calls ClassLabel."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"`huggingface` in the schema's metadata must be as datasets writes it; {path}: {first_line(error)}. "
            "Write the file anew."
        ) from None
