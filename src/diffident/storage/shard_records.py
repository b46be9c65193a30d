"""Records beside shards that were made out of order, until the manifest holds them: what is done is not repeated."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diffident.storage.atomic import write_text
from diffident.storage.feature_shards import file_digest


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a shard on disk.

    Attributes:
        number: Its place in the manifest.
        entry: What the manifest says of it: file, rows, sha256.
        num_features: Width d; 0 where every sample was skipped before a width was known.
        skipped: Ids of unreadable samples that it leaves out.
    """

    number: int
    entry: dict
    num_features: int
    skipped: list[str]


def write_record(folder: Path, record: ShardRecord) -> None:
    """Write `shard-00007.json` atomically; the shard itself must be there already."""
    write_text(_path(folder, record.number), json.dumps(asdict(record), sort_keys=True) + "\n")


def read_record(folder: Path, number: int) -> ShardRecord | None:
    """The record of a shard that is whole, or None: no record, a damaged one, or another checksum."""
    try:
        record = ShardRecord(**json.loads(_path(folder, number).read_text(encoding="utf-8")))
        whole = file_digest(folder / record.entry["file"]) == record.entry["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if whole and record.number == number else None


def remove_records(folder: Path) -> None:
    """Remove every record: the manifest holds them all."""
    for path in folder.glob("shard-*.json"):
        path.unlink(missing_ok=True)


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.json"
