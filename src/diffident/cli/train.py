"""`diffident train`: a classifier, from a data set and a loss."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffident.cli.common import TrainingBar, add_data_options, data_options, log, print_json
from diffident.cli.evaluate import print_evaluation
from diffident.errors import InputError, MissingColumnError

if TYPE_CHECKING:
    import numpy as np

    from diffident.data.dataset import Dataset
    from diffident.records import DifficultyTable
    from diffident.settings import TrainingSettings

EXAMPLE = (
    "diffident train train.parquet --model ngrams --loss difficulty-aware --difficulty difficulty.parquet "
    "--validation validation.parquet --test test.parquet --seed 1 --out runs/difficulty-aware-1"
)
# Here as well as in `diffident.losses`, as help must not wait for torch.
LOSS_NAMES = (
    "cross-entropy",
    "label-smoothing",
    "entropy",
    "difficulty-aware",
    "difficulty-smoothing",
    "difficulty-temperature",
    "focal",
    "flsd",
    "dual-focal",
    "inverse-focal",
    "l1",
    "poly",
    "mbls",
    "logit-norm",
    "crl",
    "mmce",
    "soft-ece",
    "mixup",
    "regmixup",
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("data", metavar="DATA", help="the labelled training data")
    parser.add_argument(
        "--model", metavar="MODEL", help="cnn-small, resnet18-32px, wrn-28-10, ngrams, mlp, timm:NAME, ..."
    )
    parser.add_argument(
        "--loss",
        metavar="LOSS",
        help=f"{', '.join(LOSS_NAMES)} (default: cross-entropy); their numbers by --set, e.g. --set gamma=3",
    )
    parser.add_argument(
        "--difficulty", metavar="FILE", help="from `diffident score`, best by its --method posterior; joined by id"
    )
    parser.add_argument(
        "--validation",
        metavar="DATA",
        help="evaluated after each epoch; teaches difficulty-aware how unsure to be, unless --alpha or --set doubt=N "
        "is given, and when networks from scratch may see hard images or must begin anew; decides about --set "
        "patience=N",
    )
    parser.add_argument(
        "--test",
        metavar="DATA",
        help="predicted and evaluated at the end; its labels, like those of --validation, are in the column of "
        "--label-column if it has that, else where they usually are",
    )
    parser.add_argument(
        "--alpha",
        metavar="auto|N",
        help="strength of the loss's bonus or penalty (default: the loss's own); auto chooses it and the temperature "
        "on validation data, else on a fifth of the training data, at the cost of seven to ten trainings",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of initial weights, order and augmentation (default: 0)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the data, at least 1 (default: the model's own)"
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with any setting")
    parser.add_argument(
        "--set", dest="overrides", nargs="+", action="extend", default=[], metavar="key=value", help="single settings"
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run; a finished one only gets the predictions of --validation and --test that "
        "it lacks",
    )
    add_data_options(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, and evaluate on the test data where there is some."""
    from diffident.data import open_dataset
    from diffident.settings import load_settings, parse_value
    from diffident.storage.runs import check_free, open_run

    if arguments.epochs == 0:  # a setting of 0 is the model's own, which is not what is asked for here
        raise InputError("`--epochs` must be at least 1; got 0. Leave it out for the model's own.")
    explicit = {name: getattr(arguments, name) for name in ("model", "loss", "seed", "epochs")}
    given = {name: value for name, value in explicit.items() if value is not None}
    is_auto = arguments.alpha == "auto"
    if arguments.alpha is not None and not is_auto:
        given["alpha"] = parse_value(arguments.alpha)
    settings = load_settings(arguments.config, arguments.overrides, **given)
    check_free(Path(arguments.out), arguments.resume)  # again by `train`, which takes seconds to import
    notes = _unused(arguments, settings)
    if arguments.resume and not Path(arguments.out).exists():
        notes.append(f"Note: there is no run at {arguments.out} to go on with; a new one begins.")
    difficulty = _read_difficulty(arguments.difficulty, settings)
    options = data_options(arguments)
    dataset = open_dataset(arguments.data, **options)
    validation = _open_held_out(arguments.validation, options, notes) if arguments.validation else None
    test = _open_held_out(arguments.test, options, notes) if arguments.test else None

    from diffident.training import train, train_with_chosen_alpha  # takes seconds: a mistyped name need not wait

    notes += _distrusted(difficulty, settings, dataset)
    bar = TrainingBar()
    run_one = partial(train_with_chosen_alpha, report=_log_trial) if is_auto else train
    try:
        run_one(
            dataset,
            settings,
            out=arguments.out,
            difficulty=difficulty,
            validation=validation,
            test=test,
            resume=arguments.resume,
            progress=bar,
            begun=partial(_log_all, notes),
        )
    finally:
        bar.stop()
    learnt = open_run(arguments.out).learnt
    for name, value in learnt.items():
        log(f"The {name} that was learnt from the validation data is {value:.2f}.")
    evaluation = None if test is None or test.labels is None else evaluate_run(Path(arguments.out))
    _report(arguments, learnt, evaluation)


def _log_all(notes: list[str]) -> None:
    """Log the notes, each once: not before nothing is wrong, so that a fault is one line."""
    while notes:
        log(notes.pop(0))


