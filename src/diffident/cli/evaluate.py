"""`diffident evaluate`: metrics of predictions, anyone's."""

import argparse
from pathlib import Path
from typing import Any

from diffident.cli.common import (
    add_data_options,
    amount,
    check_out,
    data_options,
    interval_cell,
    log,
    named_files,
    number_cell,
    print_json,
    print_table,
    progress_bar,
)
from diffident.cli.posthoc import TAKEN_NAMES, add_options, add_posthoc, check_options, print_posthoc
from diffident.errors import InputError

EXAMPLE = "diffident evaluate predictions.parquet --ood textures=textures.parquet --out evaluation.json"
GROUPED = ("accuracy", "nll", "ece_debiased", "overconfidence", "aurc")
"""Metrics of groups that people are shown; the others are in the file."""
MAX_CLASSES = 20
"""Classes that people are shown; the others are in the file."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "predictions",
        metavar="PREDICTIONS|RUN",
        help=".parquet or .npz with logits (or probs) and labels, or a run with a test split",
    )
    parser.add_argument(
        "--ood",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="predictions on out-of-distribution data",
    )
    parser.add_argument(
        "--difficulty", metavar="FILE", help="difficulty.parquet of the samples: metrics by tenths of difficulty too"
    )
    parser.add_argument("--by-class", action="store_true", help="metrics of every class's samples too")
    parser.add_argument(
        "--probs", action="store_true", help="read probabilities, also where the files call them logits"
    )
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="bootstrap resamples (default: 1000)")
    parser.add_argument("--out", metavar="FILE", help="write evaluation.json (default for a run: in its folder)")
    add_options(parser)
    _add_corruption_options(parser)


def _add_corruption_options(parser: argparse.ArgumentParser) -> None:
    from diffident.corruptions import CORRUPTIONS

    lines = "\n".join(f"  {name:<22} {kind.summary}" for name, kind in CORRUPTIONS.items())
    group = parser.add_argument_group("corruptions, at severities 1 to 5", lines)
    group.add_argument(
        "--corruptions",
        metavar="DATA",
        help="evaluate RUN on corrupted versions of this labelled data instead, into robustness.json",
    )
    group.add_argument(
        "--kinds", nargs="+", action="extend", default=[], metavar="NAME", help="which of these (default: all that fit)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the corruptions (default: 0)")
    add_data_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print, and write where asked."""
    from diffident.evaluation import evaluate
    from diffident.storage.evaluation_file import evaluation_to_dict, write_evaluation
    from diffident.storage.predictions import read_predictions

    check_options(arguments)
    _check_out(arguments)
    if arguments.corruptions:
        _evaluate_corrupted(arguments)
        return
    outside = named_files(arguments.ood, "--ood", taken=TAKEN_NAMES)
    path = Path(arguments.predictions)
    out = arguments.out
    if path.is_dir():
        out = out or str(path / "evaluation.json")
        path = run_predictions(path)
    predictions = read_predictions(path, probs=arguments.probs)
    if predictions.labels is None:
        raise InputError(
            f"`PREDICTIONS` must have labels; got none at {path}. Give unlabelled data as --ood NAME=FILE."
        )
    ood = {name: read_predictions(file, probs=arguments.probs) for name, file in outside.items()}
    difficulty = None if arguments.difficulty is None else _difficulty(arguments.difficulty, predictions.ids, path)
    with progress_bar("evaluate") as progress:
        evaluation = evaluate(
            predictions.logits,
            predictions.labels,
            ood={name: held.logits for name, held in ood.items()},
            difficulty=difficulty,
            by_class=arguments.by_class,
            label_names=predictions.label_names,
            num_resamples=arguments.resamples,
            progress=progress,
        )
    evaluation = add_posthoc(arguments, evaluation, predictions, path, ood)
    if out:
        _tell_what_goes(out, evaluation)
        write_evaluation(evaluation, out)
    if arguments.json:
        print_json(evaluation_to_dict(evaluation))
        return
    print_evaluation(evaluation)
    print_posthoc(evaluation)
    if out:
        log(f"The evaluation is in {out}.")


