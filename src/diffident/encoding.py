"""From samples to features, a shard at a time: decoding beside the model, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.data.dataset import Dataset
from diffident.encoders.protocol import Encoder
from diffident.errors import DiffidentError, InputError, UnreadableSampleError
from diffident.storage.feature_shards import write_shard
from diffident.storage.shard_records import ShardRecord, read_record

DTYPES = {"float32": torch.float32, "float16": torch.float16}
_BATCHES_AHEAD = 4
_CHUNKS = 8


@dataclass(frozen=True)
class Settings:
    """How shards are made.

    Attributes:
        batch_size: Samples that the model gets at once.
        shard_size: Samples of a shard, a multiple of `batch_size`.
        num_workers: Threads that decode, or None for the number of cores, at most 8.
        on_error: `fail` or `skip`.
        dtype: `float32` or `float16`.
    """

    batch_size: int
    shard_size: int
    num_workers: int | None
    on_error: str
    dtype: str


@dataclass(frozen=True)
class Job:
    """What every shard is made with; shard k holds the positions from k * shard_size on."""

    dataset: Dataset
    encoder: Encoder
    settings: Settings

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.dataset) // self.settings.shard_size)

    def span(self, number: int) -> np.ndarray:
        """The positions of a shard's samples."""
        start = number * self.settings.shard_size
        return np.arange(start, min(start + self.settings.shard_size, len(self.dataset)))


@dataclass(frozen=True)
class Shard:
    """A shard in memory: features of the positions that were kept, and the ids of those that were not."""

    values: Float[Tensor, "n d"]
    kept: np.ndarray
    skipped: list[str]


@contextmanager
def reading_threads(num_workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads that decode and preprocess; what waits is dropped at the end."""
    pool = ThreadPoolExecutor(min(8, _num_cores()) if num_workers is None else num_workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def make_shard(
    job: Job,
    pool: ThreadPoolExecutor,
    folder: Path,
    number: int,
    width: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> ShardRecord:
    """Encode a shard and write it, unless it is there already with its record.

    Args:
        job: What it is made with.
        pool: Threads that decode.
        folder: The store.
        number: Which shard.
        width: Features of the other shards, or 0 where that is not known.
        report: Called with (samples done, total).
    """
    record = read_record(folder, number)
    if record is not None and not (record.skipped and job.settings.on_error == "fail"):
        return record
    shard = encode(job, pool, job.span(number), width, report)
    entry = write_shard(folder, number, shard.values)
    return ShardRecord(number, entry, shard.values.shape[1], shard.skipped)


def _num_cores() -> int:
    """The cores that this process may use, which are fewer in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode(
    job: Job, pool: ThreadPoolExecutor, span: np.ndarray, width: int, report: Callable[[int, int], None]
) -> Shard:
    """Features of a span of positions; a few batches are decoded ahead of the model.

    Args:
        job: What every shard is made with.
        pool: Threads that decode.
        span: The positions.
        width: Features of the shards before, or 0.
        report: Called with (samples done, total).
    """
    settings = job.settings
    batches, kept, skipped = [], [], []
    with closing(_prepared_batches(job, pool, span)) as prepared_batches:
        for positions, prepared in prepared_batches:
            good = []
            for position, (sample, error) in zip(positions, prepared, strict=True):
                if error is None:
                    good.append(sample)
                    kept.append(int(position))
                elif settings.on_error == "skip":
                    skipped.append(str(job.dataset.ids[position]))
                else:
                    raise UnreadableSampleError(f"{error} Or leave such samples out with --on-error skip.") from None
            if good:
                ids = job.dataset.ids[kept[-len(good) :]]
                batches.append(_checked(job.encoder.encode(good), ids, width, DTYPES[settings.dtype]))
                width = batches[-1].shape[1]
            report(int(positions[-1]) + 1, len(job.dataset))
    values = torch.cat(batches) if batches else torch.zeros(0, width, dtype=DTYPES[settings.dtype])
    return Shard(values, np.array(kept, dtype=np.int64), skipped)


def _prepared_batches(job: Job, pool: ThreadPoolExecutor, span: np.ndarray) -> Generator[tuple[np.ndarray, list]]:
    waiting: deque[tuple[np.ndarray, list[Future]]] = deque()
    try:
        for start in range(0, len(span), job.settings.batch_size):
            positions = span[start : start + job.settings.batch_size]
            if job.dataset.modality == "vector":  # there is nothing to decode: handing it over would take longest
                yield positions, _prepare(job, positions)
                continue
            chunks = np.array_split(positions, min(len(positions), _CHUNKS))
            waiting.append((positions, [pool.submit(_prepare, job, chunk) for chunk in chunks]))
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


def _prepare(job: Job, positions: np.ndarray) -> list[tuple[Any, UnreadableSampleError | None]]:
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
        row = int((~stored.isfinite().all(dim=1)).nonzero()[0])
        raise InputError(
            f"`encoder` must give features below {torch.finfo(dtype).max:g}; got {values[row].abs().max():g} at sample "
            f"`{ids[row]}`. Choose --dtype float32."
        )
    return stored
