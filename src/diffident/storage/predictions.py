"""Predictions as Parquet (`id`, `label`, `logits`), and what others write: `.npz`, or probabilities for logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffident.errors import InputError, ShapeError
from diffident.files import first_line, holds_lists, read_npz, read_parquet, texts_of
from diffident.metrics.inputs import check_logits, check_probs
from diffident.records import Predictions, first_repeated
from diffident.storage.atomic import atomic_path

FORMAT_VERSION = 1


def write_predictions(predictions: Predictions, path: str | Path) -> None:
    """Write predictions as Parquet, atomically; the same predictions give the same bytes.

    Columns: `id` string, `label` int64 (absent without labels), `logits` fixed-size list of float32. The schema's
    metadata holds JSON under `diffident`: format, version and label_names.

    Raises:
        InputError: ids, labels and logits do not have the same number of rows.
    """
    logits = predictions.logits.detach().cpu().to(torch.float32).contiguous()
    columns: dict[str, pa.Array] = {"id": pa.array([str(sample) for sample in predictions.ids], pa.string())}
    if predictions.labels is not None:
        columns["label"] = pa.array(predictions.labels.detach().cpu().to(torch.int64).numpy())
    columns["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.numpy().reshape(-1)), logits.shape[1])
    for name, column in columns.items():
        if len(column) != len(logits):
            raise ShapeError(f"`{name}` must have {len(logits)} rows like `logits`; got {len(column)} for {path}.")
    about = {"format": "predictions", "version": FORMAT_VERSION}
    names = predictions.label_names
    about["label_names"] = None if names is None else list(names)  # type: ignore[assignment]
    table = pa.table(columns).replace_schema_metadata({b"diffident": json.dumps(about, sort_keys=True).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_predictions(path: str | Path, *, probs: bool = False) -> Predictions:
    """Read predictions: Parquet with `id`, or `.npz` with optional `ids`; `label` or `labels` may be absent.

    Without `probs=True` logits are taken where there are any. Probabilities, whose rows must sum to 1 within 0.001,
    become log(probs) with 0 clamped to the least normal float32. Ids that an `.npz` lacks are the row numbers.

    Args:
        path: The file.
        probs: Read probabilities: those called `probs`, or what the file calls `logits` where there are none.

    Raises:
        InputError: no such file, another format, a missing column, rows that differ in number, a NaN, logits that are
            all probabilities or the reverse, a label that is no integer or out of range, an id that occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"`predictions` must be a file; got {path}, which is not there. Run `diffident predict` first."
        )
    columns, label_names = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    logits = _logits_of(columns, path, probs)
    num_samples, num_classes = logits.shape
    if label_names is not None and len(label_names) != num_classes:
        raise InputError(
            f"`label_names` must have {num_classes} entries, one per logit; got {len(label_names)} in {path}. "
            f"Write the file again."
        )
    ids = columns.get("id")
    if ids is None:
        ids = np.array([str(row) for row in range(num_samples)], dtype=object)
    _check_rows("id", ids, num_samples, path)
    _check_unique(ids, path)
    labels = columns.get("label")
    if labels is not None:
        labels = torch.from_numpy(_check_labels(labels, num_samples, num_classes, path))
    return Predictions(ids, logits, labels, label_names)


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], None]:
    arrays = read_npz(path, "predictions")
    held = list(arrays)
    keys = (("logits", "logits"), ("probs", "probs"), ("labels", "label"), ("ids", "id"))
    columns = {key: arrays[name] for name, key in keys if name in arrays}
    _check_present(columns, held, path)
    if "id" in columns:
        columns["id"] = np.array(texts_of(columns["id"]), dtype=object)
    return columns, None


