"""Label issues as cleanlab's `Datalab` and `CleanLearning` give and take them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffident.errors import MissingDependencyError
from diffident.records import Suspects
from diffident.storage.atomic import atomic_path

if TYPE_CHECKING:
    import pandas


def to_cleanlab(suspects: Suspects) -> "pandas.DataFrame":
    """The label issues as a data frame in the data set's order, numbered from 0 as cleanlab does.

    Returns:
        `is_label_issue`: bool, another class is nearer than the given one; `label_score`: float64 in [0, 1], lower is
        worse, the probability that the label is right where the audit has it of all samples, else 1 - rank of the
        difficulty; `given_label`, `predicted_label`: int64, class numbers, the latter of the nearest class; `id`.
        `CleanLearning.fit(..., label_issues=frame)` takes it.

    Raises:
        MissingDependencyError: pandas is not installed.

    Example:
        >>> to_cleanlab(audit(table)).query("is_label_issue").sort_values("label_score").head(10)      # the ten worst
    """
    try:
        return _label_issues(suspects).to_pandas()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"`to_cleanlab` must have pandas; {error}. Install it: pip install pandas."
        ) from None


def write_cleanlab(suspects: Suspects, path: Path) -> Path:
    """Write the same columns as Parquet, without pandas; `pandas.read_parquet` gives the frame of `to_cleanlab`."""
    with atomic_path(path) as temporary:
        pq.write_table(_label_issues(suspects), temporary)
    return path


def _label_issues(suspects: Suspects) -> pa.Table:
    table = suspects.table
    badness = np.asarray(table.rank, dtype=np.float64)
    if suspects.probability_wrong is not None and np.isfinite(suspects.probability_wrong).all():
        badness = np.asarray(suspects.probability_wrong, dtype=np.float64)
    return pa.table(
        {
            "is_label_issue": pa.array(suspects.suspect, pa.bool_()),
            "label_score": pa.array(1 - badness, pa.float64()),
            "given_label": pa.array(table.labels, pa.int64()),
            "predicted_label": pa.array(table.nearest_labels, pa.int64()),
            "id": pa.array([str(sample) for sample in table.ids], pa.string()),
        }
    )
