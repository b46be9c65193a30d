"""Options of `diffident evaluate` for what is fitted after training, and the work behind them."""

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffident.calibrators import CALIBRATORS
from diffident.cli.common import interval_cell, log, named_files, print_table, progress_bar
from diffident.detectors import DETECTORS, PEER_PREFIX, find_detector
from diffident.errors import DiffidentError, InputError, did_you_mean

SHOWN = ("accuracy", "nll", "brier", "ece", "aurc", "auroc_errors")
"""Metrics after calibration that people are shown; the others are in the file."""
TAKEN_NAMES = ("test", "train", "calibration")
"""What --features calls the labelled samples; no set of --ood has these names."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of calibration and detection."""
    lines = "\n".join(f"  {name:<22} {kind.summary}" for name, kind in CALIBRATORS.items())
    group = parser.add_argument_group("calibrators, fitted on --calibration and never on the test split", lines)
    group.add_argument(
        "--calibration", metavar="FILE", help="labelled predictions on a split of its own, for example validation"
    )
    group.add_argument(
        "--calibrators",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="which of these, or all (default: temperature)",
    )
    group.add_argument("--save-calibrators", metavar="FOLDER", help="write FOLDER/NAME.json of each")
    group.add_argument("--conformal", type=float, metavar="RATE", help="sets of classes that miss at most this share")
    group.add_argument(
        "--abstain", type=float, metavar="RISK", help="a certified threshold for at most this error rate, e.g. 0.05"
    )
    lines = "\n".join(f"  {name:<22} {kind.summary}" for name, kind in DETECTORS.items())
    lines += f"\n  {PEER_PREFIX + 'NAME':<22} a detector of pytorch-ood that reads logits or features"
    group = parser.add_argument_group("detectors of the samples in --ood", lines)
    group.add_argument(
        "--detectors",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="which of these, or all (default: max-softmax alone, as `ood`)",
    )
    group.add_argument(
        "--features",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FEATURES",
        help="features of the same samples, joined by id; NAME is train (labelled), test, calibration or one of --ood",
    )
    group.add_argument("--train-predictions", metavar="FILE", help="predictions on the training samples, for vim")


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that have nothing to work on, before anything is read."""
    for name, needed in (
        ("calibrators", "calibration"),
        ("save_calibrators", "calibration"),
        ("conformal", "calibration"),
        ("abstain", "calibration"),
        ("detectors", "ood"),
        ("train_predictions", "detectors"),
        ("kinds", "corruptions"),
        ("label_column", "corruptions"),
        ("text_column", "corruptions"),
        ("image_column", "corruptions"),
        ("id_column", "corruptions"),
        ("seed", "corruptions"),
    ):
        given = getattr(arguments, name)
        if given is not None and given != [] and not getattr(arguments, needed):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"`{flag}` must be used with --{needed}; got none. Give it, or leave {flag} out.")
    others = ("ood", "calibration", "difficulty", "by_class", "probs")
    unused = next((name for name in others if arguments.corruptions and getattr(arguments, name)), None)
    if unused is not None:
        flag = f"--{unused.replace('_', '-')}"
        raise InputError(f"`{flag}` must not be used with --corruptions, which predicts anew. Leave one of them out.")
    for name in ("conformal", "abstain"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1:
            raise InputError(f"`--{name}` must be in (0, 1); got {value:g}. For example 0.05.")
    for name, known in (("calibrators", CALIBRATORS), ("detectors", DETECTORS)):
        for given in getattr(arguments, name):
            if given not in (*known, "all") and not (name == "detectors" and given.startswith(PEER_PREFIX)):
                raise InputError(f"`--{name}` must name known ones; got {given!r}. {did_you_mean(given, known)}")


def add_posthoc(arguments: argparse.Namespace, evaluation: Any, test: Any, where: Path, ood: dict[str, Any]) -> Any:
    """The evaluation with what the options ask for; says what was fitted.

    Args:
        arguments: Of the command.
        evaluation: Of the test predictions.
        test: Their `Predictions`.
        where: Their file, for errors.
        ood: `Predictions` of every out-of-distribution set.
    """
    features = _read_features(arguments, ood)
    if arguments.calibration:
        evaluation = _calibrated(arguments, evaluation, test, where, features)
    if arguments.detectors:
        evaluation = _detected(arguments, evaluation, test, where, ood, features)
    return evaluation


def print_posthoc(evaluation: Any) -> None:
    """Metrics before and after calibration, prediction sets, abstaining and detectors, where there are any."""
    if evaluation.calibrated:
        rows = [["none", *_cells(evaluation.metrics)]]
        rows += [[name, *_cells(metrics)] for name, metrics in evaluation.calibrated.items()]
        print_table("after calibration", ["calibrator", *SHOWN], rows)
    for title, what, sets in (
        ("prediction sets on the test samples", "method", evaluation.conformal),
        ("abstaining on the test samples", "target error rate", evaluation.abstention),
        *((f"detectors of {name}", "detector", found) for name, found in evaluation.ood_detectors.items()),
    ):
        if sets:
            keys = list(next(iter(sets.values())))
            print_table(title, [what, *keys], [[name, *_cells(metrics, keys)] for name, metrics in sets.items()])


def _cells(metrics: dict[str, Any], keys: Any = SHOWN) -> list[str]:
    return [interval_cell(metrics[key]) for key in keys]


def _note_learnt_from(calibration: Path) -> None:
    """Say where the calibration samples are those that training learnt a setting from."""
    from diffident.storage.runs import open_run

    folder = calibration.resolve().parent.parent
    if calibration.stem != "validation" or not (folder / "config.toml").is_file():
        return
    try:
        run = open_run(folder, unfinished=True)
    except DiffidentError:  # some other program's config.toml
        return
    if run.data.get("validation") is not None:
        log(
            f"Note: training learnt from the samples of {calibration}, so what --conformal and --abstain promise is "
            "not exact. Predict another labelled split for it."
        )


def _read_features(arguments: argparse.Namespace, ood: dict[str, Any]) -> dict[str, Any]:
    """Feature sources by name."""
    from diffident.storage.features import open_features

    known = [*TAKEN_NAMES, *ood]
    sources = {}
    for name, path in named_files(arguments.features, "--features").items():
        if name not in known:
            raise InputError(f"`--features` must be of known samples; got {name!r}. {did_you_mean(name, known)}")
        sources[name] = open_features(path).load()
    if sources and not (arguments.calibration or arguments.detectors):
        raise InputError("`--features` must be used with --calibration or --detectors; got neither. Leave it out.")
    return sources


def _joined(features: Any, predictions: Any, where: str) -> Any:
    """Features of the predicted samples, in their order."""
    from diffident.records import positions_of

    rows = positions_of(features.ids, predictions.ids, what=where, where="the features")
    return features.values[rows]


def _calibrated(
    arguments: argparse.Namespace, evaluation: Any, test: Any, where: Path, features: dict[str, Any]
) -> Any:
    from diffident.posthoc import (
        ModelOutputs,
        evaluate_abstention,
        evaluate_calibrators,
        evaluate_prediction_sets,
        predicted_difficulty,
    )
    from diffident.storage.calibrator_file import write_calibrator
    from diffident.storage.predictions import read_predictions

    calibration = read_predictions(arguments.calibration, probs=arguments.probs)
    if arguments.conformal is not None or arguments.abstain is not None:
        _note_learnt_from(Path(arguments.calibration))
    difficulty, names = None, arguments.calibrators or ["temperature"]
    whole = {"train", "test", "calibration"} <= features.keys()
    if whole:
        train = ModelOutputs(features=features["train"].values, labels=features["train"].labels)
        known, unknown = predicted_difficulty(
            train,
            _joined(features["calibration"], calibration, arguments.calibration),
            _joined(features["test"], test, str(where)),
        )
        difficulty = (known, unknown)
    if "all" in names:
        names = [name for name, kind in CALIBRATORS.items() if whole or kind.needs is None]
    elif not whole and any(CALIBRATORS[name].needs for name in names):
        raise InputError(
            "`difficulty-temperature` must have the features of all samples; got too few. Give "
            "--features train=... calibration=... test=..."
        )
    options = {"num_resamples": arguments.resamples}
    with progress_bar("calibrators") as progress:
        fitted, metrics = evaluate_calibrators(
            names, calibration, test, difficulty=difficulty, progress=progress, **options
        )
    for name, calibrator in fitted.items():
        log(
            f"{name}: NLL of the {calibrator.num_samples:,} calibration samples {calibrator.nll_before:.4f} before, "
            f"{calibrator.nll_after:.4f} after ({_described(name, calibrator)})."
        )
        if arguments.save_calibrators:
            write_calibrator(calibrator, Path(arguments.save_calibrators) / f"{name}.json")
    evaluation = replace(evaluation, calibrated=metrics)
    if arguments.conformal is not None:
        sets = evaluate_prediction_sets(calibration, test, error_rate=arguments.conformal, **options)
        evaluation = replace(evaluation, conformal=sets)
    if arguments.abstain is not None:
        state, found = evaluate_abstention(calibration, test, target=arguments.abstain)
        log(str(state))
        evaluation = replace(evaluation, abstention={f"{arguments.abstain:g}": found})
    return evaluation


def _described(name: str, calibrator: Any) -> str:
    """The calibrator's description in a few words."""
    from diffident.calibrators import open_calibrator

    words = []
    for key, value in open_calibrator(name).describe(calibrator.state).items():
        if key == "at_bound":
            words += ["still better beyond the bound"] if value else []
        elif isinstance(value, list):
            words.append(f"{key.replace('_', ' ')} {' to '.join(f'{number:.4g}' for number in value)}")
        else:
            words.append(f"{key.replace('_', ' ')} {value:.4g}")
    return ", ".join(words)


