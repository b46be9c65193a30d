"""Features from `diffident extract`, as the vectors of a data set."""

from pathlib import Path

from diffident.data.arrays import fingerprint_of
from diffident.data.dataset import Dataset
from diffident.data.samples import ReadVector
from diffident.storage.features import open_features


def open_feature_folder(path: Path, label_column: str | None) -> Dataset:
    """All features in memory, in the data set's order, with its ids, labels and label columns."""
    source = open_features(path, label_column=label_column)
    values = source.load().values.float().numpy()
    fingerprint, read = fingerprint_of(values), ReadVector(values)
    names = source.label_names, source.columns, source.column_names, source.label_column
    return Dataset(path.name, "vector", source.ids, source.labels, read, fingerprint, *names)
