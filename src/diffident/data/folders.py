"""A folder of class folders with images."""

import hashlib
import json
from pathlib import Path

import numpy as np

from diffident.data.dataset import Dataset
from diffident.data.tables import ReadImageFile
from diffident.errors import InputError

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])


def open_image_folder(folder: Path) -> Dataset:
    """One class per sub-folder, in the order of their names; ids are `class/name.png`. Hidden files are passed over.

    Raises:
        InputError: no class folders, or one without images; names it.
    """
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(
            f"`DATA` must be a folder of class folders; {folder} has none. Put each class's images in a folder."
        )
    paths, labels, sizes = [], [], []
    for label, one in enumerate(classes):
        images = sorted(
            path for path in one.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
        )
        if not images:
            raise InputError(
                f"`DATA` must have images in every class folder; {one} has none. Add some, or delete the folder."
            )
        paths += [path.relative_to(folder).as_posix() for path in images]
        sizes += [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in images)]
        labels += [label] * len(images)
    ids = np.array(paths, dtype=object)
    fingerprint = hashlib.sha256(json.dumps([paths, sizes]).encode()).hexdigest()
    names = tuple(one.name for one in classes)
    read = ReadImageFile(folder.resolve(), tuple(paths), ids)
    return Dataset(folder.name, "image", ids, np.array(labels, dtype=np.int64), read, fingerprint, names)
