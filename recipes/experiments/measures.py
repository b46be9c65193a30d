"""What a run is worth: metrics before and after temperature scaling, and on further sets."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from diffident import evaluate
from diffident.calibrators import Calibrator, calibrate, fit_calibrator
from diffident.confidence import max_softmax
from diffident.metrics import ece_of_chance
from diffident.posthoc import check_apart
from diffident.records import Predictions
from diffident.storage.predictions import read_predictions
from diffident.storage.runs import open_run, predictions_file
from experiments.recipe import Recipe
from experiments.runs import run_folder

METRICS = ("accuracy", "ece", "classwise_ece", "nll", "brier", "aurc", "auroc_errors", "fpr95_errors")
SCALED = "after"
"""Key of what was measured after temperature scaling; before it the key is `before`."""
_DIGITS = 6


def rounded(value: float) -> float | None:
    """Six decimals, as results are kept; None where undefined."""
    return None if math.isnan(value) else round(float(value), _DIGITS)


def members_of(recipe: Recipe, name: str, seed: int) -> list[tuple[str, int]]:
    """The runs whose predictions a method's are, for a seed: its own, or those of the ensemble's members."""
    ensemble = recipe.methods[name].ensemble
    if ensemble is None:
        return [(name, seed)]
    return [(ensemble.of, (seed + step) % recipe.seeds) for step in range(ensemble.members)]


def seeds_of(recipe: Recipe, name: str) -> list[int]:
    """The seeds that a method is measured at; of an ensemble those whose members are no earlier seed's."""
    found: dict[frozenset, int] = {}
    for seed in range(recipe.seeds):
        members = members_of(recipe, name, seed)
        if len(set(members)) == len(members):
            found.setdefault(frozenset(members), seed)
    return list(found.values())


def is_there(recipe: Recipe, out: Path, name: str, seed: int, splits: list[str]) -> bool:
    """Whether everything that a method and seed is measured by has been predicted, of corrupted samples too."""
    members = members_of(recipe, name, seed)
    files = [predictions_file(run_folder(out, *member), split) for member in members for split in splits]
    if recipe.corruptions.kinds and recipe.methods[name].ensemble is None:
        files += [run_folder(out, *member) / "robustness.json" for member in members]
    return all(file.exists() for file in files)


def predictions_of(recipe: Recipe, out: Path, name: str, seed: int, split: str) -> Predictions:
    """The predictions of a method and seed; of an ensemble the logarithm of its members' mean probabilities."""
    files = [predictions_file(run_folder(out, *member), split) for member in members_of(recipe, name, seed)]
    found = [read_predictions(file) for file in files]
    if len(found) == 1:
        return found[0]
    log_probs = torch.stack([torch.log_softmax(one.logits.double(), dim=1) for one in found])
    mean = torch.logsumexp(log_probs, dim=0) - math.log(len(found))
    return Predictions(found[0].ids, mean, found[0].labels, found[0].label_names)


def fit_temperature(validation: Predictions) -> Calibrator:
    """The temperature that makes the validation labels most likely."""
    assert validation.labels is not None  # validation data have labels
    return fit_calibrator("temperature", validation.logits, validation.labels)


def measure(recipe: Recipe, out: Path, name: str, seed: int) -> dict[str, Any]:
    """Everything that the results say of a method and seed."""
    sets = {split: predictions_of(recipe, out, name, seed, split) for split in ("validation", "test")}
    outside = {key: predictions_of(recipe, out, name, seed, f"ood-{key}") for key in recipe.data.ood}
    further = {key: predictions_of(recipe, out, name, seed, f"extra-{key}") for key in recipe.data.extra}
    validation, test = sets["validation"], sets["test"]
    check_apart(validation, test)
    state = fit_temperature(validation)

    def scaled(logits: torch.Tensor) -> torch.Tensor:
        return calibrate(state, logits)

    found: dict[str, Any] = {"seed": seed, **_of_runs(recipe, out, name, seed)}
    found["temperature"] = rounded(state.state.temperature)
    for key, change in (("before", lambda logits: logits), (SCALED, scaled)):
        evaluation = evaluate(
            change(test.logits),
            test.labels,
            ood={one: change(predictions.logits) for one, predictions in outside.items()},
            num_resamples=0,
        )
        values = {metric: rounded(evaluation.metrics[metric].value) for metric in METRICS}
        values["ece_of_chance"] = rounded(float(ece_of_chance(max_softmax(change(test.logits)))))
        values |= {f"ood/{one}": rounded(metrics["auroc"].value) for one, metrics in evaluation.ood.items()}
        for one, predictions in further.items():
            values |= _of_further(one, change(predictions.logits), predictions)
        found[key] = values
    return found


def _of_further(name: str, logits: torch.Tensor, predictions: Predictions) -> dict[str, float | None]:
    """Metrics of a further labelled set, among the classes that it has."""
    assert predictions.labels is not None  # `joined_by_name` has refused sets without
    classes, labels = predictions.labels.unique(return_inverse=True)
    evaluation = evaluate(logits[:, classes], labels, num_resamples=0)
    return {f"{name}/{metric}": rounded(evaluation.metrics[metric].value) for metric in ("accuracy", "ece", "nll")}


def _of_runs(recipe: Recipe, out: Path, name: str, seed: int) -> dict[str, Any]:
    """The settings of the loss, the seconds of training, and what corrupted data showed; of ensembles the seconds."""
    folders = [run_folder(out, *member) for member in members_of(recipe, name, seed)]
    seconds = [json.loads((folder / "environment.json").read_text(encoding="utf-8"))["seconds"] for folder in folders]
    if len(folders) > 1:
        return {"seconds": round(sum(seconds), 3)}
    run = open_run(folders[0])
    options: dict[str, Any] = run.settings.loss_options | {name: rounded(value) for name, value in run.learnt.items()}
    if run.data.get("weights") is not None:
        options |= {"temperature": run.settings.temperature, "normalizer": run.settings.normalizer}
    found: dict[str, Any] = {"options": options, "seconds": seconds[0]}
    file = folders[0] / "robustness.json"
    if file.exists():
        corrupted = json.loads(file.read_text(encoding="utf-8"))
        found["corrupted"] = {key: rounded(corrupted[key]) for key in ("mean_corruption_error", "mean_ece")}
    return found
