"""Features on disk: a store (a folder of shards with a manifest and an index), or an .npz that was made elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.errors import InputError, did_you_mean
from diffident.files import (
    check_unique_ids,
    npz_keys,
    parquet_column,
    read_npz,
    read_parquet,
    row_ids,
    texts_of,
)
from diffident.records import Features, tensor_of
from diffident.storage.atomic import atomic_path
from diffident.storage.feature_shards import (
    FORMAT_VERSION,
    MANIFEST,
    check_digest,
    names_entries,
    read_manifest,
    read_shard,
    write_manifest,
    write_shard,
)

_BLOCK_ROWS = 16_384
# Before the name of a further label column that is called as a column of the index itself.
_OTHER = "column:"


@dataclass(frozen=True)
class FeatureSource:
    """Labelled features on disk, read in blocks.

    Attributes:
        path: The folder or file.
        ids: Stable ids (n,).
        labels: Classes, int64 (n,), or None.
        label_names: Name of each class, or None.
        columns: Other label columns, each int64 (n,).
        encoder: The encoder's name.
        num_features: Width d.
        shards: Files in order, with their rows and checksums; empty for an array in memory.
        array: The features of an .npz, or None.
        column_names: Names of the classes of those other label columns that have names of their own.
        label_column: The name of the column that the labels are from.
        checked: Files whose checksum has been compared.
    """

    path: Path
    ids: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...] | None
    columns: dict[str, np.ndarray]
    encoder: str
    num_features: int
    shards: tuple[dict, ...] = ()
    array: Tensor | None = field(default=None, repr=False)
    column_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_column: str = "label"
    checked: set[str] = field(default_factory=set, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[Float[Tensor, "b d"]]:
        """The features in the data set's order, a shard at a time; can be called again.

        A shard is compared with its checksum when it is read for the first time.

        Raises:
            InputError: a shard is missing, damaged or changed; names it.
        """
        if self.array is not None:
            yield from self.array.split(_BLOCK_ROWS)
        for shard in self.shards:
            if shard["rows"]:
                values = read_shard(self.path, shard, check=shard["file"] not in self.checked)
                self.checked.add(shard["file"])
                if values.shape[1] != self.num_features:
                    raise InputError(
                        f"`FEATURES` must be {self.num_features} wide, as {self.path / MANIFEST} says; "
                        f"{shard['file']} is {values.shape[1]} wide. Extract anew."
                    )
                yield values

    @property
    def values(self) -> Float[Tensor, "n d"]:
        """All features in memory, read anew each time; errors as `blocks`."""
        return self.load().values

    def load(self) -> Features:
        """Everything in memory."""
        values = torch.cat(list(self.blocks()))
        labels = None if self.labels is None else torch.from_numpy(self.labels)
        return Features(
            self.ids, values, labels, self.label_names, self.encoder, self.columns, self.column_names, self.label_column
        )

    def verify(self) -> None:
        """Compare every shard with its checksum, without reading its features.

        Raises:
            InputError: a shard is missing or was changed; names it.
        """
        for shard in self.shards:
            check_digest(self.path, shard)


def is_features(path: str | Path) -> bool:
    """Whether this is a feature store, or an .npz with `features`."""
    path = Path(path)
    if path.suffix == ".npz" and path.is_file():
        return "features" in npz_keys(path, "FEATURES")
    return (path / MANIFEST).is_file()


def open_features(path: str | Path, *, label_column: str | None = None) -> FeatureSource:
    """Open a feature store, or an .npz with `features` [n, d], `labels` [n] and optionally `ids`.

    Args:
        path: The folder or file.
        label_column: Another label column to use as labels.

    Raises:
        InputError: nothing there, unfinished, or not as it should be.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".npz":
        source = _open_npz(path)
    elif (path / MANIFEST).is_file():
        source = _open_store(path)
    elif not path.exists():
        raise InputError(
            f"`FEATURES` must be there; got {path}, which is not. Check the path, or make it with: diffident extract."
        )
    else:
        raise InputError(
            f"`FEATURES` must be a folder from `diffident extract` or an .npz; got {path}. Run: diffident extract."
        )
    if label_column is None:
        return source
    if label_column not in source.columns:
        if label_column in ("label", source.label_column) and source.labels is not None:
            return source
        known = [*([] if source.labels is None else [source.label_column]), *source.columns]
        raise InputError(
            f"`label_column` must be one of {path}'s; got `{label_column}`. {did_you_mean(label_column, known)}"
        )
    labels, names = source.columns[label_column], source.column_names.get(label_column, source.label_names)
    if len(labels) and labels.min() < 0:
        raise InputError(f"`{label_column}` must be at least 0; got {labels.min()} in {path}. Choose another column.")
    names = names if names is not None and labels.max() < len(names) else None
    values = {**vars(source), "labels": labels, "label_names": names, "label_column": label_column}
    return FeatureSource(**values)


