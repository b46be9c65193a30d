"""`difficulty.parquet`: the difficulty of every sample, in the data set's order."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffident.errors import InputError
from diffident.records import DifficultyTable
from diffident.storage.atomic import atomic_path

_COLUMNS = {
    "id": pa.string(),
    "label": pa.int64(),
    "difficulty": pa.float64(),
    "rank": pa.float64(),
    "nearest_label": pa.int64(),
    "margin": pa.float64(),
}


def write_difficulty_table(table: DifficultyTable, path: str | Path) -> None:
    """Write the columns of the design; method, encoder and counts go into the file's metadata."""
    columns = (table.ids, table.labels, table.difficulty, table.rank, table.nearest_labels, table.margin)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, _COLUMNS.values(), strict=True)]
    names = None if table.label_names is None else list(table.label_names)
    note = json.dumps({"metadata": table.metadata, "label_names": names}, sort_keys=True)
    schema = pa.schema(list(_COLUMNS.items()), metadata={"diffident": note})
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, schema=schema), temporary)


def read_difficulty_table(path: str | Path) -> DifficultyTable:
    """Read what `write_difficulty_table` wrote, or a table with the same columns made elsewhere.

    Raises:
        InputError: the file is not there, no Parquet, or lacks a column.
    """
    if not Path(path).is_file():
        raise InputError(f"`difficulty` must be a file; got {path}, which is not there. Make it with: diffident score.")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"`difficulty` must be Parquet; {path} is not ({error}). Make it with: diffident score."
        ) from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(
            f"`difficulty` must have the columns {', '.join(_COLUMNS)}; {path} lacks {', '.join(missing)}. "
            "Make it with: diffident score."
        )
    note = json.loads((table.schema.metadata or {}).get(b"diffident", b"{}"))
    names = note.get("label_names")
    ids, *columns = (table[name] for name in _COLUMNS)
    return DifficultyTable(
        np.array(ids.to_pylist(), dtype=object),
        *(column.to_numpy() for column in columns),
        metadata=note.get("metadata", {}),
        label_names=None if names is None else tuple(names),
    )
