"""Data sets of torchvision by name."""

import contextlib
import hashlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffident.data.columns import read_ids, read_labels
from diffident.data.dataset import Dataset
from diffident.data.samples import plain_image
from diffident.errors import InputError, UnavailableError, UnreadableSampleError, did_you_mean
from diffident.files import first_line

# Where torchvision's classes keep the labels; those with none of these are read sample by sample.
_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")


@dataclass(frozen=True)
class _ReadTorchvision:
    dataset: Any
    ids: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        try:
            return plain_image(self.dataset[position][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise UnreadableSampleError(
                f"sample `{self.ids[position]}` must be a readable image; {first_line(error)}. Fetch it again."
            ) from None


def open_torchvision(name: str, split: str | None) -> Dataset:
    """A torchvision data set, downloaded to DIFFIDENT_DATA (default ~/.cache/diffident) if it is not there yet.

    Raises:
        InputError: no such data set or split, or one that is not for classification.
        UnavailableError: its files are not there and cannot be fetched.
    """
    import torchvision.datasets as sets

    known = [entry for entry in sets.__all__ if isinstance(getattr(sets, entry), type)]
    if name not in known:
        raise InputError(
            f"`torchvision:` must be followed by a data set of torchvision's; got `{name}`. {did_you_mean(name, known)}"
        )
    loaded = _load(getattr(sets, name), split)
    title = f"{name}:{split or 'train'}"
    rows = range(len(loaded))
    ids = read_ids(None, title, len(loaded), "id", title, rows)
    read = _ReadTorchvision(loaded, ids)
    if not rows or not isinstance(loaded[0][0], Image.Image):
        raise InputError(f"`torchvision:{name}` must hold images; got none in {title}. Choose another.")
    labels, names = read_labels(_targets(loaded), "targets", f"torchvision:{title}", rows=rows)
    classes = getattr(loaded, "classes", None)
    if classes is not None and labels.max() < len(classes):
        names = tuple(map(str, classes))
    fingerprint = hashlib.sha256(f"{title} {len(loaded)}".encode() + labels.tobytes()).hexdigest()
    return Dataset(title, "image", ids, labels, read, fingerprint, names)


def _load(kind: type, split: str | None) -> Any:
    name = kind.__name__
    root = Path(os.environ.get("DIFFIDENT_DATA", Path.home() / ".cache" / "diffident")) / "torchvision"
    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root)} if "root" in accepted else {}
    if "download" in accepted:
        options["download"] = True
    if "train" in accepted:
        if split not in (None, "train", "test"):
            raise InputError(f"`torchvision:{name}` must have split train or test; got `{split}`. Choose one.")
        options["train"] = split != "test"
    elif split is not None:
        if "split" not in accepted:
            raise InputError(f"`torchvision:{name}` must be named without a split; got `{split}`. Leave it out.")
        options["split"] = split
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return kind(**options)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"`torchvision:{name}` must be a data set that needs no more than a split; {first_line(error)}. "
            "Choose another split or data set."
        ) from None
    except (OSError, RuntimeError) as error:
        raise UnavailableError(
            f"`torchvision:{name}` could not be loaded into {root}: {first_line(error)}. "
            "Without network, put its files there, or pass another DATA."
        ) from None


def _targets(loaded: Any) -> list:
    for attribute in _LABEL_ATTRIBUTES:
        found = getattr(loaded, attribute, None)
        if found is not None and len(found) == len(loaded):
            return np.asarray(found).tolist()
    return [loaded[row][1] for row in range(len(loaded))]