def write_index(folder: Path, ids: np.ndarray, labels: np.ndarray | None, columns: dict, shards: list[dict]) -> None:
    """Write `index.parquet`: where each sample's features are."""
    table = {"id": pa.array(list(ids), pa.string())}
    if labels is not None:
        table["label"] = pa.array(labels, pa.int64())
    table |= {name: pa.array(places, pa.int64()) for name, places in _places(shards).items()}
    for name, column in columns.items():
        table[name if name not in table else _OTHER + name] = pa.array(column, pa.int64())
    with atomic_path(folder / "index.parquet") as temporary:
        pq.write_table(pa.table(table), temporary)


def _places(shards: list[dict]) -> dict[str, np.ndarray]:
    """Shard and row of every sample, in order."""
    rows = [shard["rows"] for shard in shards]
    within = np.concatenate([np.arange(count) for count in rows]) if rows else np.zeros(0, dtype=np.int64)
    return {"shard": np.repeat(np.arange(len(rows)), rows), "row": within}


def save_features(features: Features, path: str | Path) -> FeatureSource:
    """Write features that are in memory as a store, in one shard."""
    folder = Path(path)
    if (folder / MANIFEST).exists():
        raise InputError(f"`path` must be new; {folder} holds features already. Choose another folder.")
    shards = [write_shard(folder, 0, features.values)]
    labels = None if features.labels is None else features.labels.numpy()
    write_index(folder, features.ids, labels, features.columns, shards)
    manifest = {"format_version": FORMAT_VERSION, "encoder": {"name": features.encoder, "fingerprint": "unknown"}}
    dataset = {"name": "memory", "fingerprint": "unknown"}
    dtype = str(features.values.dtype).removeprefix("torch.")
    manifest |= names_entries(features)
    manifest |= {"dataset": dataset, "num_features": features.values.shape[1], "dtype": dtype}
    manifest |= {"num_samples": len(features), "complete": True, "shards": shards, "skipped": []}
    write_manifest(folder, manifest)
    return open_features(folder)


def _open_store(path: Path) -> FeatureSource:
    manifest = read_manifest(path)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise InputError(f"`FEATURES` must have format version {FORMAT_VERSION}; {path} has another. Extract anew.")
    if not manifest["complete"]:
        raise InputError(
            f"`FEATURES` must be finished; {path} is not. Run the same `diffident extract` again: it goes on."
        )
    table = read_parquet(path / "index.parquet", "FEATURES", "Extract again into a new folder.")
    columns = _index_columns(table, path)
    names = manifest.get("label_names")
    num_rows = sum(shard["rows"] for shard in manifest["shards"])
    if len(table) != num_rows:
        raise InputError(
            f"`FEATURES` must be whole; {path / 'index.parquet'} has {len(table)} rows, the shards {num_rows}. "
            "Extract again into a new folder."
        )
    _check_index(table, manifest["shards"], columns["id"], path / "index.parquet")
    return FeatureSource(
        path=path,
        ids=columns.pop("id"),
        labels=columns.pop("label", None),
        label_names=None if names is None else tuple(map(str, names)),
        columns={name.removeprefix(_OTHER): column for name, column in columns.items()},
        encoder=str(manifest["encoder"].get("name", "unknown")),
        num_features=manifest["num_features"],
        shards=tuple(manifest["shards"]),
        column_names={column: tuple(map(str, own)) for column, own in manifest.get("column_names", {}).items()},
        label_column=str(manifest.get("label_column", "label")),
    )


