"""`diffident compare`: runs side by side."""

import argparse
import math
from dataclasses import asdict
from pathlib import Path

from diffident.cli.common import print_json, print_table
from diffident.errors import InputError

EXAMPLE = "diffident compare runs/* --baseline cross-entropy"
SHOWN = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")
VERDICT = ("accuracy", "nll", "ece", "aurc")
HIGHER_IS_BETTER = ("accuracy",)


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

    evaluations, folders = [], [open_run(run) for run in runs]
    names = names_of_runs(folders)
    _check_same_test(folders)
    for run, folder, name in zip(runs, folders, names, strict=True):
        if folder.evaluation is None:
            raise InputError(
                f"`RUN` must be evaluated; {run} has no evaluation.json. "
                f"Train with --test, or run: diffident evaluate {run}."
            )
        evaluations.append((name, folder.settings.seed, read_evaluation(folder.evaluation)))
    if baseline is None and "cross-entropy" in names:
        baseline = "cross-entropy"
    return compare(evaluations, baseline)


def names_of_runs(folders: list) -> list[str]:
    """The loss with the options that are not the defaults, and whatever else differs between runs of that name."""
    bases = [name_of_run(folder.settings) for folder in folders]
    described = [
        {key: value for key, value in asdict(folder.settings).items() if key not in ("seed", "device")}
        | {"data": folder.data.get("fingerprint", "")[:8], "labels": folder.data.get("labels", "")[:8]}
        | {"weights": (folder.data.get("weights") or "")[:8]}
        for folder in folders
    ]
    names = []
    for base, about in zip(bases, described, strict=True):
        others = [other for name, other in zip(bases, described, strict=True) if name == base]
        differing = [f"{key}={about[key]}" for key in about if any(other[key] != about[key] for other in others)]
        names.append(" ".join([base, *differing]))
    return names


def _check_same_test(folders: list) -> None:
    """Refuse runs whose test predictions are of other samples than the first's; those without a file are trusted."""
    from diffident.errors import IdMismatchError
    from diffident.files import read_parquet

    first = None
    for folder in folders:
        file = folder.predictions("test")
        if not file.exists():
            continue
        ids = read_parquet(file, "RUN", "Train it again.")["id"].to_pylist()
        if first is None:
            first = folder.path, ids
        elif ids != first[1]:
            pairs = zip(ids, first[1], strict=False)
            differing = [f"{one!r} and {other!r}" for one, other in pairs if one != other][:3]
            raise IdMismatchError(
                f"`RUN` must all be tested on the same samples; got {', '.join(differing) or f'{len(ids)} samples'} at "
                f"{folder.path} and {first[0]}. Evaluate all runs on the same split."
            )


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
    """Mean ± standard deviation over seeds, the paired differences to the baseline, and what they say."""
    shown = [metric for metric in comparison.metrics if metric in SHOWN or metric.endswith("/auroc")]
    rows = []
    for row in comparison.rows:
        rows.append([f"{row.name} ({row.num_seeds})", *(_cell(row.metrics[metric]) for metric in shown)])
    several = any(row.num_seeds > 1 for row in comparison.rows)
    title = "mean ± standard deviation over seeds (number of seeds)" if several else "one seed each"
    print_table(title, ["loss", *shown], rows)
    differences = [row for row in comparison.rows if row.differences]
    if differences:
        rows = [[row.name, *(_cell(row.differences[metric], sign="+") for metric in shown)] for row in differences]
        print_table(f"paired difference to {comparison.baseline}", ["loss", *shown], rows)
    for row in differences:
        print(verdict(row, comparison.baseline))


def verdict(row, baseline: str) -> str:
    """One sentence on a method's paired differences: clear where their 95 % t interval over the seeds excludes 0."""
    from scipy.stats import t

    spreads = {metric: row.differences[metric] for metric in VERDICT}
    seeds = max(spread.num_seeds for spread in spreads.values())
    if seeds < 2:
        return f"{row.name} against {baseline}: {seeds or 'no'} common seed, too few to tell a difference from chance."
    found: dict[str, list[str]] = {"better": [], "worse": [], "not clearly different": []}
    for metric, spread in spreads.items():
        half = t.ppf(0.975, spread.num_seeds - 1) * spread.standard_deviation / math.sqrt(spread.num_seeds)
        clear = abs(spread.mean) > half
        better = (spread.mean > 0) == (metric in HIGHER_IS_BETTER)
        key = ("better" if better else "worse") if clear else "not clearly different"
        found[key].append(f"{metric} ({spread.mean:+.4f})")
    parts = [f"{key} in {', '.join(metrics)}" for key, metrics in found.items() if metrics]
    return f"{row.name} against {baseline}, {seeds} seeds: {'; '.join(parts)}."


def _cell(spread, sign: str = "") -> str:
    if spread.num_seeds == 0:
        return "–"
    mean = f"{spread.mean:{sign}.4f}"
    return mean if spread.num_seeds < 2 else f"{mean} ± {spread.standard_deviation:.4f}"
