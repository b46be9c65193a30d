"""From a data set and an encoder to features; resumable, in bounded memory, with decoding beside the model."""

import os
import re
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
from diffident.errors import DiffidentError, InputError, ResumeError, UnreadableSampleError
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

DTYPES = {"float32": torch.float32, "float16": torch.float16}
_BATCHES_AHEAD = 4
_CHUNKS = 8
_LEFTOVER = re.compile(r"\.(shard-\d+\.safetensors|manifest\.json|index\.parquet)\.[0-9a-f]{8}\.tmp")
_SHOWN_LENGTH = 60


@dataclass(frozen=True)
class _Job:
    """What every shard is made with."""

    dataset: Dataset
    encoder: Encoder
    pool: ThreadPoolExecutor
    batch_size: int
    on_error: str
    dtype: torch.dtype
    report: Callable[[int, int], None]


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
    dtype: str = "float32",
    on_error: str = "fail",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureSource | Features:
    """Features of every sample, in the data set's order.

    Args:
        dataset: A data set, or what `open_dataset` takes.
        encoder: An encoder, or what `open_encoder` takes.
        out: Folder of the feature store; an unfinished one is resumed, and ends in the same bytes. No more than one
            shard is in memory. Without it the features are kept in memory.
        batch_size: Samples that the model gets at once.
        shard_size: Samples of a file; rounded up to whole batches.
        num_workers: Threads that decode and preprocess (default: the number of cores, at most 8).
        dtype: How `out` stores features: `float32`, or `float16` for half the space and three digits.
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
    encoder = open_encoder(encoder)
    num_workers = min(8, _num_cores()) if num_workers is None else num_workers
    _check(dataset, encoder, batch_size, shard_size, num_workers, on_error, dtype)
    shard_size = -(-shard_size // batch_size) * batch_size
    starts = range(0, len(dataset), shard_size)
    spans = [np.arange(start, min(start + shard_size, len(dataset))) for start in starts]
    pool = ThreadPoolExecutor(num_workers)
    report = progress or (lambda done, total: None)
    job = _Job(dataset, encoder, pool, batch_size, on_error, DTYPES[dtype], report)
    try:
        if out is None:
            return _in_memory(job, spans)
        return _to_store(Path(out), _start_manifest(job, shard_size, dtype), job, spans)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_cores() -> int:
    """The cores that this process may use, which are fewer in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_memory(job: _Job, spans: list[np.ndarray]) -> Features:
    shards: list[_Shard] = []
    width = 0
    for span in spans:
        shards.append(_encode(job, span, width))
        width = width or shards[-1].values.shape[1]
    rest = _readable(job.dataset, np.concatenate([shard.kept for shard in shards]))
    labels = None if rest.labels is None else torch.from_numpy(rest.labels)
    values = torch.cat([shard.values for shard in shards if len(shard.kept)])
    return Features(rest.ids, values, labels, rest.label_names, job.encoder.name, rest.columns)


def _to_store(folder: Path, wanted: dict, job: _Job, spans: list[np.ndarray]) -> FeatureSource:
    manifest = _resumed(folder, wanted)
    for number in range(len(manifest["shards"]), len(spans)):
        shard = _encode(job, spans[number], manifest["num_features"])
        # The width stays 0 while every sample was skipped.
        manifest["num_features"] = manifest["num_features"] or shard.values.shape[1]
        manifest["shards"].append(write_shard(folder, number, shard.values))
        manifest["skipped"] += shard.skipped
        write_manifest(folder, manifest)
    skipped = np.array(manifest["skipped"], dtype=str)
    rest = _readable(job.dataset, np.flatnonzero(~np.isin(job.dataset.ids.astype(str), skipped)))
    write_index(folder, rest.ids, rest.labels, rest.columns, manifest["shards"])
    write_manifest(folder, manifest | {"complete": True, "num_samples": len(rest)})
    return open_features(folder)


