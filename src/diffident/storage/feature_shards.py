"""The files of a feature store: its manifest, and safetensors shards with checksums."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffident.errors import InputError
from diffident.files import first_line
from diffident.storage.atomic import atomic_path, write_text

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_MANIFEST_ENTRIES = {
    "encoder": dict,
    "dataset": dict,
    "num_features": int,
    "dtype": str,
    "complete": bool,
    "shards": list,
    "skipped": list,
    "label_names": list | None,
}


def read_manifest(folder: Path) -> dict:
    """The manifest of a store, finished or not.

    Raises:
        InputError: it is no JSON, or lacks an entry; a manifest of another format version is returned as it is.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"`FEATURES` must have a readable manifest; {path}: {first_line(error)}. Extract anew."
        ) from None
    if not isinstance(manifest, dict):
        raise InputError(f"`FEATURES` must have a readable manifest; {path} holds no JSON object. Extract anew.")
    if manifest.get("format_version") == FORMAT_VERSION:
        _check_manifest(manifest, path)
    return manifest


def _check_manifest(manifest: dict, path: Path) -> None:
    wrong = [
        key
        for key, kind in _MANIFEST_ENTRIES.items()
        if not isinstance(manifest.get(key), kind) or isinstance(manifest.get(key), bool) != (kind is bool)
    ]
    if wrong:
        raise InputError(f"`FEATURES` must have a whole manifest; {path} lacks a good {wrong[0]}. Extract anew.")
    others = manifest.get("column_names", {})
    if not isinstance(others, dict) or not all(isinstance(own, list) for own in others.values()):
        raise InputError(f"`FEATURES` must have a whole manifest; {path} lacks good column_names. Extract anew.")
    for number, shard in enumerate(manifest["shards"]):
        good = isinstance(shard, dict) and all(isinstance(shard.get(key), str) for key in ("file", "sha256"))
        if not good or type(shard.get("rows")) is not int or Path(shard["file"]).name != shard["file"]:
            raise InputError(
                f"`FEATURES` must have a whole manifest; {path} lacks a good file, rows or sha256 of shard {number}. "
                "Extract anew."
            )


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write the manifest atomically, the same bytes for the same content."""
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def names_entries(labelled: Any) -> dict:
    """What a manifest says of the names of columns and classes of a `Dataset` or `Features`; the usual is left out."""
    names, others = labelled.label_names, {column: list(own) for column, own in labelled.column_names.items()}
    entries: dict[str, Any] = {"label_names": None if names is None else list(names)}
    if others:
        entries["column_names"] = others
    if labelled.label_column != "label":
        entries["label_column"] = labelled.label_column
    return entries


def write_shard(folder: Path, number: int, values: Float[Tensor, "n d"]) -> dict:
    """Write a shard atomically; its entry for the manifest."""
    name = f"shard-{number:05d}.safetensors"
    with atomic_path(folder / name) as temporary:
        save_file({"features": values.contiguous()}, temporary)
    return {"file": name, "rows": len(values), "sha256": file_digest(folder / name)}


def read_shard(folder: Path, shard: dict, *, check: bool) -> Float[Tensor, "n d"]:
    """The features of a shard; those stored in half precision as float32.

    Args:
        folder: The store.
        shard: Its entry in the manifest.
        check: Whether to compare it with its checksum, which takes about 0.1 s for 150 MB.

    Raises:
        InputError: missing, truncated, of another size than the manifest says or, where that is checked, changed.
    """
    path = folder / shard["file"]
    try:
        values = load_file(path)["features"]
    except Exception as error:
        raise InputError(
            f"`FEATURES` must be whole; {path} cannot be read: {first_line(error)}. Extract again into a new folder."
        ) from None
    if values.ndim != 2 or len(values) != shard["rows"]:
        raise InputError(
            f"`FEATURES` must be whole; {path} is of shape {list(values.shape)}, not [{shard['rows']}, d]. "
            "Extract again into a new folder."
        )
    if check:
        check_digest(folder, shard)
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_digest(folder: Path, shard: dict) -> None:
    """Refuse a shard that is missing or was changed."""
    path = folder / shard["file"]
    if not path.is_file() or file_digest(path) != shard["sha256"]:
        raise InputError(
            f"`FEATURES` must be whole; {path} is missing or was changed. Extract again into a new folder."
        )


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