def _detected(
    arguments: argparse.Namespace,
    evaluation: Any,
    test: Any,
    where: Path,
    ood: dict[str, Any],
    features: dict[str, Any],
) -> Any:
    from diffident.posthoc import ModelOutputs, evaluate_detectors
    from diffident.records import positions_of
    from diffident.storage.predictions import read_predictions

    def outputs(name: str, predictions: Any, file: str) -> ModelOutputs:
        found = _joined(features[name], predictions, file) if name in features else None
        return ModelOutputs(logits=predictions.logits, features=found)

    train = ModelOutputs()
    if "train" in features:
        train = ModelOutputs(features=features["train"].values, labels=features["train"].labels)
    if arguments.train_predictions:
        predictions = read_predictions(arguments.train_predictions, probs=arguments.probs)
        logits, labels = predictions.logits, predictions.labels
        if "train" in features:
            ids = features["train"].ids
            logits = logits[positions_of(predictions.ids, ids, what="the features", where=arguments.train_predictions)]
            labels = train.labels
        train = replace(train, logits=logits, labels=labels)
    inside = outputs("test", test, str(where))
    outside = {name: outputs(name, predictions, name) for name, predictions in ood.items()}
    names, others = arguments.detectors, {"test": inside, **outside}
    if "all" in names:
        names = [name for name in DETECTORS if _possible(name, train, others)]
        log(f"Detectors for which everything is there: {', '.join(names)}.")
    _check_needs(names, train, others)
    with progress_bar("detectors") as progress:
        found = evaluate_detectors(
            names, inside, outside, train=train, num_resamples=arguments.resamples, progress=progress
        )
    return replace(evaluation, ood_detectors=found)


