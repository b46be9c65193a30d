"""From a data set and an encoder to features; resumable, in bounded memory, with decoding beside the model."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.encoders import open_encoder
from diffident.encoders.protocol import Encoder
from diffident.errors import InputError, ResumeError, UnreadableSampleError
from diffident.records import Features
from diffident.storage.features import (
    FORMAT_VERSION,
    MANIFEST,
    FeatureSource,
    file_digest,
    open_features,
    read_manifest,
    write_index,
    write_manifest,
    write_shard,
)

_BATCHES_AHEAD = 4


@dataclass(frozen=True)
class _Shard:
    values: Float[Tensor, "n d"]
    kept: np.ndarray
    skipped: list[str]


def extract(
    dataset: Dataset | str | Path,
    encoder: Encoder | str | Callable,
    *,
    out: str | Path | None = None,
    batch_size: int = 64,
    shard_size: int = 4096,
    num_workers: int | None = None,
    on_error: str = "fail",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureSource | Features:
    """Features of every sample, in the data set's order.

    Args:
        dataset: A data set, or what `open_dataset` takes.
        encoder: An encoder, or what `open_encoder` takes.
        out: Folder of the feature store; an unfinished one is resumed, and ends in the same bytes. Without it the
            features are kept in memory.
        batch_size: Samples that the model gets at once.
        shard_size: Samples of a file; rounded up to whole batches.
        num_workers: Threads that decode and preprocess (default: the number of cores, at most 8).
        on_error: What an unreadable sample does: `fail`, or `skip` (the manifest lists the skipped ids).
        progress: Called with (done, total).

    Returns:
        The opened store, or `Features` where `out` is None.

    Raises:
        UnreadableSampleError: a sample cannot be decoded; names it.
        ResumeError: `out` holds features of another data set, encoder or setting; says which.
        InputError: text for an image encoder or the like; an encoder that gives no finite [n, d].
    """
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    encoder = encoder if isinstance(encoder, Encoder) else open_encoder(encoder)
    _check(dataset, encoder, batch_size, shard_size, on_error)
    shard_size = -(-shard_size // batch_size) * batch_size
    starts = range(0, len(dataset), shard_size)
    spans = [np.arange(start, min(start + shard_size, len(dataset))) for start in starts]
    num_workers = num_workers or min(8, os.cpu_count() or 1)
    report = progress or (lambda done, total: None)
    with ThreadPoolExecutor(num_workers) as pool:
        if out is None:
            return _in_memory(dataset, encoder, spans, pool, batch_size, on_error, report)
        manifest = _start_manifest(dataset, encoder, batch_size, shard_size, on_error)
        return _to_store(Path(out), manifest, dataset, encoder, spans, pool, report)


def _in_memory(dataset, encoder, spans, pool, batch_size, on_error, report) -> Features:
    shards = [_encode(dataset, encoder, span, pool, batch_size, on_error, report) for span in spans]
    kept = np.concatenate([shard.kept for shard in shards])
    if not len(kept):
        raise UnreadableSampleError(f"`DATA` must hold a readable sample; all {len(dataset)} of {dataset.name} failed.")
    rest = dataset.select(kept)
    labels = None if rest.labels is None else torch.from_numpy(rest.labels)
    values = torch.cat([shard.values for shard in shards if len(shard.kept)])
    return Features(rest.ids, values, labels, rest.label_names, encoder.name, rest.columns)


def _to_store(folder: Path, manifest: dict, dataset, encoder, spans, pool, report) -> FeatureSource:
    manifest = _resumed(folder, manifest)
    settings = manifest["settings"]
    for number in range(len(manifest["shards"]), len(spans)):
        shard = _encode(dataset, encoder, spans[number], pool, settings["batch_size"], settings["on_error"], report)
        width = manifest["num_features"]
        if len(shard.kept) and width and shard.values.shape[1] != width:
            raise InputError(
                f"`encoder` must give [n, {width}] throughout; got {list(shard.values.shape)} at shard {number}."
            )
        if len(shard.kept):
            manifest["num_features"] = shard.values.shape[1]
        manifest["shards"].append(write_shard(folder, number, shard.values))
        manifest["skipped"] += shard.skipped
        write_manifest(folder, manifest)
    rest = dataset.select(np.flatnonzero(~np.isin(dataset.ids.astype(str), np.array(manifest["skipped"], dtype=str))))
    if not len(rest):
        raise UnreadableSampleError(f"`DATA` must hold a readable sample; all {len(dataset)} of {dataset.name} failed.")
    write_index(folder, rest.ids, rest.labels, rest.columns, manifest["shards"])
    write_manifest(folder, manifest | {"complete": True, "num_samples": len(rest)})
    return open_features(folder)


def _start_manifest(dataset: Dataset, encoder: Encoder, batch_size: int, shard_size: int, on_error: str) -> dict:
    return {
        "format_version": FORMAT_VERSION,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "settings": {"batch_size": batch_size, "shard_size": shard_size, "on_error": on_error},
        "label_names": None if dataset.label_names is None else list(dataset.label_names),
        "num_features": 0,
        "dtype": "float32",
        "num_samples": len(dataset),
        "complete": False,
        "shards": [],
        "skipped": [],
    }


def _resumed(folder: Path, wanted: dict) -> dict:
    """The manifest to go on from: the folder's if it fits, else an empty one."""
    if not (folder / MANIFEST).exists():
        if folder.is_dir() and any(entry for entry in folder.iterdir() if not entry.name.startswith(".")):
            raise InputError(
                f"`--out` must be new or hold features; got {folder}, which holds other files. Choose another."
            )
        write_manifest(folder, wanted)
        return wanted
    found = read_manifest(folder)
    for part in ("format_version", "dataset", "encoder", "settings"):
        if found.get(part) != wanted[part]:
            raise ResumeError(
                f"`--out` must hold features of the same {part}; {folder} was made with {_short(found.get(part))}, "
                f"now it is {_short(wanted[part])}. Choose another folder, or delete this one."
            )
    for shard in found["shards"]:
        path = folder / shard["file"]
        if not path.is_file() or file_digest(path) != shard["sha256"]:
            raise ResumeError(
                f"`--out` must hold whole shards; {path} is missing or was changed. Delete {folder}, start anew."
            )
    # The labels do not change the features: those asked for now go into the index.
    return found | {"label_names": wanted["label_names"]}


