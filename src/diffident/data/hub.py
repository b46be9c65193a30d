"""Data sets by name: the Hugging Face hub and torchvision."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffident.data.columns import read_ids, read_labels
from diffident.data.dataset import Dataset
from diffident.data.tables import ColumnChoice, open_table
from diffident.errors import InputError, MissingDependencyError, UnavailableError, did_you_mean


def open_hub(name: str, split: str, choice: ColumnChoice) -> Dataset:
    """A split of a Hugging Face data set.

    Raises:
        MissingDependencyError: `datasets` is not installed.
        UnavailableError: the hub is out of reach and the data set is not in the cache.
    """
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            "`hf:` must have the library datasets. Install it: pip install 'diffident[hub]'."
        ) from None
    try:
        loaded = datasets.load_dataset(name, split=split)
    except ValueError as error:
        raise InputError(f"`hf:{name}:{split}` must be a data set and a split; {error}. Check both names.") from None
    except Exception as error:
        raise UnavailableError(
            f"`hf:{name}` could not be loaded: {str(error).splitlines()[0]}. "
            "Without network, set HF_HOME to a filled cache, or pass the folder of its Parquet files as DATA."
        ) from None
    names = {
        column: tuple(feature.names)
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    table = loaded.with_format("arrow")[:]
    title = f"{name.replace('/', '-')}:{split}"
    fingerprint = hashlib.sha256(f"{name} {split} {loaded._fingerprint}".encode()).hexdigest()
    return open_table(table, title, f"hf:{name}:{split}", Path(), choice, names, fingerprint)


@dataclass(frozen=True)
class _ReadTorchvision:
    dataset: Any

    def __call__(self, position: int) -> Any:
        return self.dataset[position][0]


def open_torchvision(name: str, split: str | None) -> Dataset:
    """A torchvision data set, downloaded to DIFFIDENT_DATA (default ~/.cache/diffident) if it is not there yet."""
    import torchvision.datasets as sets

    known = [entry for entry in sets.__all__ if isinstance(getattr(sets, entry), type)]
    if name not in known:
        raise InputError(
            f"`torchvision:` must be followed by a data set of torchvision's; got `{name}`. {did_you_mean(name, known)}"
        )
    root = Path(os.environ.get("DIFFIDENT_DATA", Path.home() / ".cache" / "diffident")) / "torchvision"
    try:
        loaded = _load_torchvision(getattr(sets, name), root, split)
    except (OSError, RuntimeError) as error:
        raise UnavailableError(
            f"`torchvision:{name}` could not be loaded into {root}: {str(error).splitlines()[0]}. "
            "Without network, put its files there, or pass another DATA."
        ) from None
    targets = getattr(loaded, "targets", None)
    if targets is None:
        targets = [loaded[row][1] for row in range(len(loaded))]
    title = f"{name}:{split or 'train'}"
    labels, names = read_labels(np.asarray(targets).tolist(), "targets", title)
    classes = getattr(loaded, "classes", None)
    names = tuple(map(str, classes)) if classes and labels.max() < len(classes) else names
    fingerprint = hashlib.sha256(f"{title} {len(loaded)}".encode() + labels.tobytes()).hexdigest()
    ids = read_ids(None, title, len(loaded), "id", title)
    return Dataset(title, "image", ids, labels, _ReadTorchvision(loaded), fingerprint, names)


def _load_torchvision(kind: type, root: Path, split: str | None) -> Any:
    import inspect

    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root)} if "root" in accepted else {}
    if "download" in accepted:
        options["download"] = True
    if "train" in accepted:
        if split not in (None, "train", "test"):
            raise InputError(f"`torchvision:{kind.__name__}` must have split train or test; got `{split}`. Choose one.")
        options["train"] = split != "test"
    elif "split" in accepted and split is not None:
        options["split"] = split
    return kind(**options)
