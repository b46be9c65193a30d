"""The hardest and the probably mislabelled samples of a data set."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from diffident.records import DifficultyTable, Suspects
from diffident.storage.atomic import atomic_path


def audit(table: DifficultyTable) -> Suspects:
    """Order the samples from hardest to easiest and name those that another class is nearer to.

    Args:
        table: Difficulty of every sample, as `score_features` gives it.

    Returns:
        Rows hardest first (ties keep the table's order), and for each row whether its margin is above 0: the label's
        own Gaussian is not the nearest one, so the label is probably wrong.

    Example:
        >>> suspects = audit(table)
        >>> table.ids[suspects.order[:10]]          # the ten hardest
        >>> table.ids[suspects.suspect]             # the probably mislabelled
    """
    order = np.argsort(-table.difficulty, kind="stable")
    return Suspects(table=table, order=order, suspect=table.margin > 0)


def suspect_rows(suspects: Suspects) -> np.ndarray:
    """Row numbers of the probably mislabelled samples, hardest first."""
    return suspects.order[suspects.suspect[suspects.order]]


def name_of(label: int, label_names: tuple[str, ...] | None) -> str:
    """A class's name, or its number where it has none."""
    return label_names[label] if label_names is not None and 0 <= label < len(label_names) else str(label)


def audit_table(suspects: Suspects, rows: np.ndarray, texts: list[str] | None = None) -> pa.Table:
    """Rows of an audit with the names of the given and of the nearest class, and the text where there is one."""
    table = suspects.table
    names = table.label_names
    columns = {
        "id": pa.array([str(table.ids[row]) for row in rows], pa.string()),
        "label": pa.array(table.labels[rows]),
        "label_name": pa.array([name_of(int(table.labels[row]), names) for row in rows], pa.string()),
        "nearest_label": pa.array(table.nearest_labels[rows]),
        "nearest_label_name": pa.array([name_of(int(table.nearest_labels[row]), names) for row in rows], pa.string()),
        "difficulty": pa.array(table.difficulty[rows]),
        "rank": pa.array(table.rank[rows]),
        "margin": pa.array(table.margin[rows]),
        "suspect": pa.array(suspects.suspect[rows]),
    }
    if texts is not None:
        columns["text"] = pa.array(texts, pa.string())
    return pa.table(columns)


def write_audit_table(table: pa.Table, folder: Path, stem: str) -> None:
    """Write `stem`.parquet and `stem`.csv."""
    with atomic_path(folder / f"{stem}.parquet") as temporary:
        pq.write_table(table, temporary)
    with atomic_path(folder / f"{stem}.csv") as temporary:
        pa_csv.write_csv(table, temporary)
