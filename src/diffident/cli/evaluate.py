"""`diffident evaluate`: metrics of predictions, anyone's."""

import argparse
from pathlib import Path

from diffident.cli.common import log, print_json, print_table
from diffident.errors import InputError

EXAMPLE = "diffident evaluate predictions.parquet --ood textures=textures.parquet --out evaluation.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "predictions",
        metavar="PREDICTIONS|RUN",
        help=".parquet or .npz with logits and labels, or a run with a test split",
    )
    parser.add_argument(
        "--ood",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="predictions on out-of-distribution data",
    )
    parser.add_argument("--resamples", type=int, default=500, metavar="N", help="bootstrap resamples (default: 500)")
    parser.add_argument("--out", metavar="FILE", help="write evaluation.json (default for a run: in its folder)")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print, and write where asked."""
    from diffident.evaluation import evaluate
    from diffident.storage.evaluation_file import evaluation_to_dict, write_evaluation
    from diffident.storage.predictions import read_predictions

    path = Path(arguments.predictions)
    out = arguments.out
    if path.is_dir():
        out = out or str(path / "evaluation.json")
        path = _test_predictions(path)
    predictions = read_predictions(path)
    if predictions.labels is None:
        raise InputError(
            f"`PREDICTIONS` must have labels; got none at {path}. Give unlabelled data as --ood NAME=FILE."
        )
    ood = {name: read_predictions(file).logits for name, file in map(_named, arguments.ood)}
    evaluation = evaluate(predictions.logits, predictions.labels, ood=ood, num_resamples=arguments.resamples)
    if out:
        write_evaluation(evaluation, out)
    if arguments.json:
        print_json(evaluation_to_dict(evaluation))
        return
    print_evaluation(evaluation)
    if out:
        log(f"The evaluation is in {out}.")


def _test_predictions(run: Path) -> Path:
    path = run / "predictions" / "test.parquet"
    if not path.exists():
        raise InputError(
            f"`RUN` must have predictions/test.parquet; {run} has none. Train with --test DATA, or predict."
        )
    return path


def _named(text: str) -> tuple[str, str]:
    name, separator, file = text.partition("=")
    if not (separator and name and file):
        raise InputError(f"`--ood` must be NAME=FILE; got `{text}`. For example: --ood textures=textures.parquet.")
    return name, file


def print_evaluation(evaluation) -> None:
    """All metrics with their 95 % intervals, as fractions."""
    estimates = dict(evaluation.metrics)
    for name, metrics in evaluation.ood.items():
        estimates.update({f"ood {name} {key}": estimate for key, estimate in metrics.items()})
    rows = [[name, *(f"{v:.4f}" for v in (e.value, e.low, e.high))] for name, e in estimates.items()]
    title = f"{evaluation.num_samples:,} samples, {evaluation.num_classes} classes, 95 % bootstrap intervals"
    print_table(title, ["metric", "value", "low", "high"], rows)
