"""Images of any size to one uint8 tensor in memory."""

import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image, ImageOps
from torch import Tensor

from diffident.data.dataset import Dataset

_LARGEST_OWN_SIDE = 64
# Rows between two calls of `progress`: a second of large photographs, and no cost for small vectors.
_REPORTED_ROWS = 64
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_log = logging.getLogger(__name__)


def own_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    """(channels, height, width) for a model that is trained from scratch: the first image's, at most 64 x 64.

    Args:
        dataset: Images.
        image_size: Side that was asked for, or 0.
    """
    image = dataset[0]
    channels = 1 if image.mode in ("1", "L", "I", "I;16", "F") else 3
    side = image_size or (_LARGEST_OWN_SIDE if max(image.size) > _LARGEST_OWN_SIDE else 0)
    return (channels, side, side) if side else (channels, image.height, image.width)


def counted_rows(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[int]:
    """The rows of a data set; `progress` is called with (done, total) as they are used."""
    for row in range(len(dataset)):
        yield row
        done = row + 1
        if progress is not None and (done % _REPORTED_ROWS == 0 or done == len(dataset)):
            progress(done, len(dataset))


def images_tensor(
    dataset: Dataset,
    shape: tuple[int, ...],
    interpolation: str,
    progress: Callable[[int, int], None] | None = None,
) -> Shaped[Tensor, "n c h w"]:
    """The images of a data set as uint8, grey or RGB; an image of another size is resized and cropped at its centre.

    Args:
        dataset: Images.
        shape: (channels, height, width) of the result.
        interpolation: `bilinear`, `bicubic`, ...: how images of another size are resized.
        progress: Called with (done, total).
    """
    channels, height, width = shape
    pixels = np.empty((len(dataset), height, width, channels), dtype=np.uint8)
    method = Image.Resampling[interpolation.upper()]
    for row in counted_rows(dataset, progress):
        image = dataset[row].convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), method)
        pixels[row] = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def held_in_memory(count: int, shape: tuple[int, ...], loading: str) -> bool:
    """Whether so many images of this shape are prepared beforehand: `auto` does where they take half of the memory.

    Args:
        count: How many.
        shape: (channels, height, width), a byte each.
        loading: As in the settings: memory, workers or auto. `memory` warns where auto would not.
    """
    needed, memory = count * math.prod(shape), memory_bytes()
    if loading == "workers" or memory is None or needed <= memory / 2:
        return loading != "workers"
    if loading == "memory":
        _log.warning(
            "diffident: %d images need %.1f GiB of memory, more than half of this machine's %.1f GiB. "
            "Set a smaller image_size, or loading=workers, if they do not fit.",
            count,
            needed / 2**30,
            memory / 2**30,
        )
    return loading == "memory"


def memory_bytes() -> int | None:
    """Memory that this process may use, or None where the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None
    try:
        return min(total, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return total
