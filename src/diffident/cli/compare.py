"""`diffident compare`: runs side by side."""

import argparse
from pathlib import Path

from diffident.cli.common import print_json, print_table
from diffident.errors import InputError

EXAMPLE = "diffident compare runs/* --baseline cross-entropy"
SHOWN = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="evaluated runs; those with the same loss differ by seed")
    parser.add_argument("--baseline", metavar="NAME", help="the loss to compare against (default: cross-entropy if there)")


def run(arguments: argparse.Namespace) -> None:
    """Read the runs' evaluations and print means and standard deviations over seeds."""
    comparison = compare_runs([Path(run) for run in arguments.runs], arguments.baseline)
    if arguments.json:
        print_json(comparison_to_dict(comparison))
        return
    print_comparison(comparison)


def compare_runs(runs: list[Path], baseline: str | None):
    """The `Comparison` of evaluated runs, named by what distinguishes them besides the seed."""
    from diffident.comparison import compare
    from diffident.storage.evaluation_file import read_evaluation
    from diffident.storage.runs import open_run

    evaluations = []
    for run in runs:
        folder = open_run(run)
        if not (run / "evaluation.json").exists():
            raise InputError(
                f"`RUN` must be evaluated; {run} has no evaluation.json. Train with --test, or run: diffident evaluate {run}."
            )
        name, seed = folder.settings.loss, folder.settings.seed
        evaluations.append((name, seed, read_evaluation(run / "evaluation.json")))
    return compare(evaluations, baseline)