def _readable(dataset: Dataset, kept: np.ndarray) -> Dataset:
    if not len(kept):
        raise UnreadableSampleError(f"`DATA` must hold a readable sample; all {len(dataset)} of {dataset.name} failed.")
    return dataset.select(kept)


def _start_manifest(job: _Job, shard_size: int, dtype: str) -> dict:
    dataset, encoder = job.dataset, job.encoder
    return {
        "format_version": FORMAT_VERSION,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint, "parts": encoder.parts},
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "num_samples": len(dataset)},
        "settings": {"batch_size": job.batch_size, "shard_size": shard_size, "on_error": job.on_error},
        "label_names": None if dataset.label_names is None else list(dataset.label_names),
        "num_features": 0,
        "dtype": dtype,
        "num_samples": len(dataset),
        "complete": False,
        "shards": [],
        "skipped": [],
    }


def _resumed(folder: Path, wanted: dict) -> dict:
    """The manifest to go on from: the folder's if it fits, else an empty one."""
    for path in folder.glob(".*.tmp"):
        # A process that was killed while it wrote leaves its temporary file.
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if not (folder / MANIFEST).exists():
        if folder.exists() and (not folder.is_dir() or any(not e.name.startswith(".") for e in folder.iterdir())):
            held = "holds other files" if folder.is_dir() else "is a file"
            raise InputError(f"`--out` must be new or hold features; got {folder}, which {held}. Choose another.")
        write_manifest(folder, wanted)
        return wanted
    found = read_manifest(folder)
    _check_same(folder, found, wanted)
    for shard in found["shards"]:
        path = folder / shard["file"]
        if not path.is_file() or file_digest(path) != shard["sha256"]:
            raise ResumeError(
                f"`--out` must hold whole shards; {path} is missing or was changed. Delete {folder}, start anew."
            )
    # Neither changes the features that are there already: what is asked for now counts.
    return found | {"label_names": wanted["label_names"], "settings": wanted["settings"]}


def _check_same(folder: Path, found: dict, wanted: dict) -> None:
    for part in ("format_version", "dataset", "encoder", "settings", "dtype"):
        differences = _differences(part, found.get(part), wanted[part])
        if differences:
            raise ResumeError(
                f"`--out` must hold features of the same {part}; {folder} has another: {'; '.join(differences)}. "
                "Choose another folder, or delete this one."
            )
    if found["skipped"] and wanted["settings"]["on_error"] == "fail":
        raise ResumeError(
            f"`--out` must hold features without skipped samples; {folder} left out {len(found['skipped'])}, the first "
            f"is `{found['skipped'][0]}`. Give --on-error skip, or choose another folder."
        )


