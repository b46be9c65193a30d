"""Data sets, in every form that DATA can have."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffident.data.arrays import open_digits, open_npy, open_npz
from diffident.data.columns import near_path
from diffident.data.dataset import Dataset
from diffident.data.feature_folders import open_feature_folder
from diffident.data.folders import open_image_folder
from diffident.data.hub import open_hub
from diffident.data.parquet import open_parquet, parquet_files
from diffident.data.tables import ColumnChoice
from diffident.data.text_files import open_csv, open_jsonl
from diffident.data.torchvision_sets import open_torchvision
from diffident.errors import DiffidentError, InputError, MissingColumnError
from diffident.files import first_line
from diffident.storage.feature_shards import MANIFEST

_FORMS = (
    "a folder of class folders, features from `diffident extract`, .parquet, .csv, .tsv, .jsonl, .npz, .npy, "
    "hf:NAME[:SPLIT], torchvision:NAME[:SPLIT], digits[:SPLIT]"
)


def open_dataset(
    spec: str | Path,
    *,
    label_column: str | None = None,
    text_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """A data set from a path or a name.

    Args:
        spec: A folder of class folders with images; a Parquet file or folder in the Hugging Face layout
            (`FOLDER:SPLIT` if it holds several splits); features from `diffident extract`, as vectors; CSV, TSV or
            JSONL; .npz or .npy; `hf:NAME[:SPLIT]`; `torchvision:NAME[:SPLIT]`; `digits[:SPLIT]`. Tables without a text
            or image column are vectors of their numeric columns; columns with `label` in their names are further
            labels, not numbers to learn from.
        label_column: Default: the first of label, labels, fine_label, target, class, category, intent, y.
        text_column: Default: the first of text, sentence, content, utterance, review, question.
        image_column: Default: the first of image, img, image_path, path, file, filename, file_name.
        id_column: Default: `id`, else ids are made of the file's name and the row.
        limit: Only so many samples, evenly spaced over the data; ids stay the same.

    Warns:
        DataWarning: columns without numbers are left out of the vectors.

    Raises:
        InputError: nothing there, or something in it is wrong; says what, where and how to mend it.
        MissingColumnError: a named column is not there.
        UnavailableError: a hub is out of reach.

    Example:
        >>> open_dataset("digits:test")[0].size
        (8, 8)
    """
    choice = ColumnChoice(label_column, text_column, image_column, id_column)
    dataset = _open(str(spec), choice)
    if limit is None:
        return dataset
    if limit < 1:
        raise InputError(f"`limit` must be at least 1; got {limit}. Leave it out for everything.")
    if limit >= len(dataset):
        return dataset
    return dataset.select(np.arange(limit) * len(dataset) // limit)


def _open(spec: str, choice: ColumnChoice) -> Dataset:
    family, _, rest = spec.partition(":")
    if family == "digits":
        _refuse_columns(spec, choice)
        return open_digits(rest or None)
    if family == "torchvision" and rest:
        _refuse_columns(spec, choice)
        name, _, split = rest.partition(":")
        return open_torchvision(name, split or None)
    if family == "hf" and rest:
        name, _, split = rest.partition(":")
        return open_hub(name, split or "train", choice)
    try:
        return _open_path(spec, choice)
    except OSError as error:
        if isinstance(error, DiffidentError):
            raise
        reason = error.strerror or first_line(error)
        raise InputError(f"`DATA` must be readable; {error.filename or spec}: {reason}. Check its rights.") from None


def _open_path(spec: str, choice: ColumnChoice) -> Dataset:
    path, split = Path(spec), None
    if not os.path.exists(spec) and os.path.isdir(spec.rpartition(":")[0]):
        path, split = Path(spec.rpartition(":")[0]), spec.rpartition(":")[2]
    elif not os.path.exists(spec):
        raise InputError(f"`DATA` must be there; got {spec}, which is not. {near_path(path)} Forms: {_FORMS}.")
    if not path.is_dir():
        return _open_file(path, choice)
    if split is None and (path / MANIFEST).is_file():
        _refuse_columns(spec, replace(choice, label_column=None))
        return open_feature_folder(path, choice.label_column)
    if any(parquet_files(path)):
        return open_parquet(path, split, choice)
    if split is not None:
        raise InputError(f"`DATA` must be Parquet to have splits; got {spec}. Name a folder: {path / split}.")
    _refuse_columns(spec, choice)
    return open_image_folder(path)


def _open_file(path: Path, choice: ColumnChoice) -> Dataset:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return open_parquet(path, None, choice)
    if suffix in (".csv", ".tsv"):
        return open_csv(path, choice)
    if suffix in (".jsonl", ".ndjson"):
        return open_jsonl(path, choice)
    if suffix == ".npz":
        _refuse_columns(str(path), replace(choice, label_column=None))
        return open_npz(path, choice.label_column)
    if suffix == ".npy":
        _refuse_columns(str(path), choice)
        return open_npy(path)
    raise InputError(f"`DATA` must be in a known form; got {path}. Forms: {_FORMS}.")


def _refuse_columns(spec: str, choice: ColumnChoice) -> None:
    for name, value in vars(choice).items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise MissingColumnError(f"`{option}` must be used with a table; {spec} has no columns. Leave it out.")
