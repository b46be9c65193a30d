"""Write the document of the results, and its pictures, from the results of recipes.

    python recipes/tables.py recipes/results/*.json --out docs/results.md --images docs/images/results

Equal results give equal text.
"""

import argparse
import os
import sys
from pathlib import Path

from diffident.errors import InputError
from diffident.storage.atomic import write_text
from experiments.document import document
from experiments.plots import write_images
from experiments.summary import read_results


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 2 wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="results.json of recipes/run.py")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the document, Markdown")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="folder of its pictures")
    given = parser.parse_args(arguments)
    try:
        write_page(given.results, given.out, given.images)
    except InputError as error:
        print(f"tables.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def write_page(paths: list[Path], out: Path, images: Path) -> None:
    """Write the document and its pictures; recipes come in the order of their names.

    Raises:
        InputError: a file holds no results, or two are of one recipe.
    """
    found = {results["recipe"]: results for results in map(read_results, paths)}
    if len(found) < len(paths):
        raise InputError("`RESULTS` must be of different recipes; got one twice. Leave it out.")
    results = [found[name] for name in sorted(found)]
    for one in results:
        write_images(one, images)
    write_text(out, document(results, Path(os.path.relpath(images, out.parent)).as_posix()))


if __name__ == "__main__":
    sys.exit(main())
