"""What every dataset offers, wherever it comes from."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Dataset:
    """Labelled samples with stable ids.

    Attributes:
        name: As given on the command line.
        modality: `image` (samples are PIL images), `text` (strings) or `vector` (float32 arrays of shape (d,)).
        ids: Stable unique ids, str objects (n,).
        labels: Classes, int64 (n,), or None where there are none.
        label_names: Name of each class, or None where the labels are plain integers.
        read: Decodes the sample at a position; raises `UnreadableSampleError`. Picklable, so that workers can run it.
        fingerprint: Hex digest of what the features depend on: ids and contents (or their sizes and times).
        columns: Other label columns by name, int64 (n,).
        column_names: Names of the classes of those other label columns that have names of their own.
        label_column: The name of the column that the labels are from.
    """

    name: str
    modality: str
    ids: np.ndarray
    labels: np.ndarray | None
    read: Callable[[int], Any]
    fingerprint: str
    label_names: tuple[str, ...] | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    column_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_column: str = "label"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int | np.integer) -> Any:
        return self.read(int(position))

    @property
    def num_classes(self) -> int:
        """Number of classes: the names' count, else the largest label plus one; 0 without labels."""
        if self.label_names is not None:
            return len(self.label_names)
        return 0 if self.labels is None or not len(self.labels) else int(self.labels.max()) + 1

    def select(self, positions: np.ndarray) -> "Dataset":
        """The samples at these positions, ids kept."""
        positions = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            ids=self.ids[positions],
            labels=None if self.labels is None else self.labels[positions],
            read=SelectedRead(self.read, positions),
            fingerprint=f"{self.fingerprint}[{hash_positions(positions)}]",
            columns={name: column[positions] for name, column in self.columns.items()},
        )


@dataclass(frozen=True)
class SelectedRead:
    """Decodes the sample at a position of a selection."""

    read: Callable[[int], Any]
    positions: np.ndarray

    def __call__(self, position: int) -> Any:
        return self.read(int(self.positions[position]))


def hash_positions(positions: np.ndarray) -> str:
    """Short digest of a selection of rows."""
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(positions, dtype=np.int64).tobytes()).hexdigest()[:16]