def _tell_what_goes(out: str, evaluation: Any) -> None:
    """A line on what the file has and this call was not asked for."""
    from diffident.storage.evaluation_file import read_evaluation

    if not Path(out).is_file():
        return
    try:
        before = read_evaluation(out)
    except InputError:  # it is damaged, and made anew
        return
    parts = ("ood", "ood_detectors", "calibrated", "conformal", "abstention", "by_class", "by_difficulty")
    gone = [part for part in parts if getattr(before, part, None) and not getattr(evaluation, part, None)]
    if gone:
        log(f"Note: {', '.join(gone)} of the earlier {out} are gone, as this call was not asked for them.")


def _check_out(arguments: argparse.Namespace) -> None:
    named = (arguments.difficulty, arguments.calibration, arguments.train_predictions, arguments.corruptions)
    check_out(arguments.out, arguments.predictions, *arguments.ood, *arguments.features, *named, suffix=".json")


def _evaluate_corrupted(arguments: argparse.Namespace) -> None:
    """Predict and evaluate every corrupted version of a data set."""
    from functools import partial

    from diffident.data import open_dataset
    from diffident.robustness import robustness, robustness_to_dict, write_robustness
    from diffident.training import predict

    run, out = Path(arguments.predictions), arguments.out or str(Path(arguments.predictions) / "robustness.json")
    if not run.is_dir():
        raise InputError(f"`--corruptions` must be used with a RUN, which predicts; got {run}. Give its folder.")
    dataset = open_dataset(arguments.corruptions, **data_options(arguments))
    with progress_bar("corruptions") as progress:
        result = robustness(
            partial(predict, run), dataset, kinds=arguments.kinds or None, seed=arguments.seed or 0, progress=progress
        )
    write_robustness(result, out)
    if arguments.json:
        print_json(robustness_to_dict(result))
        return
    for key in ("accuracy", "ece"):
        rows = [
            [kind, *(f"{getattr(metrics, key):.4f}" for metrics in severities.values())]
            for kind, severities in result.corrupted.items()
        ]
        title = f"{key} by corruption and severity; {getattr(result.clean, key):.4f} without"
        print_table(title, ["corruption", *map(str, next(iter(result.corrupted.values())))], rows)
    log(
        f"Mean corruption error {result.mean_corruption_error:.4f}, mean ECE {result.mean_ece:.4f}; all of it in {out}."
    )


def run_predictions(run: Path) -> Path:
    """The predictions of a run's test split."""
    from diffident.storage.runs import predictions_file

    path = predictions_file(run, "test")
    if not path.exists():
        raise InputError(
            f"`RUN` must have predictions/test.parquet; {run} has none. Train with --test DATA, or predict."
        )
    return path


def _difficulty(file: str, ids, path: Path):
    """The difficulty of every prediction, joined by id."""
    from diffident.records import positions_of
    from diffident.storage.difficulty_table import read_difficulty_table

    table = read_difficulty_table(file)
    return table.difficulty[positions_of(table.ids, ids, what=str(path), where=file)]


def print_evaluation(evaluation) -> None:
    """All metrics with their 95 % intervals, if they have some, as fractions."""
    estimates = dict(evaluation.metrics)
    for name, metrics in evaluation.ood.items():
        estimates.update({f"ood {name} {key}": estimate for key, estimate in metrics.items()})
    with_intervals = any(e.has_interval for e in estimates.values())
    columns = ["value", "low", "high"] if with_intervals else ["value"]
    rows = [[name, *(number_cell(getattr(e, column)) for column in columns)] for name, e in estimates.items()]
    title = f"{amount(evaluation.num_samples, 'sample')}, {evaluation.num_classes} classes"
    print_table(title + (", 95 % intervals" if with_intervals else ""), ["metric", *columns], rows)
    _print_groups(
        "by difficulty, easiest first",
        "difficulty",
        [(f"{group.low:.4g} to {group.high:.4g}", group) for group in evaluation.by_difficulty],
    )
    classes = evaluation.by_class[:MAX_CLASSES]
    left_out = len(evaluation.by_class) - len(classes)
    _print_groups(
        "by class" + (f", the first {MAX_CLASSES} of {len(evaluation.by_class)}" if left_out else ""),
        "class",
        [(group.name or str(group.index), group) for group in classes],
    )


def _print_groups(title: str, what: str, groups: list) -> None:
    if not groups:
        return
    rows = []
    for name, group in groups:
        rows.append([name, f"{group.num_samples:,}", *(interval_cell(group.metrics[key]) for key in GROUPED)])
    print_table(title, [what, "samples", *GROUPED], rows)
