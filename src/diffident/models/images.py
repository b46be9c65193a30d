"""Images of any size to one uint8 tensor in memory."""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image, ImageOps
from torch import Tensor

from diffident.data.dataset import Dataset

_LARGEST_OWN_SIDE = 64
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


def images_tensor(dataset: Dataset, shape: tuple[int, ...], interpolation: str) -> Shaped[Tensor, "n c h w"]:
    """The images of a data set as uint8, grey or RGB; an image of another size is resized and cropped at its centre.

    Args:
        dataset: Images.
        shape: (channels, height, width) of the result.
        interpolation: `bilinear`, `bicubic`, ...: how images of another size are resized.
    """
    channels, height, width = shape
    _note_memory(dataset, len(dataset) * channels * height * width)
    pixels = np.empty((len(dataset), height, width, channels), dtype=np.uint8)
    method = Image.Resampling[interpolation.upper()]
    for row in range(len(dataset)):
        image = dataset[row].convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), method)
        pixels[row] = np.asarray(image).reshape(height, width, channels)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _note_memory(dataset: Dataset, needed: int) -> None:
    memory = memory_bytes()
    if memory is not None and needed > memory / 2:
        _log.warning(
            "diffident: %s needs %.1f GiB as images in memory, more than half of this machine's %.1f GiB. "
            "Set a smaller image_size if it does not fit.",
            dataset.name,
            needed / 2**30,
            memory / 2**30,
        )


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
