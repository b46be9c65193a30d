"""What docs/formats.md says: the names in its tables."""

import re
from pathlib import Path
from typing import NamedTuple

PAGE = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")


class Name(NamedTuple):
    """What the page says of a name: whether a reader needs it, and the type, or the next word."""

    needed: bool
    type: str


def _tables() -> dict[tuple[str, str], list[list[str]]]:
    """Rows of the page's tables, by the section's first words and the table's first cell."""
    found, section, rows = {}, "", None
    for line in PAGE.splitlines():
        if line.startswith("## "):
            section = re.split(r"[:,]", line[3:])[0]
        if not line.startswith("| "):
            rows = None
            continue
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if rows is None:
            rows = found.setdefault((section, cells[0]), [])
        elif not cells[0].startswith("---"):
            rows.append(cells)
    return found


TABLES = _tables()


def names_in(cell: str, types: str = "") -> dict[str, Name]:
    """The names in code in a cell, each with its type: from another cell, else the word behind it."""
    found = re.findall(r"(\*\*)?`([^`]+)`(?:\*\*)?[ ,]?(\w*)", cell)
    given = types.split(", ") if types else [word for *_, word in found]
    return {name: Name(bool(bold), kind) for (bold, name, _), kind in zip(found, given, strict=True)}


def held(section: str, file: str) -> dict[str, Name]:
    """What the page says a file holds, in tables with a row a file."""
    (cell,) = [row[1] for row in TABLES[section, "file"] if file in row[0]]
    return names_in(cell)


def listed(section: str, head: str) -> dict[str, Name]:
    """What the page says a file holds, in tables with a row a name."""
    rows = [names_in(row[0], row[1] if head == "column" else "") for row in TABLES[section, head]]
    return {name: about for row in rows for name, about in row.items()}


def evaluation_keys() -> dict[str, Name]:
    """Keys of `evaluation.json`, those of the objects of a list or of a metric with a dot."""
    found = listed("Evaluations", "key")
    for key in ("accuracy", "by_difficulty", "by_class"):
        found |= {f"{key}.{name}": about for name, about in below(key).items()}
    return found


def below(key: str) -> dict[str, Name]:
    """What the page says is below a key of `evaluation.json`."""
    (cell,) = [second for first, second in TABLES["Evaluations", "key"] if key in names_in(first)]
    return names_in(cell)
