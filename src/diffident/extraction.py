"""From a data set and an encoder to features: a store that is resumable, here or with the help of an engine."""

import re
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.encoders import open_encoder
from diffident.encoders.protocol import Encoder
from diffident.encoding import DTYPES, Job, Settings, Shard, encode, make_shard, reading_threads
from diffident.errors import InputError, ResumeError, UnreadableSampleError
from diffident.records import Features
from diffident.storage.feature_shards import (
    FORMAT_VERSION,
    MANIFEST,
    file_digest,
    names_entries,
    read_manifest,
    write_manifest,
    write_shard,
)
from diffident.storage.features import FeatureSource, open_features, write_index
from diffident.storage.shard_records import ShardRecord, remove_records

_LEFTOVER = re.compile(r"\.(shard-\d+\.(safetensors|json)|manifest\.json|index\.parquet)\.[0-9a-f]{8}\.tmp")
_SHOWN_LENGTH = 60


@runtime_checkable
class Engine(Protocol):
    """Makes shards elsewhere than in this process."""

    def make_shards(
        self, job: Job, folder: Path, numbers: range, report: Callable[[int, int], None]
    ) -> Generator[ShardRecord]:
        """The shards of these numbers in any order, by `make_shard`; `report` is called with (samples done, total)."""
        ...


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
    engine: Engine | None = None,
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
        engine: Where shards are made (default: in this process); needs `out`. The files are the same.

    Returns:
        The opened store, or `Features` where `out` is None.

    Raises:
        UnreadableSampleError: a sample cannot be decoded; names it.
        ResumeError: `out` holds features of another data set, encoder or setting; says which.
        InputError: text for an image encoder or the like; an encoder that gives no finite [n, d].
    """
    dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    encoder = open_encoder(encoder)
    _check(dataset, encoder, batch_size, shard_size, num_workers, on_error, dtype)
    shard_size = -(-shard_size // batch_size) * batch_size
    job = Job(dataset, encoder, Settings(batch_size, shard_size, num_workers, on_error, dtype))
    report = progress or (lambda done, total: None)
    if out is not None:
        return _to_store(Path(out), job, report, engine)
    if engine is not None:
        raise InputError("`out` must be given with an engine, whose workers write there; got None. Name a folder.")
    return _in_memory(job, report)


def _in_memory(job: Job, report: Callable[[int, int], None]) -> Features:
    shards: list[Shard] = []
    width = 0
    with reading_threads(job.settings.num_workers) as pool:
        for number in range(job.num_shards):
            shards.append(encode(job, pool, job.span(number), width, report))
            width = width or shards[-1].values.shape[1]
    rest = _readable(job.dataset, np.concatenate([shard.kept for shard in shards]))
    labels = None if rest.labels is None else torch.from_numpy(rest.labels)
    values = torch.cat([shard.values for shard in shards if len(shard.kept)])
    return Features(
        rest.ids, values, labels, rest.label_names, job.encoder.name, rest.columns, rest.column_names, rest.label_column
    )


def _to_store(folder: Path, job: Job, report: Callable[[int, int], None], engine: Engine | None) -> FeatureSource:
    manifest = _resumed(folder, _start_manifest(job))
    numbers = range(len(manifest["shards"]), job.num_shards)
    make = engine.make_shards if engine is not None else partial(_make_shards, width=manifest["num_features"])
    waiting: dict[int, ShardRecord] = {}
    with closing(make(job, folder, numbers, report)) as records:
        for record in records:
            waiting[record.number] = record
            while len(manifest["shards"]) in waiting:
                _append(folder, manifest, waiting.pop(len(manifest["shards"])))
                if engine is None:
                    # Engines leave a record beside each shard instead: the manifest of very many is long.
                    write_manifest(folder, manifest)
    _remove_leftovers(folder)
    skipped = set(manifest["skipped"])
    rest = _readable(job.dataset, np.flatnonzero([str(sample) not in skipped for sample in job.dataset.ids]))
    write_index(folder, rest.ids, rest.labels, rest.columns, manifest["shards"])
    write_manifest(folder, manifest | {"complete": True, "num_samples": len(rest)})
    remove_records(folder)
    return open_features(folder)


def _make_shards(
    job: Job, folder: Path, numbers: range, report: Callable[[int, int], None], *, width: int
) -> Generator[ShardRecord]:
    """The shards in order, in this process; `width` is that of the shards before, or 0."""
    with reading_threads(job.settings.num_workers) as pool:
        for number in numbers:
            record = make_shard(job, pool, folder, number, width, report)
            # The width stays 0 while every sample was skipped.
            width = width or record.num_features
            yield record


def _append(folder: Path, manifest: dict, record: ShardRecord) -> None:
    """Add the next shard to the manifest; a shard made apart from the others is held against their width."""
    width, entry = manifest["num_features"], record.entry
    if width and record.num_features not in (0, width):
        raise InputError(
            f"`encoder` must give [n, {width}] throughout; got [{entry['rows']}, {record.num_features}] in "
            f"{entry['file']}. Mend it."
        )
    if width and not record.num_features:
        entry = write_shard(folder, record.number, torch.zeros(0, width, dtype=DTYPES[manifest["dtype"]]))
    manifest["num_features"] = width or record.num_features
    manifest["shards"].append(entry)
    manifest["skipped"] += record.skipped


def _readable(dataset: Dataset, kept: np.ndarray) -> Dataset:
    if not len(kept):
        raise UnreadableSampleError(
            f"`DATA` must hold a readable sample; all {len(dataset)} of {dataset.name} failed. "
            f"Leave out --on-error skip to see why."
        )
    return dataset.select(kept)


def _start_manifest(job: Job) -> dict:
    dataset, encoder, settings = job.dataset, job.encoder, job.settings
    return {
        "format_version": FORMAT_VERSION,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint, "parts": encoder.parts},
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "num_samples": len(dataset)},
        "settings": {key: getattr(settings, key) for key in ("batch_size", "shard_size", "on_error")},
        **names_entries(dataset),
        "num_features": 0,
        "dtype": settings.dtype,
        "num_samples": len(dataset),
        "complete": False,
        "shards": [],
        "skipped": [],
    }


def _resumed(folder: Path, wanted: dict) -> dict:
    """The manifest to go on from: the folder's if it fits, else an empty one."""
    _remove_leftovers(folder)
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
    return found | {
        key: wanted[key] for key in ("label_names", "column_names", "label_column", "settings") if key in wanted
    }


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left: its temporary file."""
    for path in folder.glob(".*.tmp"):
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


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


def _check(
    dataset: Dataset,
    encoder: Encoder,
    batch_size: int,
    shard_size: int,
    num_workers: int | None,
    on_error: str,
    dtype: str,
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
        if count is not None and count < 1:
            raise InputError(f"`{name}` must be at least 1; got {count}. Leave it out for the default.")
    choices = {"on_error": (on_error, ("fail", "skip")), "dtype": (dtype, tuple(DTYPES))}
    for name, (value, known) in choices.items():
        if value not in known:
            raise InputError(f"`{name}` must be {' or '.join(known)}; got {value!r}. Leave it out for the default.")
