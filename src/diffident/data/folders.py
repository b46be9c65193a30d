"""A folder of class folders with images, or of images alone."""

import hashlib
import json
from pathlib import Path

import numpy as np

from diffident.data.dataset import Dataset
from diffident.data.samples import IMAGE_SUFFIXES, ReadImageFile
from diffident.errors import InputError

_SPLITS = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing", "calibration"])


def open_image_folder(folder: Path) -> Dataset:
    """One class per sub-folder, in the order of their names; ids are `class/name.png`. Images alone have no labels.

    Images may lie deeper in a class folder. Hidden files, and files that are no images by their suffix, are passed
    over; an image beside the class folders is an error.

    Raises:
        InputError: neither class folders nor images, or a class without images; splits for classes; an image without a
            class beside others.
    """
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name[0] != "."]
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        images = [entry for entry in entries if _is_image(entry)]
        if not images:
            raise InputError(
                f"`DATA` must be a folder of class folders; {folder} has none, nor images. "
                "Put each class's images in a folder."
            )
        return _dataset(folder, images, None, None)
    if len(classes) > 1 and all(one.name.lower() in _SPLITS for one in classes):
        raise InputError(
            f"`DATA` must be one split; {folder} holds {', '.join(one.name for one in classes)}. "
            f"For example: {classes[0]}."
        )
    beside = next((entry for entry in entries if entry not in classes and _is_image(entry)), None)
    if beside is not None:
        raise InputError(f"`DATA` must have every image in a class folder; {beside} is in none. Move it.")
    found, labels = [], []
    for label, one in enumerate(classes):
        images = sorted(
            path for path in one.rglob("*") if _is_image(path) and not _is_hidden(path, one) and path.is_file()
        )
        if not images:
            raise InputError(
                f"`DATA` must have images in every class folder; {one} has none. Add some, or delete the folder."
            )
        found += images
        labels += [label] * len(images)
    return _dataset(folder, found, np.array(labels, dtype=np.int64), tuple(one.name for one in classes))


def _dataset(folder: Path, images: list[Path], labels: np.ndarray | None, names: tuple[str, ...] | None) -> Dataset:
    paths = [path.relative_to(folder).as_posix() for path in images]
    stats = [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in images)]
    _check_names(paths, folder)
    ids = np.array(paths, dtype=object)
    fingerprint = hashlib.sha256(json.dumps([paths, stats]).encode()).hexdigest()
    read = ReadImageFile(folder.resolve(), tuple(paths), ids)
    return Dataset(folder.resolve().name, "image", ids, labels, read, fingerprint, names)


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether it lies in a hidden folder, as previews and checkpoints of other programs do."""
    return any(part[0] == "." for part in path.relative_to(folder).parts)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."


def _check_names(paths: list[str], folder: Path) -> None:
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"`DATA` must have file names in UTF-8; got {path!r} in {folder}. Rename it.") from None