def _short(part: Any) -> str:
    if isinstance(part, dict):
        return ", ".join(f"{key} {str(value)[:40]}" for key, value in part.items())
    return str(part)


def _encode(dataset, encoder, span, pool, batch_size, on_error, report) -> _Shard:
    """Features of a span of positions; a few batches are decoded ahead of the model."""
    batches, kept, skipped = [], [], []
    for positions, prepared in _prepared_batches(dataset, encoder, span, pool, batch_size):
        good = []
        for position, (sample, error) in zip(positions, prepared, strict=True):
            if error is None:
                good.append(sample)
                kept.append(int(position))
            elif on_error == "skip":
                skipped.append(str(dataset.ids[position]))
            else:
                raise UnreadableSampleError(f"{error} Or leave such samples out with --on-error skip.") from None
        if good:
            batches.append(_checked(encoder.encode(good), len(good), dataset, kept[-len(good) :]))
        report(int(positions[-1]) + 1, len(dataset))
    values = torch.cat(batches) if batches else torch.zeros(0, 1)
    return _Shard(values, np.array(kept, dtype=np.int64), skipped)


def _prepared_batches(dataset, encoder, span, pool, batch_size) -> Iterator[tuple[np.ndarray, list]]:
    waiting: deque[tuple[np.ndarray, list[Future]]] = deque()
    try:
        for start in range(0, len(span), batch_size):
            positions = span[start : start + batch_size]
            chunks = np.array_split(positions, min(len(positions), 8))
            waiting.append((positions, [pool.submit(_prepare, dataset, encoder, chunk) for chunk in chunks]))
            if len(waiting) > _BATCHES_AHEAD:
                done, futures = waiting.popleft()
                yield done, [pair for future in futures for pair in future.result()]
        while waiting:
            done, futures = waiting.popleft()
            yield done, [pair for future in futures for pair in future.result()]
    finally:
        for _, futures in waiting:
            for future in futures:
                future.cancel()


def _prepare(
    dataset: Dataset, encoder: Encoder, positions: np.ndarray
) -> list[tuple[Any, UnreadableSampleError | None]]:
    prepared = []
    for position in positions:
        try:
            prepared.append((encoder.prepare(dataset[position]), None))
        except UnreadableSampleError as error:
            prepared.append((None, error))
    return prepared


def _checked(values: Tensor, num_samples: int, dataset: Dataset, positions: list[int]) -> Tensor:
    if values.ndim != 2 or len(values) != num_samples:
        raise InputError(
            f"`encoder` must give [{num_samples}, d] for {num_samples} samples; got {list(values.shape)}. Mend it."
        )
    finite = values.isfinite().all(dim=1)
    if not bool(finite.all()):
        sample = dataset.ids[positions[int((~finite).nonzero()[0])]]
        raise InputError(
            f"`encoder` must give finite features; got NaN or infinity at sample `{sample}`. Try --precision float32."
        )
    return values.float().cpu()


def _check(dataset: Dataset, encoder: Encoder, batch_size: int, shard_size: int, on_error: str) -> None:
    if encoder.modality not in (dataset.modality, "any"):
        raise InputError(
            f"`encoder` must take {dataset.modality} samples, which {dataset.name} has; {encoder.name} takes "
            f"{encoder.modality}. Choose another encoder or name another column."
        )
    if batch_size < 1 or shard_size < 1:
        raise InputError(f"`batch_size` and `shard_size` must be at least 1; got {batch_size} and {shard_size}.")
    if on_error not in ("fail", "skip"):
        raise InputError(f"`on_error` must be `fail` or `skip`; got {on_error!r}.")