def _unused(arguments: argparse.Namespace, settings: "TrainingSettings") -> list[str]:
    """Notes on which of the given options have no effect: another loss or model may have been meant."""
    from diffident.losses import LOSSES
    from diffident.settings.defaults import unused_by

    loss = settings.loss
    set_keys = list(dict.fromkeys(text.partition("=")[0].strip() for text in arguments.overrides))
    given = [f"`{key}`" for key in set_keys if _is_of_others(key, loss)]
    if arguments.alpha is not None and _is_of_others("alpha", loss):
        given.append("`--alpha`")
    if arguments.difficulty is not None and not LOSSES[loss].needs_weights:
        given.append("`--difficulty`")
    notes = [f"Note: the loss {loss!r} does not use {', '.join(given)}. Choose another with --loss."] if given else []
    for decides, names in unused_by(vars(settings), set_keys).items():
        value = getattr(settings, decides)
        notes.append(f"Note: the {decides} {value!r} does not use {', '.join(f'`{name}`' for name in names)}.")
    return notes


def _read_difficulty(file: str | None, settings: "TrainingSettings") -> "DifficultyTable | None":
    """The table, where the loss has a use for it."""
    from diffident.losses import LOSSES
    from diffident.storage.difficulty_table import read_difficulty_table

    return None if file is None or not LOSSES[settings.loss].needs_weights else read_difficulty_table(file)


def _distrusted(difficulty: "DifficultyTable | None", settings: "TrainingSettings", dataset: "Dataset") -> list[str]:
    """Notes on how many samples are left out or learn another class, or why none can be: of those to train on."""
    from diffident.difficulties.weights import LEFT_OUT
    from diffident.training.checks import targets_for

    if difficulty is None or not settings.distrust:
        return []
    if difficulty.distrust is None:
        return [
            f"Note: difficulty by {difficulty.metadata.get('method', 'this method')} does not say which labels are "
            "wrong, so all are learnt. Score with --method posterior for that, or add --set distrust=false."
        ]
    targets, _ = targets_for(dataset, settings, difficulty)
    assert targets is not None  # with a loss without weights there is no difficulty here
    left_out, relabelled = int((targets.weights == LEFT_OUT).sum()), int(targets.changed.sum())
    of_all, keep = f"of {len(dataset):,} samples", "--set distrust=false keeps their labels."
    notes = []
    if relabelled:
        notes.append(
            f"{relabelled:,} {of_all} learn their likely label, as the given one is probably wrong. "
            f"--set relabel=false leaves these samples out, {keep}"
        )
    if left_out:
        notes.append(f"{left_out:,} {of_all} are left out of training: their labels are probably wrong. {keep}")
    return notes


def _is_of_others(key: str, loss: str) -> bool:
    from diffident.losses import LOSSES

    if key == "temperature" and LOSSES[loss].needs_weights:  # of the weights, and not `logit-norm`'s
        return False
    return key not in LOSSES[loss].options and any(key in other.options for other in LOSSES.values())


def _open_held_out(spec: str, options: dict[str, Any], notes: list[str]):
    """Validation or test data, with the labels in the training data's column, else where labels usually are.

    Training labels that are noisy on purpose are often a column that clean test data lack; then a note is added.
    """
    from diffident.data import open_dataset

    try:
        return open_dataset(spec, **options)
    except MissingColumnError:
        column = options["label_column"]
        if column is None:
            raise
    dataset = open_dataset(spec, **options | {"label_column": None})
    found = "no" if dataset.labels is None else "its usual"
    notes.append(f"{spec} has no column `{column}`: {found} labels are used.")
    return dataset


def _log_trial(trial) -> None:
    at = f"alpha {trial.alpha:g}, temperature {trial.temperature:g}"
    log(f"Tried {at}: held-out NLL {trial.nll:.4f} (standard error {trial.standard_error:.4f}).")


def evaluate_run(run: Path, *, difficulty: "np.ndarray | None" = None, num_resamples: int | None = None):
    """Evaluate a run's test predictions and write its `evaluation.json`.

    Args:
        run: The folder.
        difficulty: Difficulty of every test sample, in order: metrics by tenths of difficulty too.
        num_resamples: Bootstrap resamples (default: those of `diffident.evaluate`).
    """
    from diffident.evaluation import NUM_RESAMPLES, evaluate
    from diffident.storage.evaluation_file import write_evaluation
    from diffident.storage.predictions import read_predictions
    from diffident.storage.runs import predictions_file

    predictions = read_predictions(predictions_file(run, "test"))
    if predictions.labels is None:
        raise InputError(f"`--test` must have labels to be evaluated; {run} has none. Leave --test out.")
    resamples = NUM_RESAMPLES if num_resamples is None else num_resamples
    evaluation = evaluate(predictions.logits, predictions.labels, difficulty=difficulty, num_resamples=resamples)
    write_evaluation(evaluation, run / "evaluation.json")
    return evaluation


def _report(arguments: argparse.Namespace, learnt: dict[str, float], evaluation) -> None:
    if arguments.json:
        from diffident.storage.evaluation_file import evaluation_to_dict

        found = None if evaluation is None else evaluation_to_dict(evaluation)
        print_json({"run": arguments.out, "learnt": learnt, "evaluation": found})
        return
    if evaluation is not None:
        print_evaluation(evaluation)
    log(f"The run is in {arguments.out}.")
