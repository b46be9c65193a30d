"""Data sets of the Hugging Face hub, and folders in any layout that `datasets` reads."""

import hashlib
from pathlib import Path
from typing import Any

from diffident.data.dataset import Dataset
from diffident.data.tables import ColumnChoice, Table, open_table
from diffident.errors import InputError, MissingDependencyError, UnavailableError
from diffident.files import first_line


def open_hub(name: str, split: str, choice: ColumnChoice) -> Dataset:
    """A split of a Hugging Face data set, by its name on the hub or by a local folder; memory-mapped.

    Raises:
        MissingDependencyError: `datasets` is not installed.
        InputError: no such split, or a local folder that `datasets` cannot read.
        UnavailableError: the hub is out of reach and the data set is not in the cache.
    """
    try:
        import datasets
    except ImportError:
        raise MissingDependencyError(
            "`hf:` must have the library datasets. Install it: pip install 'diffident[hub]'."
        ) from None
    is_local = Path(name).exists()
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:
        # Builders raise whatever their readers raise.
        if is_local or isinstance(error, ValueError):
            raise InputError(
                f"`hf:{name}:{split}` must be a data set and a split; {first_line(error)}. Check both names."
            ) from None
        raise UnavailableError(
            f"`hf:{name}` could not be loaded: {first_line(error)}. "
            "Without network, set HF_HOME to a filled cache, or pass the folder of its Parquet files as DATA."
        ) from None
    table: Any = loaded.with_format("arrow")[:]
    title = f"{Path(name).resolve().name if is_local else name.replace('/', '-')}:{split}"
    class_names = {
        column: tuple(feature.names)
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return open_table(
        Table(
            columns=dict(zip(table.column_names, table.columns, strict=True)),
            name=title,
            where=f"hf:{name}:{split}",
            folder=Path(name) if is_local else Path(),
            fingerprint=hashlib.sha256(f"{title} {loaded._fingerprint}".encode()).hexdigest(),
            rows=range(len(table)),
            class_names=class_names,
        ),
        choice,
    )
