"""The hardest samples of a data set, the suspects among its labels, and the folder that `diffident audit` makes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch

from diffident.difficulties import posterior
from diffident.difficulties.posterior import Posterior
from diffident.difficulties.protocol import Blocks, Scores, counted_passes
from diffident.errors import InputError
from diffident.files import first_line, read_parquet
from diffident.label_noise import estimate_wrong_share, probability_wrong
from diffident.records import DifficultyTable, Estimate, Suspects, positions_of
from diffident.storage.atomic import atomic_path, write_text
from diffident.storage.difficulty_table import read_difficulty_table

DIFFICULTY = "difficulty.parquet"
SUMMARY = "audit.json"
_HOW = "Make it with: diffident audit."


@dataclass(frozen=True)
class AuditSource:
    """Where an audit's samples and features are, so that a later command can show them.

    Attributes:
        data: DATA as `open_dataset` takes it, or None; a path is absolute.
        columns: Options of `open_dataset` that were given: label_column, text_column, image_column, id_column.
        features: Folder or file of the features, absolute, or None.
    """

    data: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    features: str | None = None


class KeptPosterior:
    """The verbs of `posterior` for `score_features`, which keep what they fitted: `audit` needs the same.

    Attributes:
        state: What was fitted last; None before.
    """

    def __init__(self):
        self.state: Posterior | None = None

    def fit(self, blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Posterior:
        """As `posterior`."""
        self.state = posterior.fit(blocks, labels, num_classes, **options)
        return self.state

    def score(self, state: Posterior, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
        """As `posterior`."""
        return posterior.score(state, blocks, labels, fitted=fitted)

    def describe(self, state: Posterior) -> dict[str, Any]:
        """As `posterior`."""
        return posterior.describe(state)


def audit(
    table: DifficultyTable,
    blocks: Blocks | None = None,
    state: Posterior | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Suspects:
    """Order the samples from hardest to easiest and name those that another class is nearer to.

    Args:
        table: Difficulty of every sample, as `score_features` gives it.
        blocks: The features it was scored on, as for `score_features`: then how likely each label is wrong, and how
            many are, is estimated too (`label_noise`), with the options that were given for the table.
        state: What `posterior` fitted to the table's samples, where it was scored by that: then this is not done again.
        progress: Called with (done, total) in every pass over the features, anew from 0.

    Returns:
        Rows hardest first (ties keep the table's order), and for each row whether its margin is above 0: the label's
        own Gaussian is not the nearest one. Of these suspects only some are wrong, `probability_wrong` says which.

    Example:
        >>> suspects = audit(table, features.blocks)
        >>> table.ids[suspects.order[:10]]          # the ten hardest
        >>> table.ids[suspects.suspect]             # another class is nearer
        >>> suspects.wrong_share                    # how many labels are wrong
    """
    order = np.argsort(-table.difficulty, kind="stable")
    suspects = Suspects(table=table, order=order, suspect=table.margin > 0)
    if state is None:
        if blocks is None:
            return suspects
        num_classes = int(table.labels.max()) + 1 if table.label_names is None else len(table.label_names)
        if progress is not None:
            blocks = counted_passes(blocks, len(table), progress)
        state = posterior.fit(blocks, table.labels, num_classes, **_given(table))
    share = estimate_wrong_share(state.noise, state.candidates, torch.Generator().manual_seed(0))
    if not state.gaussians.rank:  # features that say nothing of the classes say nothing of their labels
        share = Estimate(share.value, 0.0, 1.0)
    return replace(
        suspects,
        probability_wrong=probability_wrong(state.noise, state.candidates).numpy(),
        wrong_share=share,
    )


def _given(table: DifficultyTable) -> dict[str, Any]:
    """Options that the table was scored with and `posterior` takes."""
    is_given = {"shrinkage": table.metadata.get("shrinkage_choice") == "given", "robust": "robust" in table.metadata}
    return {option: table.metadata[option] for option, given in is_given.items() if given}


def suspect_rows(suspects: Suspects) -> np.ndarray:
    """Row numbers of the suspects: most probably wrong first where that is known, then hardest."""
    rows = suspects.order[suspects.suspect[suspects.order]]
    if suspects.probability_wrong is None:
        return rows
    return rows[np.argsort(-suspects.probability_wrong[rows], kind="stable")]


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
    if suspects.probability_wrong is not None:
        columns["probability_wrong"] = pa.array(suspects.probability_wrong[rows])
    if texts is not None:
        columns["text"] = pa.array(texts, pa.string())
    return pa.table(columns)


def write_audit_table(table: pa.Table, folder: Path, stem: str) -> None:
    """Write `stem`.parquet and `stem`.csv."""
    with atomic_path(folder / f"{stem}.parquet") as temporary:
        pq.write_table(table, temporary)
    with atomic_path(folder / f"{stem}.csv") as temporary:
        pa_csv.write_csv(table, temporary)


def write_audit_summary(suspects: Suspects, source: AuditSource, folder: Path) -> None:
    """Write `audit.json`: where samples and features are, and how many labels are estimated to be wrong."""
    share = None if suspects.wrong_share is None else asdict(suspects.wrong_share)
    content = {"source": asdict(source), "wrong_share": share}
    write_text(folder / SUMMARY, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def open_audit(path: str | Path) -> tuple[Suspects, AuditSource]:
    """What `diffident audit` found, from its folder.

    Returns:
        The suspects, their probabilities NaN for rows of which `suspects.parquet` says nothing; and the source, empty
        for a folder without `audit.json`. Features in the folder itself win over a path that has moved.

    Raises:
        InputError: no `difficulty.parquet`, or a damaged file; ids of `suspects.parquet` that it does not have.
    """
    folder = Path(path)
    if not (folder / DIFFICULTY).is_file():
        raise InputError(f"`AUDIT` must be a folder of `diffident audit`; {folder} has no {DIFFICULTY}. {_HOW}")
    suspects = audit(read_difficulty_table(folder / DIFFICULTY))
    source, share = _read_summary(folder / SUMMARY)
    if (folder / "features").is_dir():
        source = replace(source, features=str(folder / "features"))
    probability = _read_probability(folder / "suspects.parquet", suspects.table.ids)
    return replace(suspects, probability_wrong=probability, wrong_share=share), source


def _read_summary(path: Path) -> tuple[AuditSource, Estimate | None]:
    if not path.is_file():
        return AuditSource(), None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        share = content["wrong_share"]
        source = AuditSource(**content["source"])
        return source, None if share is None else Estimate(**{key: float(value) for key, value in share.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"`AUDIT` must have a whole {SUMMARY}; {path}: {first_line(error)}. {_HOW}") from None


def _read_probability(path: Path, ids: np.ndarray) -> np.ndarray | None:
    if not path.is_file():
        return None
    table = read_parquet(path, "suspects", _HOW)
    if not {"id", "probability_wrong"} <= set(table.column_names):
        return None
    probability = np.full(len(ids), np.nan)
    found = np.array(table["id"].to_pylist(), dtype=object)
    rows = positions_of(ids, found, what=str(path), where=str(path.with_name(DIFFICULTY)))
    try:
        probability[rows] = table["probability_wrong"].to_numpy().astype(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"`probability_wrong` must hold numbers; {path}: {first_line(error)}. {_HOW}") from None
    return probability
