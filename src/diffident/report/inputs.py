"""What a report is made from, read from paths: runs, evaluations, predictions and audits."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffident.auditing import DIFFICULTY, AuditSource, open_audit
from diffident.corruptions import SEVERITIES
from diffident.data import open_dataset
from diffident.data.dataset import Dataset
from diffident.errors import DiffidentError, InputError
from diffident.evaluation import evaluate
from diffident.records import Evaluation, Predictions
from diffident.report.building import AuditInput
from diffident.report.prediction_charts import Method, stack_predictions
from diffident.storage.evaluation_file import read_evaluation
from diffident.storage.features import FeatureSource, open_features
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import RunFolder, open_run

_TEST = "test"


@dataclass(frozen=True)
class Inputs:
    """The paths, sorted by what they are; each in the order in which they were given.

    Attributes:
        runs: Folders of `diffident train`.
        evaluations: Name and `evaluation.json`.
        predictions: Name and file of labelled predictions.
        audit: Folder of `diffident audit`, or None.
    """

    runs: tuple[RunFolder, ...] = ()
    evaluations: tuple[tuple[str, Path], ...] = ()
    predictions: tuple[tuple[str, Path], ...] = ()
    audit: Path | None = None


def sort_inputs(paths: list[str]) -> Inputs:
    """What each RUN|EVALUATION|AUDIT is; a file may be given as NAME=FILE.

    Raises:
        InputError: nothing, something that is none of them, two audits, or two of one name.
    """
    if not paths:
        raise InputError("`INPUT` must be at least one run, evaluation or audit; got none. Name what to report on.")
    runs: list[RunFolder] = []
    evaluations: list[tuple[str, Path]] = []
    predictions: list[tuple[str, Path]] = []
    audits: list[Path] = []
    for text in paths:
        name, path = _named(text)
        if (path / "config.toml").is_file():
            if any(run.path.resolve() == path.resolve() for run in runs):
                raise InputError(f"`INPUT` must name every run once; got {path} twice. Leave one out.")
            runs.append(open_run(path, unfinished=True))
        elif path.is_dir() and (path / DIFFICULTY).is_file():
            audits.append(path)
        elif path.suffix == ".json" and path.is_file():
            evaluations.append((name, path))
        elif path.suffix in (".parquet", ".npz") and path.is_file():
            predictions.append((name, path))
        else:
            raise _unknown(text, path)
    if len(audits) > 1:
        raise InputError(f"`AUDIT` must be one; got {audits[0]} and {audits[1]}. Make a page for each.")
    names = [name for name, _ in (*evaluations, *predictions)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"`INPUT` must have a name of its own; got {twice!r} twice. Give one as NAME=FILE.")
    return Inputs(tuple(runs), tuple(evaluations), tuple(predictions), audits[0] if audits else None)


def _named(text: str) -> tuple[str, Path]:
    """NAME=FILE, or a path, whose name is the file's, or the folder's for an `evaluation.json`."""
    head, separator, tail = text.partition("=")
    if separator and head and tail and not Path(text).exists():
        return head, Path(tail)
    path = Path(text)
    return (path.resolve().parent.name if path.name == "evaluation.json" else path.stem), path


def _unknown(text: str, path: Path) -> InputError:
    if not path.exists():
        return InputError(f"`INPUT` must be there; got {text}, which is not. Check the path.")
    if path.is_dir() and (path / "runs").is_dir():
        hint = f"For all its runs: {path / 'runs'}/*."
    else:
        hint = "Make one with diffident train, evaluate or audit."
    what = f"a run, an evaluation.json, predictions (.parquet, .npz) or an audit ({DIFFICULTY} in a folder)"
    return InputError(f"`INPUT` must be {what}; got {text}. {hint}")


def read_evaluations(
    inputs: Inputs,
    names: list[str],
    outside: dict[str, Predictions],
    num_resamples: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[str, int, Evaluation]]:
    """Name, seed and evaluation of every input; those of predictions are computed here.

    Args:
        inputs: From `sort_inputs`.
        names: Of the runs, in their order.
        outside: Out-of-distribution predictions by name, for inputs that are predictions.
        num_resamples: Of the bootstrap.
        progress: Called with (done, total) for one file of predictions after the other.
    """
    found = []
    for run, name in zip(inputs.runs, names, strict=True):
        if run.evaluation is not None:
            found.append((name, run.settings.seed, read_evaluation(run.evaluation)))
    found += [(name, 0, read_evaluation(path)) for name, path in inputs.evaluations]
    ood = {name: predictions.logits for name, predictions in outside.items()}
    for name, path in inputs.predictions:
        predictions = _labelled(path)
        assert predictions.labels is not None
        evaluation = evaluate(
            predictions.logits, predictions.labels, ood=ood, num_resamples=num_resamples, progress=progress
        )
        found.append((name, 0, evaluation))
    return found


def read_methods(inputs: Inputs, names: list[str], outside: dict[str, Predictions]) -> list[Method]:
    """The predictions of every method; those of the runs of one name are put together.

    In a run, predictions without labels beside `predictions/test.parquet` are out-of-distribution sets.
    """
    seeds: dict[str, list[tuple[Predictions, dict[str, Predictions]]]] = {}
    for run, name in zip(inputs.runs, names, strict=True):
        file = run.predictions(_TEST)
        if file.is_file():
            predictions = read_predictions(file)
            if predictions.labels is not None:
                seeds.setdefault(name, []).append((predictions, _outside_of(run)))
    for name, path in inputs.predictions:
        seeds.setdefault(name, []).append((_labelled(path), outside))
    return [stack_predictions(name, *map(list, zip(*parts, strict=True))) for name, parts in seeds.items()]


def read_predicted(inputs: Inputs, names: list[str]) -> list[tuple[str, int, Predictions]]:
    """Name, seed and labelled predictions of every input that has some."""
    found = []
    for run, name in zip(inputs.runs, names, strict=True):
        file = run.predictions(_TEST)
        if file.is_file() and (predictions := read_predictions(file)).labels is not None:
            found.append((name, run.settings.seed, predictions))
    return found + [(name, 0, _labelled(path)) for name, path in inputs.predictions]


def _outside_of(run: RunFolder) -> dict[str, Predictions]:
    found = {}
    for file in sorted((run.path / "predictions").glob("*.parquet")):
        if file.stem not in (_TEST, "train", "validation", "calibration"):
            predictions = read_predictions(file)
            if predictions.labels is None:
                found[file.stem] = predictions
    return found


def _labelled(path: Path) -> Predictions:
    predictions = read_predictions(path)
    if predictions.labels is None:
        raise InputError(
            f"`INPUT` must have labels; got none at {path}. Give out-of-distribution predictions as --ood NAME=FILE."
        )
    return predictions


def read_corrupted(named: dict[str, str]) -> dict[str, dict[tuple[str, int], dict[str, float]]]:
    """Accuracy and ECE by kind and severity, for every method.

    Args:
        named: `KIND-SEVERITY` to predictions or an evaluation of data corrupted so, or a method's name to the JSON of
            `robustness_to_dict`, which holds all kinds and severities.
    """
    found: dict[str, dict[tuple[str, int], dict[str, float]]] = {}
    for name, file in named.items():
        grid = _read_grid(Path(file)) if file.endswith(".json") else None
        if grid is not None:
            found[name] = grid
            continue
        kind, _, severity = name.rpartition("-")
        if not (kind and severity in map(str, SEVERITIES)):
            raise InputError(
                f"`--corrupted` must be KIND-SEVERITY=FILE with a severity from 1 to 5; got `{name}={file}`. "
                f"For example: fog-3={file}."
            )
        metrics = _evaluation_of(Path(file)).metrics
        values = {key: metrics[key].value for key in ("accuracy", "ece") if key in metrics}
        found.setdefault("corrupted", {})[kind, int(severity)] = values
    return found


def _read_grid(path: Path) -> dict[tuple[str, int], dict[str, float]] | None:
    """The metrics of a robustness file; None where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            (str(kind), int(severity)): {key: float(value) for key, value in metrics.items()}
            for kind, severities in content["corrupted"].items()
            for severity, metrics in severities.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _evaluation_of(path: Path) -> Evaluation:
    if path.suffix == ".json":
        return read_evaluation(path)
    predictions = _labelled(path)
    assert predictions.labels is not None
    return evaluate(predictions.logits, predictions.labels, num_resamples=0)