def _differences(part: str, found: Any, wanted: Any) -> list[str]:
    """What differs, in words; the same encoder by another name, and skipping errors from now on, are no difference."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [] if found == wanted else [f"{found}, now {wanted}"]
    if part == "encoder" and found.get("fingerprint") == wanted["fingerprint"]:
        return []
    found, wanted = ({**record, **record.get("parts", {})} for record in (found, wanted))
    words = []
    for key in [key for key in {**found, **wanted} if key not in ("parts", "on_error")]:
        before, now = found.get(key), wanted.get(key)
        if before == now or (key == "fingerprint" and part == "encoder"):
            continue
        long = max(len(str(before)), len(str(now))) > _SHOWN_LENGTH
        words.append(f"other {key}" if long else f"{key} {_shown(before)}, now {_shown(now)}")
    return [word.replace("other fingerprint", "other samples, contents or columns") for word in words]


def _shown(value: Any) -> str:
    return "its own" if value is None else str(value)


def _encode(job: _Job, span: np.ndarray, width: int) -> _Shard:
    """Features of a span of positions; a few batches are decoded ahead of the model.

    Args:
        job: What every shard is made with.
        span: The positions.
        width: Features of the shards before, or 0.
    """
    batches, kept, skipped = [], [], []
    with closing(_prepared_batches(job, span)) as prepared_batches:
        for positions, prepared in prepared_batches:
            good = []
            for position, (sample, error) in zip(positions, prepared, strict=True):
                if error is None:
                    good.append(sample)
                    kept.append(int(position))
                elif job.on_error == "skip":
                    skipped.append(str(job.dataset.ids[position]))
                else:
                    raise UnreadableSampleError(f"{error} Or leave such samples out with --on-error skip.") from None
            if good:
                ids = job.dataset.ids[kept[-len(good) :]]
                batches.append(_checked(job.encoder.encode(good), ids, width, job.dtype))
                width = batches[-1].shape[1]
            job.report(int(positions[-1]) + 1, len(job.dataset))
    values = torch.cat(batches) if batches else torch.zeros(0, width, dtype=job.dtype)
    return _Shard(values, np.array(kept, dtype=np.int64), skipped)


def _prepared_batches(job: _Job, span: np.ndarray) -> Generator[tuple[np.ndarray, list]]:
    waiting: deque[tuple[np.ndarray, list[Future]]] = deque()
    try:
        for start in range(0, len(span), job.batch_size):
            positions = span[start : start + job.batch_size]
            chunks = np.array_split(positions, min(len(positions), _CHUNKS))
            waiting.append((positions, [job.pool.submit(_prepare, job, chunk) for chunk in chunks]))
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


def _prepare(job: _Job, positions: np.ndarray) -> list[tuple[Any, UnreadableSampleError | None]]:
    prepared = []
    for position in positions:
        try:
            prepared.append((job.encoder.prepare(job.dataset[position]), None))
        except UnreadableSampleError as error:
            prepared.append((None, error))
        except DiffidentError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            unreadable = UnreadableSampleError(
                f"sample `{job.dataset.ids[position]}` must be one that {job.encoder.name} can take; {reason}. Replace "
                "or remove it."
            )
            prepared.append((None, unreadable))
    return prepared


def _checked(values: Tensor, ids: np.ndarray, width: int, dtype: torch.dtype) -> Float[Tensor, "n d"]:
    """The encoder's output as it is stored, if it is what it should be."""
    count = len(ids)
    if values.ndim != 2 or len(values) != count or not values.shape[1]:
        raise InputError(f"`encoder` must give [{count}, d] for {count} samples; got {list(values.shape)}. Mend it.")
    if width and values.shape[1] != width:
        raise InputError(
            f"`encoder` must give [n, {width}] throughout; got {list(values.shape)} from sample `{ids[0]}` on. Mend it."
        )
    if not bool(values.isfinite().all()):
        sample = ids[int((~values.isfinite().all(dim=1)).nonzero()[0])]
        raise InputError(
            f"`encoder` must give finite features; got NaN or infinity at sample `{sample}`. Try --precision float32."
        )
    stored = values.to("cpu", dtype)
    if not bool(stored.isfinite().all()):
        sample = ids[int((~stored.isfinite().all(dim=1)).nonzero()[0])]
        raise InputError(
            f"`encoder` must give features below {torch.finfo(dtype).max:g}; got {values.abs().max():g} at sample "
            f"`{sample}`. Choose --dtype float32."
        )
    return stored


def _check(
    dataset: Dataset, encoder: Encoder, batch_size: int, shard_size: int, num_workers: int, on_error: str, dtype: str
) -> None:
    if not len(dataset):
        raise InputError(f"`DATA` must hold samples; {dataset.name} has none. Choose another.")
    if encoder.modality not in (dataset.modality, "any"):
        raise InputError(
            f"`encoder` must take {dataset.modality} samples, which {dataset.name} has; {encoder.name} takes "
            f"{encoder.modality}. Choose another encoder or name another column."
        )
    counts = {"batch_size": batch_size, "shard_size": shard_size, "num_workers": num_workers}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"`{name}` must be at least 1; got {count}. Leave it out for the default.")
    choices = {"on_error": (on_error, ("fail", "skip")), "dtype": (dtype, tuple(DTYPES))}
    for name, (value, known) in choices.items():
        if value not in known:
            raise InputError(f"`{name}` must be {' or '.join(known)}; got {value!r}. Leave it out for the default.")
