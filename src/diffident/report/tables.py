"""The tables of a report as Markdown and LaTeX."""

from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from diffident.report.charts import Table
from diffident.storage.atomic import write_text

_MARKDOWN = {ord(character): f"\\{character}" for character in "\\`*_{}[]<>|~$"}


def to_markdown(table: Table) -> str:
    """A table as GitHub has them; what would be markup in a name is escaped."""
    header, rows = ([[_plain(cell).translate(_MARKDOWN) for cell in row] for row in part] for part in _parts(table))
    return tabulate(rows, header[0], tablefmt="github", disable_numparse=True, colalign=_alignment(table)) + "\n"


def to_latex(table: Table) -> str:
    """A table for the package booktabs; what would be a command in a name is escaped."""
    header, rows = ([[_plain(cell) for cell in row] for row in part] for part in _parts(table))
    text = tabulate(rows, header[0], tablefmt="latex_booktabs", disable_numparse=True, colalign=_alignment(table))
    return text.replace("±", "$\\pm$").replace("–", "--") + "\n"


def write_tables(tables: Iterable[Table], folder: str | Path) -> list[str]:
    """Write every table as .md and .tex; the files' names."""
    names = []
    for table in tables:
        for suffix, text in (("md", to_markdown(table)), ("tex", to_latex(table))):
            names.append(f"{table.key}.{suffix}")
            write_text(Path(folder) / names[-1], text)
    return names


def _parts(table: Table) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [table.header], list(table.rows)


def _alignment(table: Table) -> tuple[str, ...]:
    return ("left", *["right"] * (len(table.header) - 1))


def _plain(cell: str) -> str:
    """One line: a line break would end a row."""
    return " ".join(cell.split())
