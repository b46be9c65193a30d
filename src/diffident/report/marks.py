"""Marked samples in a file: a line for every change, on the disk before the next one."""

import csv
import io
import json
import os
import threading
from pathlib import Path

import numpy as np

from diffident.auditing import audit_table
from diffident.errors import InputError
from diffident.records import Suspects

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Marks:
    """The marks of an audit's samples. Lines are `{"id": ..., "marked": true}`; the last one of an id counts.

    Args:
        path: The file; made at the first mark.
        ids: Ids of the audit's rows.

    Raises:
        InputError: the file holds something else, or cannot be read.
    """

    def __init__(self, path: str | Path, ids: np.ndarray):
        self.path = Path(path)
        self._ids = [str(name) for name in ids.tolist()]
        self._lock = threading.Lock()
        self._marked: dict[int, None] = {}
        self._read()

    def rows(self) -> list[int]:
        """Marked rows, ascending."""
        with self._lock:
            return sorted(self._marked)

    def set(self, row: int, marked: bool) -> None:
        """Mark a row or take its mark away; on the disk before this returns."""
        line = json.dumps({"id": self._ids[row], "marked": marked})
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._apply(row, marked)

    def _apply(self, row: int, marked: bool) -> None:
        if marked:
            self._marked[row] = None
        else:
            self._marked.pop(row, None)

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"`--marks` must be readable; {self.path}: {error.strerror}. Check its rights.") from None
        whole, _, torn = content.rpartition(b"\n")
        places = {name: row for row, name in enumerate(self._ids)}
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                change = json.loads(line)
                name, marked = str(change["id"]), bool(change["marked"])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"`--marks` must hold marks; line {number} of {self.path} is none. Name another file."
                ) from None
            if name in places:  # marks of samples that a later audit left out are kept in the file
                self._apply(places[name], marked)
        if torn:  # a crash in the middle of a line: it was never answered, so it goes
            with open(self.path, "r+b") as file:
                file.truncate(len(content) - len(torn))
                os.fsync(file.fileno())


def marks_csv(suspects: Suspects, rows: list[int]) -> str:
    """The marked rows as CSV, with the columns that the page's download has; no cell is a formula."""
    table = audit_table(suspects, np.array(rows, dtype=np.int64))
    names = ["id", "label", "label_name", "nearest_label", "nearest_label_name", "difficulty", "rank", "margin"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(["row", *names, "probability_wrong"])
    for row, one in zip(rows, table.to_pylist(), strict=True):
        wrong = one.get("probability_wrong")
        cells = [row, *(one[name] for name in names), "" if wrong is None or wrong != wrong else wrong]
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in cells])
    return stream.getvalue()