def _check_index(table: pa.Table, shards: list[dict], ids: np.ndarray, file: Path) -> None:
    """Refuse an index whose rows are not those of the shards, in order, and ids that occur twice."""
    for name, expected in _places(shards).items():
        if name in table.column_names and not np.array_equal(table[name].to_numpy(), expected):
            raise InputError(
                f"`FEATURES` must have an index in the order of the shards; the column {name} of {file} is in another. "
                "Sort it by shard and row, or extract anew."
            )
    check_unique_ids(ids, file, "Extract anew.")


def _index_columns(table: pa.Table, path: Path) -> dict[str, np.ndarray]:
    """`id`, `label` if there, and the other label columns."""
    if "id" not in table.column_names:
        raise InputError(f"`FEATURES` must have ids; {path / 'index.parquet'} has no column id. Extract anew.")
    columns = {}
    for name in table.column_names:
        kind = pa.string() if name == "id" else pa.int64()
        column = parquet_column(table, name, kind, path / "index.parquet", "Extract anew.")
        if name not in ("shard", "row"):
            columns[name] = column
    return columns


def _open_npz(path: Path) -> FeatureSource:
    arrays = read_npz(path, "FEATURES")
    values = arrays.pop("features", None)
    if values is None or values.ndim != 2 or not values.size or values.dtype.kind != "f":
        got = (
            f"it holds {', '.join(arrays) or 'nothing'}"
            if values is None
            else f"got {values.dtype} {list(values.shape)}"
        )
        raise InputError(
            f"`features` must be floats [n, d] with n and d at least 1; {got} at {path}. Save it under that name."
        )
    count = len(values)
    ids = _npz_ids(arrays.pop("ids", None), count, path)
    names = arrays.pop("label_names", None)
    columns = {key: a.astype(np.int64) for key, a in arrays.items() if a.shape == (count,) and a.dtype.kind in "iu"}
    labels = columns.pop("labels", None)
    if "labels" in arrays and labels is None:
        got = arrays["labels"]
        raise InputError(
            f"`labels` must be integers [{count}]; got {got.dtype} {list(got.shape)} at {path}. Save one per row."
        )
    if labels is not None and (labels.min() < 0 or (names is not None and labels.max() >= names.size)):
        limit = "at least 0" if names is None else f"in [0, {names.size}), the range of `label_names`"
        row = int(((labels < 0) | (labels >= (np.inf if names is None else names.size))).argmax())
        raise InputError(f"`labels` must be {limit}; got {labels[row]} at row {row} of {path}. Re-index.")
    return FeatureSource(
        path=path,
        ids=ids,
        labels=labels,
        label_names=None if names is None else tuple(texts_of(names)),
        columns=columns,
        encoder="unknown",
        num_features=values.shape[1],
        array=tensor_of(values, "features"),
        label_column="labels",
    )


def _npz_ids(ids: np.ndarray | None, count: int, path: Path) -> np.ndarray:
    if ids is None:
        return row_ids(path.stem, count)
    found = texts_of(ids)
    if ids.shape != (count,) or len(set(found)) != count:
        raise InputError(
            f"`ids` must be unique and one per row; got {list(ids.shape)} with {len(set(found))} different ones for "
            f"{count} rows at {path}. Save one per row."
        )
    return np.array(found, dtype=object)