def read_logs(runs: tuple[RunFolder, ...], names: list[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """The lines of every run's `metrics.jsonl`, by method and seed."""
    logs: dict[str, list[list[dict[str, Any]]]] = {}
    for run, name in zip(runs, names, strict=True):
        if run.metrics.is_file():
            numbers = [{key: v for key, v in line.items() if isinstance(v, int | float)} for line in run.read_metrics()]
            logs.setdefault(name, []).append(numbers)
    return logs


def unfinished_notes(runs: tuple[RunFolder, ...]) -> list[str]:
    """One sentence for each run whose training has not ended."""
    notes = []
    for run in runs:
        if not run.finished:
            epochs = f"{len(run.read_metrics())} of {run.settings.epochs} epochs"
            notes.append(f"{run.path} is not finished: {epochs} are done. Go on with `diffident train --resume`.")
    return notes


def learnt_facts(runs: tuple[RunFolder, ...], names: list[str]) -> list[tuple[str, str]]:
    """What every method's runs learnt from validation data: options of its loss, and to begin anew."""
    found: dict[str, list[str]] = {}
    anew: dict[str, list[str]] = {}
    for run, name in zip(runs, names, strict=True):
        if not run.finished:
            continue
        for option, value in run.learnt.items():
            found.setdefault(f"{option} learnt by {name}", []).append(f"{value:.2f}")
        anew.setdefault(name, []).append("none" if run.restarted_after is None else str(run.restarted_after))
    found |= {
        f"epoch after which {name} began anew": epochs for name, epochs in anew.items() if set(epochs) != {"none"}
    }
    return [(name, ", ".join(values)) for name, values in found.items()]


def read_audit(
    path: Path, *, data: str | None, features: str | None, options: dict[str, Any]
) -> tuple[AuditInput, list[str]]:
    """An audit with its features and samples, where they are to be found.

    Args:
        path: The audit's folder.
        data: DATA to show samples from; None for what the audit was made from.
        features: Features to find neighbours by; None for what the audit was made from.
        options: Columns, as `open_dataset` takes them; those not None win over the audit's.

    Returns:
        The audit, and what could not be found and why.
    """
    suspects, source = open_audit(path)
    notes: list[str] = []
    given = {key: value for key, value in options.items() if value is not None}
    dataset = open_dataset(data, **given) if data is not None else _recorded_data(source, given, notes)
    found = open_features(features) if features is not None else _recorded_features(source, notes)
    if found is not None and list(found.ids) != list(suspects.table.ids):
        message = f"{found.path} holds other samples than {path}"
        if features is not None:
            raise InputError(f"`--features` must be those of the audit; {message}. Leave it out.")
        notes.append(f"Without neighbours and class map: {message}.")
        found = None
    return AuditInput(suspects, found, dataset), notes


def _recorded_data(source: AuditSource, options: dict[str, Any], notes: list[str]) -> Dataset | None:
    """The data set that the audit names; it may have moved since."""
    if source.data is None:
        return None
    try:
        return open_dataset(source.data, **{**source.columns, **options})
    except DiffidentError as error:
        notes.append(f"The data of the audit could not be opened: {' '.join(str(error).split())}")
        return None


def _recorded_features(source: AuditSource, notes: list[str]) -> FeatureSource | None:
    if source.features is None:
        return None
    try:
        return open_features(source.features)
    except DiffidentError as error:
        notes.append(f"The features of the audit could not be opened: {' '.join(str(error).split())}")
        return None
