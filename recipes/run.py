"""Run a recipe: one command from data to every number of its tables.

    python recipes/run.py recipes/clinc150.toml --data DIR --out OUT --encoder sentence-transformers:PATH

Strengths are chosen on validation data, every method is trained with every seed, and test data are measured before and
after temperature scaling. Finished runs are kept and interrupted ones go on, so the same command can be given again;
`OUT/results.json` holds what is there.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from diffident.errors import DiffidentError, InputError, MissingDependencyError
from experiments.ledger import claim_methods, claim_sets
from experiments.materials import Materials, Place, check_there, fingerprints
from experiments.reading import read_recipe
from experiments.recipe import Recipe
from experiments.results import Measured, collect, compare_all, compare_pair, pairs_of, write_results
from experiments.schedule import Runner, chosen_methods, prepare, runner, train_all, trained_methods, tune_all


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        _run(given)
    except (InputError, MissingDependencyError) as error:
        return _fail(error, 2)
    except (DiffidentError, OSError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        _log("Interrupted; what is finished is kept. The same command goes on.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", metavar="RECIPE", help="a .toml file of this folder")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder that the recipe's data are in")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="folder of everything that is made")
    parser.add_argument("--encoder", metavar="ENC", help="encoder of the difficulty, instead of the recipe's")
    parser.add_argument("--features", type=Path, metavar="DIR", help="training features made by `diffident extract`")
    parser.add_argument("--seeds", type=int, metavar="N", help="number of seeds, instead of the recipe's")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these methods, or sweeps")
    parser.add_argument("--ood", nargs="+", default=[], metavar="NAME=SPEC", help="further out-of-distribution sets")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="single entries of the recipe, for example training.epochs=1",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that train (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each training (default: 1)")
    parser.add_argument("--results-only", action="store_true", help="train nothing: measure and compare what is there")
    return parser


def _run(given: argparse.Namespace) -> None:
    recipe = _recipe(given)
    names = trained_methods(recipe, chosen_methods(recipe, given.methods))
    if not given.data.is_dir():
        raise InputError(f"`--data` must be a folder; {given.data} is not. Check the path.")
    for option in ("jobs", "threads"):
        if getattr(given, option) < 1:
            raise InputError(f"`--{option}` must be at least 1; got {getattr(given, option)}. Leave it out for 1.")
    materials = Materials(Place(recipe, given.data, given.out, given.features, given.threads), _log)
    check_there(materials.place)
    claim_methods(given.out, recipe)
    measured: Measured = {}
    with runner(materials, given.jobs) as run:
        if not given.results_only:
            prepare(materials, names)
            tune_all(materials, names, run, _log)
        claim_sets(given.out, fingerprints(materials.evaluated))
        if not given.results_only:
            train_all(materials, names, run, _log, lambda: write_results(materials, collect(materials, measured), None))
        collect(materials, measured)
        _log(f"Comparing {len(measured)} runs.")
        file = write_results(materials, measured, _comparisons(recipe, measured, run))
    _log(f"Everything that was measured is in {file}.")


def _comparisons(recipe: Recipe, measured: Measured, run: Runner) -> dict:
    pairs = pairs_of(recipe, measured)
    found = {task[1][0]: result for task, result in run([(compare_pair, (pair,)) for pair in pairs])}
    return compare_all(recipe, [found[pair] for pair in pairs])


def _recipe(given: argparse.Namespace) -> Recipe:
    overrides = [*given.overrides]
    for text in given.ood:
        name, separator, spec = text.partition("=")
        if not (separator and name and spec):
            raise InputError(f"`--ood` must be NAME=SPEC; got {text!r}. For example svhn=torchvision:SVHN:test.")
        overrides.append(f"data.ood.{name}={spec}")
    if given.encoder is not None:
        overrides.append(f"difficulty.encoder={given.encoder}")
    recipe = read_recipe(given.recipe, overrides)
    if given.seeds is not None:
        if given.seeds < 1:
            raise InputError(f"`--seeds` must be at least 1; got {given.seeds}. Leave it out for {recipe.seeds}.")
        recipe = replace(recipe, seeds=given.seeds)
    return recipe


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(error: Exception, code: int) -> int:
    _log(f"run.py: error: {' '.join(str(error).split())}")
    return code


if __name__ == "__main__":
    sys.exit(main())