def _read_parquet(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    mend = "Run `diffident predict` again."
    if path.suffix != ".parquet":
        mend = "Predictions are .parquet from `diffident predict`, or .npz with logits or probs, and labels."
    table = read_parquet(path, "predictions", mend)
    held = table.column_names
    if "id" not in held:
        raise InputError(
            f"`predictions` must have a column `id`; got {', '.join(held) or 'no columns'} in {path}. "
            f"Add the ids of the samples as strings."
        )
    _check_present(held, held, path)
    columns = {}
    for name in ("id", "label", "logits", "probs"):
        if name in held:
            column = table.column(name).combine_chunks()
            _check_no_nulls(name, column, path)
            columns[name] = _matrix(name, column, path) if name in ("logits", "probs") else _vector(name, column)
    return columns, _label_names(table.schema.metadata or {}, path)


def _vector(name: str, column: pa.Array) -> np.ndarray:
    if name == "id":
        return np.array([str(sample) for sample in column.to_pylist()], dtype=object)
    return column.to_numpy(zero_copy_only=False)


def _matrix(name: str, column: pa.Array, path: Path) -> np.ndarray:
    kind = column.type
    if not holds_lists(kind):
        raise InputError(
            f"`{name}` must be a list of numbers per row; got {kind} in {path}. Store one fixed-size list per sample."
        )
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise InputError(f"`{name}` must hold numbers; got {kind} in {path}. Store float32.")
    lengths = np.array([len(row) for row in column]) if not pa.types.is_fixed_size_list(kind) else None
    width = kind.list_size if lengths is None else int(lengths[0]) if len(lengths) else 0
    if lengths is not None and (lengths != width).any():
        row = int((lengths != width).argmax())
        raise ShapeError(
            f"`{name}` must have the same length in every row; got {lengths[row]} at row {row} and {width} at row 0 "
            f"in {path}. Give one number per class."
        )
    values = column.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // width
        raise InputError(f"`{name}` must have no missing numbers; got null at row {row} of {path}. Predict it again.")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width)


def _logits_of(columns: dict[str, np.ndarray], path: Path, probs: bool) -> torch.Tensor:
    name = "probs" if "probs" in columns and (probs or "logits" not in columns) else "logits"
    values = columns[name]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ShapeError(
            f"`{name}` must be numbers of shape [n, c]; got {values.dtype} of shape {list(values.shape)} in {path}. "
            f"Give one row per sample and one column per class."
        )
    if not values.size:
        raise InputError(f"`{name}` must have at least one row and column; got {list(values.shape)} in {path}.")
    values = values.astype(np.promote_types(values.dtype, np.float32))
    if probs or name == "probs":
        logits_as = "leave out --probs (in Python `probs=True`)" if name == "logits" else "call the column `logits`"
        found = check_probs(values, name, where=f" of {path}", logits_as=logits_as)
        probabilities = found.values.to(torch.float64)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
    how = "Say --probs (in Python `probs=True`), or call the column `probs`."
    return check_logits(values, name, probs_as=how, where=f" of {path}").values


def _check_labels(labels: np.ndarray, num_samples: int, num_classes: int, path: Path) -> np.ndarray:
    _check_rows("label", labels, num_samples, path)
    if labels.dtype.kind not in "iu":
        raise InputError(f"`label` must be integers; got {labels.dtype} in {path}. Store the class numbers as int64.")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"`label` must be in [0, {num_classes}); got {labels[row]} at row {row} of {path}. "
            f"Re-index the labels; leave the column out for out-of-distribution data."
        )
    return labels.astype(np.int64)


def _check_rows(name: str, values: np.ndarray, num_samples: int, path: Path) -> None:
    if values.shape != (num_samples,):
        raise ShapeError(
            f"`{name}` must have shape [{num_samples}], one per row of logits; got {list(values.shape)} in {path}. "
            f"Write all columns from the same samples."
        )


def _check_unique(ids: np.ndarray, path: Path) -> None:
    twice = first_repeated(ids)
    if twice is not None:
        first, last = twice
        raise InputError(
            f"`id` must be unique; got {ids[first]!r} at rows {first} and {last} of {path}. Keep one row per sample."
        )


def _check_present(columns: Any, held: list[str], path: Path) -> None:
    if "logits" not in columns and "probs" not in columns:
        raise InputError(
            f"`predictions` must have `logits` or `probs`; got {', '.join(held) or 'nothing'} in {path}. "
            f"Rename the array that holds them."
        )


def _check_no_nulls(name: str, column: pa.Array, path: Path) -> None:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(
            f"`{name}` must have no missing entries; got null at row {row} of {path}. Fill or drop the row."
        )


def _label_names(metadata: dict[bytes, bytes], path: Path) -> tuple[str, ...] | None:
    try:
        names = json.loads(metadata.get(b"diffident", b"{}")).get("label_names")
        return None if names is None else tuple(str(name) for name in names)
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"`diffident` in the schema's metadata must be a JSON object; got {path}: {first_line(error)}. "
            f"Write the file again."
        ) from error
