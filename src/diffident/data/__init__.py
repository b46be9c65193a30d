"""Data sets, in every form that DATA can have; one file a form."""

from pathlib import Path

import numpy as np

from diffident.data.arrays import open_digits, open_npy, open_npz
from diffident.data.columns import near_path
from diffident.data.dataset import Dataset
from diffident.data.folders import open_image_folder
from diffident.data.hub import open_hub, open_torchvision
from diffident.data.tables import ColumnChoice, open_csv, open_jsonl, open_parquet
from diffident.errors import InputError

_FORMS = (
    "a folder of class folders, .parquet, .csv, .tsv, .jsonl, .npz, .npy, hf:NAME[:SPLIT], torchvision:NAME[:SPLIT], "
    "digits[:SPLIT]"
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
            (`FOLDER:SPLIT` if it holds several splits); CSV, TSV or JSONL; .npz or .npy; `hf:NAME[:SPLIT]`;
            `torchvision:NAME[:SPLIT]`; `digits[:SPLIT]`. Tables without a text or image column are vectors of their
            numeric columns.
        label_column: Default: the first of label, labels, fine_label, target, class, category, intent, y.
        text_column: Default: the first of text, sentence, content, utterance, review, question.
        image_column: Default: the first of image, img, image_path, path, file, filename, file_name.
        id_column: Default: `id`, else ids are made of the file's name and the row.
        limit: Only so many samples, evenly spaced over the data; ids stay the same.

    Raises:
        InputError: nothing there, or something in it is wrong; says what, where and how to mend it.
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
    if family in ("digits", "hf", "torchvision") and (rest or family == "digits"):
        _refuse_columns(spec, choice, ("label_column",) if family != "hf" else ())
    if family == "digits":
        return open_digits(rest or None)
    if family in ("hf", "torchvision") and rest:
        name, _, split = rest.partition(":")
        return open_hub(name, split or "train", choice) if family == "hf" else open_torchvision(name, split or None)
    path, split = Path(spec), None
    if not path.exists() and ":" in spec and Path(spec.rpartition(":")[0]).is_dir():
        path, split = Path(spec.rpartition(":")[0]), spec.rpartition(":")[2]
    if not path.exists():
        raise InputError(f"`DATA` must be there; got {spec}, which is not. {near_path(path)} Forms: {_FORMS}.")
    if path.is_dir():
        is_parquet = any(path.rglob("*.parquet"))
        if not is_parquet:
            _refuse_columns(spec, choice, ("label_column",))
        return open_parquet(path, split, choice) if is_parquet else open_image_folder(path)
    return _open_file(path, choice)


def _open_file(path: Path, choice: ColumnChoice) -> Dataset:
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return open_parquet(path, None, choice)
    if suffix in (".csv", ".tsv"):
        return open_csv(path, choice)
    if suffix in (".jsonl", ".ndjson"):
        return open_jsonl(path, choice)
    if suffix == ".npz":
        return open_npz(path, choice.label_column)
    if suffix == ".npy":
        _refuse_columns(str(path), choice, ("label_column",))
        return open_npy(path)
    raise InputError(f"`DATA` must be in a known form; got {path}. Forms: {_FORMS}.")


def _refuse_columns(spec: str, choice: ColumnChoice, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(choice, name) is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"`{option}` must be used with a table; {spec} has no columns. Leave it out.")
