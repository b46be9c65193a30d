"""`dynamics.parquet` of a run: what every epoch saw of every training sample.

A folder in the layout of partitioned Parquet, one file an epoch, so that a resumed run goes on where it stopped and
nothing is ever rewritten; pandas, polars and DuckDB read the folder as one table. Columns: `id` string, `epoch` int32
(from 1), `label` int64, `prediction` int64, `correct` bool, `margin`, `p_label` and `el2n` float32, as `measure_epoch`
defines them. A single file with these columns, made elsewhere, is read as well; `correct` may then be absent.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffident.difficulties.training_dynamics import EpochDynamics, TrainingDynamics
from diffident.errors import IdMismatchError, InputError, ShapeError
from diffident.files import parquet_column, read_parquet
from diffident.records import positions_of
from diffident.storage.atomic import atomic_path

DYNAMICS = "dynamics.parquet"
_HOW = "Mend the file, or train the run again."
_COLUMNS = {
    "id": pa.string(),
    "epoch": pa.int32(),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "margin": pa.float32(),
    "p_label": pa.float32(),
    "el2n": pa.float32(),
}


def write_epoch(run: str | Path, epoch: int, ids: np.ndarray, labels: np.ndarray, seen: EpochDynamics) -> Path:
    """Write one epoch of a run atomically; the same epoch again replaces it.

    Args:
        run: The run's folder.
        epoch: From 1.
        ids: Of the training samples (n,).
        labels: Given labels, int64 (n,).
        seen: What the epoch saw of them, in the order of the ids.

    Returns:
        The file.
    """
    if epoch < 1:
        raise InputError(f"`epoch` must be at least 1; got {epoch}. Count from 1.")
    for name, column in {"labels": labels, **vars(seen)}.items():
        if len(column) != len(ids):
            raise ShapeError(
                f"`{name}` must have one entry per id; got {len(column)} for {len(ids)}. Match them by id."
            )
    predictions = seen.predictions.cpu().numpy().astype(np.int64)
    columns = {
        "id": [str(sample) for sample in ids],
        "epoch": np.full(len(ids), epoch),
        "label": labels,
        "prediction": predictions,
        "correct": predictions == labels,
        "margin": seen.margins.cpu().numpy(),
        "p_label": seen.label_probs.cpu().numpy(),
        "el2n": seen.el2n.cpu().numpy(),
    }
    kinds = {**_COLUMNS, "correct": pa.bool_()}
    arrays = {name: pa.array(column, kinds[name]) for name, column in columns.items()}
    path = Path(run) / DYNAMICS / _epoch_file(epoch)
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, compression="zstd")
    return path


def discard_epochs(run: str | Path, after: int) -> None:
    """Delete what a run holds beyond its first epochs, and what a killed process left half written."""
    folder = Path(run) / DYNAMICS
    keep = {_epoch_file(epoch) for epoch in range(1, after + 1)}
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in keep:
            file.unlink()


def _epoch_file(epoch: int) -> str:
    return f"epoch-{epoch:05d}.parquet"


def read_dynamics(path: str | Path) -> TrainingDynamics:
    """Training dynamics of a run, from its folder or from `dynamics.parquet` itself.

    Raises:
        InputError: nothing there, a column lacks, or an epoch does; a cell is null or of another kind; a label is
            negative, or not the same in every epoch.
        IdMismatchError: the epochs do not hold the same samples.
    """
    path = Path(path)
    place = path / DYNAMICS if (path / DYNAMICS).exists() else path
    if not place.exists() or (place.is_dir() and place.name != DYNAMICS):
        raise InputError(
            f"`dynamics` must be a run with {DYNAMICS}; got {path}, which has none. Train it with --set dynamics=true."
        )
    ids, labels = None, np.zeros(0, dtype=np.int64)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in ("prediction", "margin", "p_label", "el2n")}
    for number, columns in enumerate(_epochs(place), start=1):
        epoch, names = int(columns["epoch"][0]), columns["id"]
        if epoch != number:
            raise InputError(f"`epoch` must go up from 1 by 1; got {epoch} after {number - 1} in {place}. Train again.")
        if ids is None:
            ids, labels = names, columns["label"]
        if len(names) != len(ids):
            raise IdMismatchError(
                f"every epoch must hold the same ids; epoch {epoch} has {len(names)}, not {len(ids)}, in {place}."
            )
        rows = positions_of(names, ids, what="epoch 1", where=f"epoch {epoch} of {place}")
        _check_labels(columns["label"][rows], labels, ids, f"epoch {epoch} of {place}")
        for name, parts in seen.items():
            parts.append(columns[name][rows])
    if ids is None:
        raise InputError(f"`dynamics` must hold at least one epoch; got none in {place}. Train the run first.")
    return TrainingDynamics(ids, labels, *(np.stack(parts, axis=1) for parts in seen.values()))


def _check_labels(found: np.ndarray, labels: np.ndarray, ids: np.ndarray, where: str) -> None:
    """Labels of an epoch, in the order of the ids, against those of the first."""
    wrong = (found != labels) | (found < 0)
    if wrong.any():
        row = int(wrong.argmax())
        must = "at least 0" if found[row] < 0 else f"{labels[row]}, as in epoch 1"
        raise InputError(f"`label` must be {must}; got {found[row]} at {ids[row]!r} in {where}. {_HOW}")


def _epochs(place: Path) -> Iterator[dict[str, np.ndarray]]:
    """The columns of one epoch after the other, in order."""
    if place.is_dir():
        for file in sorted(place.glob("epoch-*.parquet")):
            yield _read(file)
        return
    columns = _read(place)
    epochs = columns["epoch"]
    for epoch in np.unique(epochs):
        yield {name: column[epochs == epoch] for name, column in columns.items()}


def _read(file: Path) -> dict[str, np.ndarray]:
    table = read_parquet(file, "dynamics", _HOW)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing or not len(table):
        lacks = ", ".join(missing) or "rows"
        raise InputError(f"`dynamics` must have the columns {', '.join(_COLUMNS)}; {file} lacks {lacks}. {_HOW}")
    return {name: parquet_column(table, name, kind, file, _HOW) for name, kind in _COLUMNS.items()}
