"""`difficulty.parquet`: the difficulty of every sample, in the data set's order."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffident.errors import InputError
from diffident.files import check_unique_ids, first_line, parquet_column, parquet_rows, read_parquet
from diffident.records import DifficultyTable
from diffident.storage.atomic import atomic_path

_HOW = "Make it with: diffident score."
_COLUMNS = {
    "id": pa.string(),
    "label": pa.int64(),
    "difficulty": pa.float64(),
    "rank": pa.float64(),
    "nearest_label": pa.int64(),
    "margin": pa.float64(),
}
# Columns of the methods that say how little a label is to be believed, and which is most probably right.
_OF_BELIEF = {"distrust": pa.float64(), "likely_label": pa.int64()}
# The same, of several classes: lists that are as long in every row.
_OF_CLASSES = {"candidates": pa.int64(), "candidate_probs": pa.float32()}
_RANGES = {
    "label": (0, np.inf),
    "difficulty": (-np.inf, np.inf),
    "rank": (0, 1),
    "nearest_label": (0, np.inf),
    "margin": (-np.inf, np.inf),
    "distrust": (0, 1),
    "likely_label": (0, np.inf),
    "candidates": (0, np.inf),
    "candidate_probs": (0, 1),
}

# What a sum of probabilities may be off by.
_MOST_OFF = 1e-3


def write_difficulty_table(table: DifficultyTable, path: str | Path) -> None:
    """Write the columns of the design; method, encoder and counts go into the file's metadata."""
    columns = (table.ids, table.labels, table.difficulty, table.rank, table.nearest_labels, table.margin)
    kinds = dict(_COLUMNS)
    for name, column in zip(_OF_BELIEF, (table.distrust, table.likely_labels), strict=True):
        if column is not None:
            columns, kinds[name] = (*columns, column), _OF_BELIEF[name]
    arrays: list[pa.Array] = [pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]
    for name, rows in zip(_OF_CLASSES, (table.candidates, table.candidate_probs), strict=True):
        if rows is not None and rows.size:
            arrays.append(
                pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), _OF_CLASSES[name]), rows.shape[1])
            )
            kinds[name] = arrays[-1].type
    names = None if table.label_names is None else list(table.label_names)
    note = json.dumps({"metadata": table.metadata, "label_names": names}, sort_keys=True)
    schema = pa.schema(list(kinds.items()), metadata={"diffident": note})
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays, schema=schema), temporary)


def read_difficulty_table(path: str | Path) -> DifficultyTable:
    """Read what `write_difficulty_table` wrote, or a table with the same columns made elsewhere.

    Raises:
        InputError: the file is not there, no Parquet, or lacks a column; a cell is null, of another kind, not finite
            or out of range; an id occurs twice; lists differ in length, or probabilities do not sum to 1.
    """
    if not Path(path).is_file():
        raise InputError(f"`difficulty` must be a file; got {path}, which is not there. {_HOW}")
    table = read_parquet(path, "difficulty", _HOW)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise InputError(
            f"`difficulty` must have the columns {', '.join(_COLUMNS)}; {path} lacks {', '.join(missing)}. {_HOW}"
        )
    kinds = _COLUMNS | {name: kind for name, kind in _OF_BELIEF.items() if name in table.column_names}
    columns = {name: parquet_column(table, name, kind, path, _HOW) for name, kind in kinds.items()}
    if all(name in table.column_names for name in _OF_CLASSES):
        columns |= {name: parquet_rows(table, name, kind, path, _HOW) for name, kind in _OF_CLASSES.items()}
    ids = columns["id"]
    check_unique_ids(ids, path, _HOW)
    for name, (least, most) in _RANGES.items():
        if name not in columns:
            continue
        values = columns[name]
        outside = ~(np.isfinite(values) & (values >= least) & (values <= most))
        if outside.any():
            first = int(outside.argmax())
            row = first // (values.size // len(ids))
            must = "finite" if least == -np.inf else "at least 0" if most == np.inf else f"in [{least:g}, {most:g}]"
            raise InputError(f"`{name}` must be {must}; got {values.flat[first]} at {ids[row]!r} of {path}. {_HOW}")
    _check_candidates(columns, ids, path)
    metadata, names = _note(table, path)
    distrust, likely, candidates, probs = (columns.pop(name, None) for name in (*_OF_BELIEF, *_OF_CLASSES))
    return DifficultyTable(
        *columns.values(),
        metadata=metadata,
        label_names=names,
        distrust=distrust,
        likely_labels=likely,
        candidates=candidates,
        candidate_probs=probs,
    )


def _check_candidates(columns: dict[str, np.ndarray], ids: np.ndarray, path: str | Path) -> None:
    """Refuse lists of two lengths, and probabilities that do not sum to 1."""
    if "candidates" not in columns:
        return
    lengths = [columns[name].shape[1] for name in _OF_CLASSES]
    if len(set(lengths)) > 1:
        raise InputError(
            f"`candidate_probs` must be as many as `candidates` in every row; got {lengths[1]} for {lengths[0]} in "
            f"{path}. {_HOW}"
        )
    sums = columns["candidate_probs"].sum(axis=1)
    outside = np.abs(sums - 1) > _MOST_OFF
    if outside.any():
        row = int(outside.argmax())
        raise InputError(f"`candidate_probs` must sum to 1; got {sums[row]:g} at {ids[row]!r} of {path}. {_HOW}")


def _note(table: pa.Table, path: str | Path) -> tuple[dict, tuple[str, ...] | None]:
    """What the file's metadata says about the method, and the names of the classes."""
    try:
        note = json.loads((table.schema.metadata or {}).get(b"diffident", b"{}"))
        names = note.get("label_names")
        return dict(note.get("metadata", {})), None if names is None else tuple(map(str, names))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"`difficulty` must have the metadata of diffident; {path}: {first_line(error)}. {_HOW}"
        ) from None
