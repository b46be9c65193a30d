"""What runs on the machines of a cluster. Nothing here imports Ray before it runs there."""

import os
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffident.difficulties import rmd
from diffident.difficulties.protocol import Scores
from diffident.encoding import Job, Settings, make_shard, reading_threads
from diffident.errors import DiffidentError, ResumeError, WorkerError
from diffident.files import first_line
from diffident.gaussian import Gaussians, GaussianStatistics
from diffident.storage.feature_shards import read_shard
from diffident.storage.shard_records import ShardRecord, write_record

_MOST_ATTEMPTS = 4


@dataclass(frozen=True)
class Order:
    """All that a worker needs to make shards.

    Attributes:
        folder: The store, an absolute path.
        working_folder: Where relative paths start.
        settings: How shards are made.
        cores: Cores of the worker.
        dataset: A function that opens the data set, or a reference to it in Ray's object store.
        encoder: A function that opens the encoder, or a reference to it.
        fingerprints: What the opened ones must have: that of `dataset` and of `encoder`.
    """

    folder: Path
    working_folder: Path
    settings: Settings
    cores: int
    dataset: Any
    encoder: Any
    fingerprints: dict[str, str]


class ShardWorker:
    """Holds the encoder and makes one shard after another; errors are results, so that they keep their type."""

    def __init__(self, order: Order):
        self._order = order
        self._job: Job | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row of a shard's number with the pickled `ShardRecord` or error as `result`."""
        try:
            return {"result": pickle.dumps(self._make(int(row["number"])))}
        except DiffidentError as error:
            return {"result": pickle.dumps(error)}
        except Exception as error:
            return {"result": pickle.dumps(_foreign(error))}

    def _make(self, number: int) -> ShardRecord:
        self._job = self._job or _open_job(self._order)
        num_workers = self._order.settings.num_workers or min(8, self._order.cores)
        with _attempt(self._order.folder, self._job, number), reading_threads(num_workers) as pool:
            record = make_shard(self._job, pool, self._order.folder, number)
            write_record(self._order.folder, record)
        return record


def _foreign(error: Exception) -> WorkerError:
    """What the user's own encoder or data set raised, in one line; the worker's traceback is a note."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    failed = WorkerError(
        f"a worker failed: {type(error).__name__}: {first_line(error)} (line {place.lineno} of {place.filename}). What "
        "was finished is kept. Mend it, and run the same again."
    )
    failed.add_note(traceback.format_exc())
    return failed


@contextmanager
def _attempt(folder: Path, job: Job, number: int) -> Iterator[None]:
    """Count the attempts that ended in the death of their worker; Ray itself would go round with it for ever."""
    marks = folder / f".shard-{number:05d}.attempts"
    with open(marks, "ab") as file:
        file.write(b".")
    if marks.stat().st_size > _MOST_ATTEMPTS:
        ids = job.dataset.ids[job.span(number)]
        raise WorkerError(
            f"`DATA` must not kill its workers; {_MOST_ATTEMPTS} died of samples `{ids[0]}` to `{ids[-1]}`. Lower "
            "--batch-size or --concurrency if memory ran out, or remove the sample at fault."
        )
    try:
        yield
    finally:
        marks.unlink(missing_ok=True)


def forget_attempts(folder: Path) -> None:
    """Begin to count anew."""
    for marks in folder.glob(".shard-*.attempts"):
        marks.unlink(missing_ok=True)


def _open_job(order: Order) -> Job:
    if order.working_folder.is_dir():
        os.chdir(order.working_folder)
    torch.set_num_threads(order.cores)
    job = Job(_opened(order.dataset), _opened(order.encoder), order.settings)
    for name, wanted in order.fingerprints.items():
        found = getattr(job, name)
        if found.fingerprint != wanted:
            raise ResumeError(
                f"`{name}` must be the same on every machine; {found.name} is another on {os.uname().nodename}. Share "
                "its files between the machines, and name --device and --precision if these differ."
            )
    return job


def _opened(thing: Any) -> Any:
    if callable(thing):
        return thing()
    import ray

    return ray.get(thing)


@dataclass(frozen=True)
class Part:
    """Some of a store's shards in a row, with their labels.

    Attributes:
        folder: The store, an absolute path.
        shards: Their entries in the manifest; each has rows.
        labels: int64 (n,).
        first_row: Row of the store that the first of them is.
    """

    folder: Path
    shards: tuple[dict, ...]
    labels: np.ndarray
    first_row: int

    def blocks(self, *, check: bool = False) -> Any:
        """The features, a shard at a time; compared with their checksums if so asked."""
        return (read_shard(self.folder, shard, check=check) for shard in self.shards)


def part_statistics(part: Part, num_classes: int) -> GaussianStatistics:
    """The statistics of a part, whose shards are checked on the way; errors number the rows of the whole store."""
    return rmd.statistics_of(lambda: part.blocks(check=True), part.labels, num_classes, first_row=part.first_row)


def merge_statistics(first: GaussianStatistics, *others: GaussianStatistics) -> GaussianStatistics:
    """The statistics of several parts."""
    for other in others:
        first = first.merge(other)
    return first


def part_scores(state: Gaussians, part: Part) -> Scores:
    """The scores of a part."""
    return rmd.score(state, part.blocks, part.labels)
