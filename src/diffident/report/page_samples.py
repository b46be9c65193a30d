"""The samples of a page as plain JSON columns."""

import math
from typing import Any

import numpy as np

from diffident.auditing import name_of
from diffident.data.dataset import Dataset
from diffident.records import DifficultyTable, Suspects, positions_of
from diffident.report.samples import (
    LONG_TEXT,
    SHORT_TEXT,
    Neighbours,
    Pictures,
    describe_sample,
    shorten,
)

# Characters of all ids, or of all class names, that the page keeps whole; beyond, each is cut.
_MOST_CHARACTERS = 8_000_000
_CUT = 160


def join_samples(table: DifficultyTable, dataset: Dataset) -> np.ndarray:
    """Position in the data set of every row of the table."""
    return positions_of(dataset.ids, table.ids, what="the audit", where=f"the data set {dataset.name}")


def sample_columns(suspects: Suspects, rows: np.ndarray) -> dict[str, Any]:
    """What the page says of the rows, a list for each column; `row` is the number in the table."""
    table = suspects.table
    wrong = None
    if suspects.probability_wrong is not None:
        wrong = [None if math.isnan(p) else round(p, 4) for p in suspects.probability_wrong[rows].tolist()]
    return {
        "row": rows.tolist(),
        "id": fit_texts([str(table.ids[row]) for row in rows]),
        "label": table.labels[rows].tolist(),
        "nearest": table.nearest_labels[rows].tolist(),
        "difficulty": _rounded(table.difficulty[rows]),
        "rank": [round(rank, 5) for rank in table.rank[rows].tolist()],
        "margin": _rounded(table.margin[rows]),
        "wrong": wrong,
    }


def label_names(table: DifficultyTable) -> list[str]:
    """The name of every class number that occurs."""
    count = 1 + int(max(table.labels.max(), table.nearest_labels.max()))
    return fit_texts([name_of(label, table.label_names) for label in range(count)])


def fit_texts(texts: list[str]) -> list[str]:
    """The texts; each cut, and numbered so that they stay apart, where together they are too long for a page."""
    if sum(map(len, texts)) <= _MOST_CHARACTERS:
        return texts
    return [text if len(text) <= _CUT else f"{shorten(text, _CUT)} ({n})" for n, text in enumerate(texts)]


def sample_contents(
    dataset: Dataset, positions: np.ndarray, rows: np.ndarray, first: np.ndarray, budget: int
) -> tuple[list[str], dict[int, str]]:
    """What the cards say of texts or vectors, and the whole texts of the most important rows within the budget.

    Args:
        dataset: Of texts or vectors.
        positions: Position in the data set of every table row.
        rows: Table rows of the page.
        first: Table rows, those that matter most first.
        budget: Characters of the cards at most, and of the whole texts at most.
    """
    most = max(40, min(SHORT_TEXT, budget // max(1, len(rows))))
    short = [describe_sample(dataset[position], most) for position in positions[rows]]
    place = {int(row): number for number, row in enumerate(rows)}
    whole: dict[int, str] = {}
    spent = 0
    for row in first.tolist():
        if row not in place or not short[place[row]].endswith("…"):
            continue
        text = describe_sample(dataset[int(positions[row])], LONG_TEXT)
        spent += len(text)
        if spent > budget:
            break
        whole[place[row]] = text
    return short, whole


def neighbour_columns(neighbours: Neighbours, rows: np.ndarray) -> dict[str, Any]:
    """Places on the page of each row's neighbours: `row` [m], `given` and `nearest` [m, k] without those not there."""
    place = {int(row): number for number, row in enumerate(rows)}

    def places(lists: np.ndarray) -> list[list[int]]:
        return [[place[row] for row in one if row in place] for one in lists.tolist()]

    kept = np.array([row in place for row in neighbours.rows.tolist()], dtype=bool)
    return {
        "row": [place[row] for row in neighbours.rows[kept].tolist()],
        "given": places(neighbours.given[kept]),
        "nearest": places(neighbours.nearest[kept]),
    }


def picture_columns(pictures: Pictures, rows: np.ndarray) -> dict[str, Any]:
    """Pictures by place on the page."""
    place = {int(row): number for number, row in enumerate(rows)}
    kept = [row for row in pictures.thumbnails if row in place]
    return {
        "row": [place[row] for row in kept],
        "webp": [pictures.thumbnails[row] for row in kept],
        "large": {place[row]: picture for row, picture in pictures.large.items() if row in place},
    }


def _rounded(values: np.ndarray, digits: int = 5) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values.tolist()]
