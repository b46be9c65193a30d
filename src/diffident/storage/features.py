"""The feature store: a folder of safetensors shards with a manifest and an index; and .npz files made elsewhere."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffident.errors import InputError, did_you_mean
from diffident.records import Features
from diffident.storage.atomic import atomic_path, write_text

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_BLOCK_ROWS = 16_384
_KEYS = ("format_version", "encoder", "dataset", "num_features", "dtype", "complete", "shards", "skipped")


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

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[Float[Tensor, "b d"]]:
        """The features in the data set's order, a shard at a time; can be called again."""
        if self.array is not None:
            yield from self.array.split(_BLOCK_ROWS)
        for shard in self.shards:
            if shard["rows"]:
                yield read_shard(self.path, shard)

    def load(self) -> Features:
        """Everything in memory."""
        values = torch.cat(list(self.blocks()))
        labels = None if self.labels is None else torch.from_numpy(self.labels)
        return Features(self.ids, values, labels, self.label_names, self.encoder, self.columns)

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            InputError: a shard is missing or was changed; names it.
        """
        for shard in self.shards:
            path = self.path / shard["file"]
            if not path.is_file() or file_digest(path) != shard["sha256"]:
                raise InputError(
                    f"`FEATURES` must be whole; {path} is missing or was changed. Extract again into a new folder."
                )


def is_features(path: str | Path) -> bool:
    """Whether this is a feature store, or an .npz with `features`."""
    path = Path(path)
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return "features" in file.files
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
    else:
        raise InputError(
            f"`FEATURES` must be a folder from `diffident extract` or an .npz; got {path}. Run: diffident extract."
        )
    if label_column is None:
        return source
    if label_column not in source.columns:
        if label_column == "label" and source.labels is not None:
            return source
        known = ["label", *source.columns]
        raise InputError(
            f"`label_column` must be one of {path}'s; got `{label_column}`. {did_you_mean(label_column, known)}"
        )
    labels, names = source.columns[label_column], source.label_names
    if len(labels) and labels.min() < 0:
        raise InputError(f"`{label_column}` must be at least 0; got {labels.min()} in {path}. Choose another column.")
    names = names if names is not None and labels.max() < len(names) else None
    values = {**vars(source), "labels": labels, "label_names": names}
    return FeatureSource(**values)


def read_manifest(folder: Path) -> dict:
    """The manifest of a store, finished or not."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"`FEATURES` must have a readable manifest; {path}: {error}. Extract anew.") from None
    missing = [key for key in _KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise InputError(f"`FEATURES` must have a whole manifest; {path} lacks {', '.join(missing)}. Extract anew.")
    return manifest


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write the manifest atomically, the same bytes for the same content."""
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_shard(folder: Path, number: int, values: Float[Tensor, "n d"]) -> dict:
    """Write a shard atomically; its entry for the manifest."""
    name = f"shard-{number:05d}.safetensors"
    with atomic_path(folder / name) as temporary:
        save_file({"features": values.contiguous()}, temporary)
    return {"file": name, "rows": len(values), "sha256": file_digest(folder / name)}


def read_shard(folder: Path, shard: dict) -> Float[Tensor, "n d"]:
    """The features of a shard; those stored in half precision as float32.

    Raises:
        InputError: missing, truncated or of another size than the manifest says.
    """
    path = folder / shard["file"]
    try:
        values = load_file(path)["features"]
    except Exception as error:
        raise InputError(
            f"`FEATURES` must be whole; {path} cannot be read: {error}. Extract again into a new folder."
        ) from None
    if len(values) != shard["rows"]:
        raise InputError(
            f"`FEATURES` must be whole; {path} has {len(values)} rows, not {shard['rows']}. Extract again."
        )
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def write_index(folder: Path, ids: np.ndarray, labels: np.ndarray | None, columns: dict, shards: list[dict]) -> None:
    """Write `index.parquet`: where each sample's features are."""
    rows = [shard["rows"] for shard in shards]
    table = {"id": pa.array(list(ids), pa.string())}
    if labels is not None:
        table["label"] = pa.array(labels, pa.int64())
    table["shard"] = pa.array(np.repeat(np.arange(len(rows)), rows), pa.int64())
    table["row"] = pa.array(np.concatenate([np.arange(count) for count in rows]), pa.int64())
    for name, column in columns.items():
        if name not in table:
            table[name] = pa.array(column, pa.int64())
    with atomic_path(folder / "index.parquet") as temporary:
        pq.write_table(pa.table(table), temporary)


def save_features(features: Features, path: str | Path) -> FeatureSource:
    """Write features that are in memory as a store, in one shard."""
    folder = Path(path)
    if (folder / MANIFEST).exists():
        raise InputError(f"`path` must be new; {folder} holds features already. Choose another folder.")
    shards = [write_shard(folder, 0, features.values)]
    labels = None if features.labels is None else features.labels.numpy()
    write_index(folder, features.ids, labels, features.columns, shards)
    names = None if features.label_names is None else list(features.label_names)
    manifest = {"format_version": FORMAT_VERSION, "encoder": {"name": features.encoder, "fingerprint": "unknown"}}
    dataset = {"name": "memory", "fingerprint": "unknown"}
    dtype = str(features.values.dtype).removeprefix("torch.")
    manifest |= {"dataset": dataset, "label_names": names, "num_features": features.values.shape[1], "dtype": dtype}
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
    table = pq.read_table(path / "index.parquet")
    names = manifest["label_names"]
    used = ("id", "label", "shard", "row")
    return FeatureSource(
        path=path,
        ids=np.array(table["id"].to_pylist(), dtype=object),
        labels=table["label"].to_numpy().copy() if "label" in table.column_names else None,
        label_names=None if names is None else tuple(names),
        columns={name: table[name].to_numpy().copy() for name in table.column_names if name not in used},
        encoder=manifest["encoder"]["name"],
        num_features=manifest["num_features"],
        shards=tuple(manifest["shards"]),
    )


def _open_npz(path: Path) -> FeatureSource:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError) as error:
        raise InputError(f"`FEATURES` must be a readable .npz; {path} is not: {error}. Write it anew.") from None
    values = arrays.pop("features", None)
    if values is None or values.ndim != 2 or not len(values) or values.dtype.kind != "f":
        got = f"it holds {', '.join(arrays)}" if values is None else f"got {values.dtype} {list(values.shape)}"
        raise InputError(
            f"`features` must be floats [n, d] with n at least 1; {got} at {path}. Save it under that name."
        )
    count = len(values)
    ids = arrays.pop("ids", None)
    if ids is None:
        ids = [f"{path.stem}:{row:0{max(6, len(str(count)))}d}" for row in range(count)]
    if len(ids) != count or len(set(map(str, ids))) != count:
        raise InputError(
            f"`ids` must be unique and one per row; got {len(set(map(str, ids)))} for {count} rows at {path}."
        )
    names = arrays.pop("label_names", None)
    columns = {key: a.astype(np.int64) for key, a in arrays.items() if a.shape == (count,) and a.dtype.kind in "iu"}
    labels = columns.pop("labels", None)
    if "labels" in arrays and labels is None:
        got = arrays["labels"]
        raise InputError(
            f"`labels` must be integers [{count}]; got {got.dtype} {list(got.shape)} at {path}. Save one per row."
        )
    return FeatureSource(
        path=path,
        ids=np.array([str(sample) for sample in ids], dtype=object),
        labels=labels,
        label_names=None if names is None else tuple(map(str, names)),
        columns=columns,
        encoder="unknown",
        num_features=values.shape[1],
        array=torch.from_numpy(values),
    )


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
