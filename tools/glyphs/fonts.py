"""The fonts of tools/glyphs/fonts.txt: the files that their Debian packages installed, and nothing else.

python tools/glyphs/fonts.py      prints the licence table of docs/glyphs.md, or the packages that are missing
"""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("fonts.txt")
COLUMNS = "package | version | licence | project | part"


@dataclass(frozen=True)
class Package:
    """One line of the list."""

    name: str
    version: str
    licence: str
    project: str
    held_out: bool


def read_packages(path: Path = LIST) -> list[Package]:
    """The packages in the order of the list.

    Raises:
        SystemExit: a line without its five columns; names it.
    """
    packages = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        columns = line.split(" | ")
        if len(columns) != 5 or columns[4] not in ("train", "held-out"):
            sys.exit(f"`{path.name}` must have the columns {COLUMNS}; got {line!r} at line {number}. Mend that line.")
        packages.append(Package(*columns[:4], held_out=columns[4] == "held-out"))
    return packages


def font_files(packages: list[Package]) -> list[tuple[Path, Package]]:
    """Every .ttf and .otf file of the packages as dpkg installed them, sorted.

    Raises:
        SystemExit: packages that are not installed; names them all.
    """
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Status}\n"]
    found = subprocess.run([*query, *(package.name for package in packages)], capture_output=True, text=True).stdout
    installed = {name: version for name, version, status in map(str.split, found.splitlines()) if status == "installed"}
    missing = [package.name for package in packages if package.name not in installed]
    if missing:
        sys.exit(f"`fonts.txt` must name installed packages; missing: apt-get install {' '.join(missing)}")
    for package in packages:
        if installed[package.name] != package.version:
            print(f"{package.name} is {installed[package.name]}, not {package.version}: pictures may differ")
    files = []
    for package in packages:
        listed = subprocess.run(["dpkg", "--listfiles", package.name], capture_output=True, text=True, check=True)
        paths = (Path(line) for line in listed.stdout.splitlines())
        files += [(path, package) for path in paths if path.suffix in (".ttf", ".otf") and not path.is_symlink()]
    return sorted(files, key=lambda file: str(file[0]))


def licence_table(packages: list[Package]) -> str:
    """Markdown: for each licence, as the list words it, its packages and the projects of either part."""
    counts = Counter(package.licence for package in packages)
    rows = ["| licence | packages | projects trained on | projects held out |", "| --- | --- | --- | --- |"]
    for licence, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        train, held_out = (
            ", ".join(sorted({p.project for p in packages if (p.licence, p.held_out) == (licence, part)}))
            for part in (False, True)
        )
        rows.append(f"| {licence} | {count} | {train} | {held_out} |")
    num_train, num_held_out = (len({p.project for p in packages if p.held_out == part}) for part in (False, True))
    rows.append(f"| in all | {len(packages)} | {num_train} | {num_held_out} |")
    return "\n".join(rows)


if __name__ == "__main__":
    listed_packages = read_packages()
    font_files(listed_packages)
    print(licence_table(listed_packages))
