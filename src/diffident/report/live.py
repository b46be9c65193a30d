"""The samples of `diffident serve`: rows, pictures and neighbours on demand, however many samples there are.

The columns of the audit are in memory; pictures and texts are read from the data set, and neighbours found in the
features, when they are asked for. The same fields as on a page that holds everything. Each order of all samples is made
once and kept: what the filters leave is then a pass over it, however many samples there are.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diffident.errors import InputError, UnreadableSampleError
from diffident.report.building import AuditInput
from diffident.report.marks import Marks
from diffident.report.neighbours import find_neighbours
from diffident.report.page_samples import join_samples, label_names, sample_columns
from diffident.report.samples import LONG_TEXT, SHORT_TEXT, THUMBNAIL_SIDE, describe_sample, encode_webp

MOST_ROWS = 500
_MOST_VIEWS = 8
_PICTURE_SIDE = 1024
_SORTS = ("hardest", "easiest", "wrong", "margin", "row", "id")
_CHUNK = 65_536
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Criteria:
    """What the filters ask for; None and empty ask for nothing.

    Attributes:
        text: Words, each of which is in the id, a label's name or the text.
        either: Class that is given or nearest.
        given: Given class.
        nearest: Nearest class.
        low: Least difficulty.
        high: Greatest difficulty.
        suspects: Only those that another class is nearer to.
        marked: Only those that are marked.
        sort: One of hardest, easiest, wrong, margin, row, id.
    """

    text: str = ""
    either: int | None = None
    given: int | None = None
    nearest: int | None = None
    low: float | None = None
    high: float | None = None
    suspects: bool = False
    marked: bool = False
    sort: str = "hardest"

    @staticmethod
    def of(content: Any) -> "Criteria":
        """From what a page sent.

        Raises:
            InputError: an unknown field, or a value of another kind.
        """
        kinds = {"text": str, "sort": str, "suspects": bool, "marked": bool, "low": float, "high": float}
        if not isinstance(content, dict) or not content.keys() <= set(Criteria.__dataclass_fields__):
            raise InputError("`criteria` must be an object of known fields; got another. Reload the page.")
        values = {}
        for name, value in content.items():
            kind = kinds.get(name, int)
            optional = name not in ("text", "sort", "suspects", "marked")
            value = float(value) if kind is float and type(value) is int else value
            if type(value) is not kind and not (optional and value is None):
                raise InputError(f"`{name}` must be {kind.__name__}; got {type(value).__name__}. Reload the page.")
            values[name] = value
        if values.get("sort", "hardest") not in _SORTS:
            raise InputError(f"`sort` must be one of {', '.join(_SORTS)}; got another. Reload the page.")
        return Criteria(**values)


class LiveSamples:
    """Answers to what the page of `diffident serve` asks; safe to call from several threads.

    Args:
        audit: What is shown.
        marks: Where marks are kept.
    """

    def __init__(self, audit: AuditInput, marks: Marks):
        self.audit = audit
        self.marks = marks
        self.table = audit.suspects.table
        self.names = label_names(self.table)
        self._positions = None if audit.dataset is None else join_samples(self.table, audit.dataset)
        self._views: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._ordering, self._gathering = threading.Lock(), threading.Lock()
        self._texts: pa.ChunkedArray | None = None
        self._orders = {"hardest": audit.suspects.order, "row": np.arange(len(self.table))}
        self.picture = lru_cache(maxsize=4096)(self._picture)

    def prepare(self) -> None:
        """Make what the first search and each first order would have to wait for, but for the reading of texts."""
        if self.audit.dataset is None or self.audit.dataset.modality != "text":
            self._searchable()
        for sort in _SORTS:
            self._order(sort)

    def about(self) -> dict[str, Any]:
        """What the page has to know before it asks."""
        dataset, difficulty = self.audit.dataset, self.table.difficulty
        return {
            "total": len(self.table),
            "modality": None if dataset is None else dataset.modality,
            "label_names": self.names,
            "probabilities": self.audit.suspects.probability_wrong is not None,
            "range": {"low": float(difficulty.min()), "high": float(difficulty.max())},
            "marked": self.marks.rows(),
        }

    def select(self, content: Any) -> dict[str, Any]:
        """Keep the samples that fit, in the order asked for; their number and the name of the view."""
        criteria = Criteria.of(content)
        kept, order = self._matching(criteria), self._order(criteria.sort)
        order = order if kept.all() else order[kept[order]]
        name = json.dumps(content, sort_keys=True)
        with self._lock:
            self._views[name] = order
            self._views.move_to_end(name)
            while len(self._views) > _MOST_VIEWS:
                self._views.popitem(last=False)
        return {"count": len(order), "view": name}

    def rows(self, view: str, start: int, end: int) -> list[dict[str, Any]]:
        """The samples from `start` to before `end` of a view, at most `MOST_ROWS`.

        Raises:
            InputError: the view is of too long ago, or the rows are none of its.
        """
        with self._lock:
            order = self._views.get(view)
        if order is None:
            raise InputError("`view` must be one of the last few; this one is gone. Select again.")
        if not 0 <= start <= end <= len(order) or end - start > MOST_ROWS:
            raise InputError(f"`rows` must be at most {MOST_ROWS} of 0 to {len(order)}; got {start} to {end}.")
        return self._describe(order[start:end])

    def detail(self, row: int) -> dict[str, Any]:
        """A sample with its whole text."""
        self._check(row)
        return self._describe(np.array([row]), LONG_TEXT)[0]

    def neighbours(self, row: int) -> dict[str, Any]:
        """The samples most like it, of the given and of the nearest class."""
        self._check(row)
        if self.audit.features is None:
            return {"given": [], "nearest": []}
        found = find_neighbours(self.audit.features.blocks, self.table, np.array([row]))
        lists = {"given": found.given[0], "nearest": found.nearest[0]}
        return {name: self._describe(rows[rows >= 0]) for name, rows in lists.items()}

    def mark(self, row: int, marked: bool) -> None:
        """Mark a sample or take the mark away, in the file before this returns."""
        self._check(row)
        self.marks.set(row, marked)

    def _picture(self, row: int, large: bool) -> bytes | None:
        """The sample's picture as WebP; None where there is none or it cannot be read."""
        self._check(row)
        if self.audit.dataset is None or self.audit.dataset.modality != "image":
            return None
        try:
            return encode_webp(self._sample(row), _PICTURE_SIDE if large else THUMBNAIL_SIDE)
        except UnreadableSampleError:
            return None

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self.table):
            raise InputError(f"`row` must be in [0, {len(self.table)}); got {row}. Reload the page.")

    def _sample(self, row: int) -> Any:
        assert self.audit.dataset is not None
        assert self._positions is not None
        with self._reading:  # not every data set can be read from two threads at once
            return self.audit.dataset[int(self._positions[row])]

    def _describe(self, rows: np.ndarray, most: int = SHORT_TEXT) -> list[dict[str, Any]]:
        columns = sample_columns(self.audit.suspects, rows)
        wrong = columns.pop("wrong") or [None] * len(rows)
        dataset = self.audit.dataset
        images = dataset is not None and dataset.modality == "image"
        described = []
        for number, values in enumerate(zip(*columns.values(), strict=True)):
            one = dict(zip(columns, values, strict=True))
            one["wrong"] = wrong[number]
            one["picture"] = images
            shown = dataset is not None and not images
            one["content"] = describe_sample(self._sample(one["row"]), most) if shown else None
            described.append(one)
        return described

    def _matching(self, criteria: Criteria) -> np.ndarray:
        table = self.table
        kept = np.ones(len(table), dtype=bool)
        if criteria.either is not None:
            kept &= (table.labels == criteria.either) | (table.nearest_labels == criteria.either)
        if criteria.given is not None:
            kept &= table.labels == criteria.given
        if criteria.nearest is not None:
            kept &= table.nearest_labels == criteria.nearest
        if criteria.low is not None:
            kept &= table.difficulty >= criteria.low
        if criteria.high is not None:
            kept &= table.difficulty <= criteria.high
        if criteria.suspects:
            kept &= self.audit.suspects.suspect
        if criteria.marked:
            marked = np.zeros(len(table), dtype=bool)
            marked[self.marks.rows()] = True
            kept &= marked
        for word in criteria.text.split():
            kept &= self._having(word)
        return kept

    def _having(self, word: str) -> np.ndarray:
        """Which samples have a word, in any case, in their id, the names of their classes or their text."""
        classes = np.array([word.lower() in name.lower() for name in self.names])
        options = pc.MatchSubstringOptions(word, ignore_case=True)
        inside = pc.call_function("match_substring", [self._searchable()], options).to_numpy()
        return inside.astype(bool) | classes[self.table.labels] | classes[self.table.nearest_labels]

    def _searchable(self) -> pa.ChunkedArray:
        with self._gathering:
            if self._texts is None:
                texts = map(str, self.table.ids)
                if self.audit.dataset is not None and self.audit.dataset.modality == "text":
                    texts = (f"{name}\n{self._sample(row)}" for row, name in enumerate(texts))
                self._texts = _as_arrow(texts)
            return self._texts

    def _order(self, sort: str) -> np.ndarray:
        """All rows in an order; equal ids stand as in the table, other ties hardest first and then as in the table."""
        if sort not in self._orders:
            with self._ordering:
                if sort not in self._orders:
                    self._orders[sort] = self._made_order(sort)
        return self._orders[sort]

    def _made_order(self, sort: str) -> np.ndarray:
        table, suspects = self.table, self.audit.suspects
        if sort == "id":
            return self._by_id()
        if sort == "easiest":
            return np.argsort(table.difficulty, kind="stable")
        # Unknown probabilities stand between those of suspects and of the others, as on the page.
        wrong, guess = suspects.probability_wrong, np.where(suspects.suspect, 0.0, -1.0)
        known = guess if wrong is None else np.where(np.isnan(wrong), guess, wrong)
        first = table.margin if sort == "margin" else known
        return suspects.order[np.argsort(-first[suspects.order], kind="stable")]

    def _by_id(self) -> np.ndarray:
        keys = _as_arrow(map(natural_key, map(str, self.table.ids)))
        return pc.call_function("sort_indices", [keys], pc.SortOptions()).to_numpy().astype(np.int64)


def _as_arrow(texts: Iterable[str]) -> pa.ChunkedArray:
    """The texts, with `?` for what is no Unicode; as Python objects only a part of them at a time."""
    rest, parts = iter(texts), []
    while part := list(islice(rest, _CHUNK)):
        parts.append(pa.array([text.encode("utf-8", "replace").decode("utf-8") for text in part], pa.large_string()))
    return pa.chunked_array(parts, pa.large_string())


def natural_key(text: str) -> str:
    """A text whose place in the alphabet is that of the id, where numbers count as numbers.

    A number is padded and told from letters: after letters it stands before more letters, elsewhere after them.
    """
    return _NUMBER.sub(lambda found: f"{_mark(found)}{found[0]:0>18}", text.lower())


def _mark(found: re.Match) -> str:
    start = found.start()
    return "\0" if start and not "0" <= found.string[start - 1] <= "9" else "\U0010ffff"