def _check_needs(names: list[str], train: Any, others: dict[str, Any]) -> None:
    """Refuse detectors that read what is not there, by the option that gives it."""
    for name in names:
        for where, key in _missing(name, train, others):
            give = "--train-predictions FILE" if key == "logits" else f"--features {where}=FEATURES"
            labelled = ", labelled" if key == "labels" else ""
            raise InputError(f"`{name}` must have {key} of {where}; got none. Give {give}{labelled}.")


def _missing(name: str, train: Any, others: dict[str, Any]) -> list[tuple[str, str]]:
    """What a detector reads and is not there: of which samples, and what."""
    kind = find_detector(name)
    needs = [("train", train, key) for key in kind.fits_on]
    needs += [(where, outputs, key) for where, outputs in others.items() for key in kind.scores]
    return [(where, key) for where, outputs, key in needs if getattr(outputs, key) is None]


def _possible(name: str, train: Any, others: dict[str, Any]) -> bool:
    """Whether everything that a detector needs is there: data, faiss, and logits that are not log-probabilities."""
    from diffident.detectors.protocol import are_normalised

    if name == "knn" and find_spec("faiss") is None:
        return False
    if name in ("energy", "vim") and are_normalised(others["test"].logits):
        return False
    return not _missing(name, train, others)
