"""`diffident compare`: runs side by side."""

import argparse
from pathlib import Path

from diffident.cli.common import print_json, print_table
from diffident.errors import InputError

EXAMPLE = "diffident compare runs/* --baseline cross-entropy"
SHOWN = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="evaluated runs; those with the same loss differ by seed"
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="the loss to compare against (default: cross-entropy if there)"
    )


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
                f"`RUN` must be evaluated; {run} has no evaluation.json. "
                f"Train with --test, or run: diffident evaluate {run}."
            )
        name, seed = name_of_run(folder.settings), folder.settings.seed
        evaluations.append((name, seed, read_evaluation(run / "evaluation.json")))
    names = {name for name, _, _ in evaluations}
    if baseline is None and "cross-entropy" in names:
        baseline = "cross-entropy"
    return compare(evaluations, baseline)


def name_of_run(settings) -> str:
    """The loss, with the options that are not the defaults."""
    from diffident.settings import load_settings

    defaults = load_settings(None, [], model=settings.model, loss=settings.loss)
    names = ("alpha", "temperature", "normalizer", "smoothing")
    changed = [
        f"{name}={getattr(settings, name)}" for name in names if getattr(settings, name) != getattr(defaults, name)
    ]
    return " ".join([settings.loss, *changed])


def comparison_to_dict(comparison) -> dict:
    """The comparison as plain values."""

    def spreads(values: dict) -> dict:
        return {key: {"mean": s.mean, "standard_deviation": s.standard_deviation} for key, s in values.items()}

    rows = [
        {
            "name": row.name,
            "num_seeds": row.num_seeds,
            "metrics": spreads(row.metrics),
            "differences": spreads(row.differences),
        }
        for row in comparison.rows
    ]
    return {"baseline": comparison.baseline, "rows": rows}


def print_comparison(comparison) -> None:
    """Mean ± standard deviation over seeds, and below each the paired difference to the baseline."""
    shown = [metric for metric in comparison.metrics if metric in SHOWN or metric.endswith("/auroc")]
    rows = []
    for row in comparison.rows:
        rows.append([f"{row.name} ({row.num_seeds})", *(_cell(row.metrics[metric]) for metric in shown)])
    print_table("mean ± standard deviation over seeds (number of seeds)", ["loss", *shown], rows)
    differences = [row for row in comparison.rows if row.differences]
    if differences:
        rows = [[row.name, *(_cell(row.differences[metric], sign="+") for metric in shown)] for row in differences]
        print_table(f"paired difference to {comparison.baseline}", ["loss", *shown], rows)


def _cell(spread, sign: str = "") -> str:
    mean = f"{spread.mean:{sign}.4f}"
    return mean if spread.num_seeds < 2 else f"{mean} ± {spread.standard_deviation:.4f}"
