"""Corrupt one sample, or every sample of a data set as it is read."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from diffident.corruptions import check_severity, find_corruption, kinds_of
from diffident.corruptions.characters import RATES
from diffident.corruptions.digital import as_image, as_pixels
from diffident.corruptions.levels import LARGE, SMALL, SMALL_SIDE
from diffident.data.dataset import Dataset
from diffident.errors import InputError

# ImageNet-C is made of images of 224 px; larger ones are brought to that first, or their corruptions would be too weak.
_LARGEST_SIDE = 224


def corrupt(sample: Any, kind: str, severity: int, *, sample_id: str, seed: int = 0) -> Any:
    """The corrupted sample; the same for the same id, kind, severity and seed.

    Args:
        sample: A PIL image (L or RGB) or a string.
        kind: A key of `CORRUPTIONS`.
        severity: 1 to 5.
        sample_id: The sample's id, from which the randomness comes.
        seed: Another one gives other noise.

    Returns:
        An image of the same mode, its shorter side at most 224 px; or a string.

    Raises:
        InputError: no such corruption or severity, or a sample of another modality.
    """
    known = find_corruption(kind)
    check_severity(severity)
    if not isinstance(sample, Image.Image if known.modality == "image" else str):
        raise InputError(
            f"`sample` must be {'an image' if known.modality == 'image' else 'a text'} for {kind!r}; "
            f"got {type(sample).__name__}. Choose another corruption."
        )
    function = getattr(importlib.import_module(f"diffident.corruptions.{known.group}"), known.function)
    digest = hashlib.sha256("\0".join([str(seed), kind, str(severity), sample_id]).encode()).digest()
    generator = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    if known.modality == "text":
        return function(sample, RATES[severity - 1], generator)
    assert isinstance(sample, Image.Image)
    image = _brought_to_size(sample if sample.mode in ("L", "RGB") else sample.convert("RGB"))
    levels = SMALL if min(image.size) <= SMALL_SIDE else LARGE
    return as_image(function(as_pixels(image), levels[kind][severity - 1], generator))


def corrupted(dataset: Dataset, kind: str, severity: int, *, seed: int = 0) -> Dataset:
    """The data set with every sample corrupted as it is read: the same ids, labels and order.

    Raises:
        InputError: no such corruption or severity, or one of another modality.

    Example:
        >>> corrupted(open_dataset("digits:test"), "gaussian-noise", 3)[0].size
        (8, 8)
    """
    known = find_corruption(kind)
    check_severity(severity)
    if known.modality != dataset.modality:
        fitting = kinds_of(dataset.modality)
        raise InputError(
            f"`corruption` must be one of {dataset.modality} data; got {kind!r} for {dataset.name}. "
            f"Take one of {', '.join(fitting)}."
        )
    return replace(
        dataset,
        name=f"{dataset.name} ({kind}:{severity})",
        read=CorruptedRead(dataset.read, dataset.ids, kind, severity, seed),
        fingerprint=f"{dataset.fingerprint}+{kind}:{severity}:{seed}",
    )


@dataclass(frozen=True)
class CorruptedRead:
    """Reads the sample at a position and corrupts it."""

    read: Callable[[int], Any]
    ids: np.ndarray
    kind: str
    severity: int
    seed: int

    def __call__(self, position: int) -> Any:
        sample_id = str(self.ids[position])
        return corrupt(self.read(position), self.kind, self.severity, sample_id=sample_id, seed=self.seed)


def _brought_to_size(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    if shorter <= _LARGEST_SIDE:
        return image
    width, height = (max(_LARGEST_SIDE, round(side * _LARGEST_SIDE / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
