"""Trainings of a recipe: one at a time, each in a folder of its own, resumed where it was left."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from diffident import predict, train
from diffident.corruptions import kinds_of
from diffident.data.dataset import Dataset
from diffident.losses import LOSSES
from diffident.metrics.accuracy import nll_of_logits
from diffident.records import DifficultyTable, Predictions
from diffident.robustness import robustness, write_robustness
from diffident.settings import TrainingSettings
from diffident.storage.predictions import read_predictions, write_predictions
from diffident.storage.runs import RunFolder, predictions_file
from experiments.linking import dynamics_settings, needs_dynamics, settings_of
from experiments.materials import Materials, evenly, table_of_run
from experiments.recipe import Method, Recipe

Chosen = dict[str, Any]
"""Option to value, as validation data chose it."""


def run_folder(out: Path, method: str, seed: int) -> Path:
    """The folder of a run."""
    return out / "runs" / method / f"seed-{seed}"


def trial_folder(out: Path, method: str, option: str, value: Any) -> Path:
    """The folder of a run that helps to choose a strength."""
    return out / "tuning" / method / f"{option}-{value}"


def dynamics_folder(folder: Path) -> Path:
    """The folder of the run that comes before the one in a folder, and shows what is hard there."""
    return folder.with_name(f"{folder.name}-dynamics")


def train_run(materials: Materials, name: str, seed: int, chosen: Chosen) -> None:
    """Train a method with a seed, and predict everything that the recipe evaluates."""
    method = materials.recipe.methods[name]
    folder = run_folder(materials.place.out, name, seed)
    _fit(materials, method, seed, chosen, folder)
    for split, dataset in materials.evaluated.items():
        _predict(folder, split, dataset)
    corruptions = materials.recipe.corruptions
    file = folder / "robustness.json"
    if corruptions.kinds and not file.exists():
        dataset = evenly(materials.evaluated["test"], corruptions.limit)
        kinds = kinds_of(dataset.modality) if "all" in corruptions.kinds else corruptions.kinds
        found = robustness(partial(predict, folder), dataset, kinds=kinds, severities=corruptions.severities)
        write_robustness(found, file)


def train_trial(materials: Materials, name: str, option: str, value: Any) -> None:
    """Train a method with one of the values of its strength; only validation data are predicted."""
    method, seed = materials.recipe.methods[name], materials.recipe.tuning_seed
    folder = trial_folder(materials.place.out, name, option, value)
    _fit(materials, method, seed, {option: value}, folder)
    _predict(folder, "validation", materials.validation)


def trials_of(recipe: Recipe, out: Path, method: Method) -> list[dict[str, Any]]:
    """Every value that has been tried, with the mean negative log-likelihood of the validation labels."""
    found = []
    for option, values in method.tune.items():
        for value in values:
            file = predictions_file(trial_folder(out, method.name, option, value), "validation")
            if file.exists():
                found.append({option: value, "nll": validation_nll(read_predictions(file))})
    return found


def choose(recipe: Recipe, out: Path, method: Method) -> Chosen | None:
    """The value of least validation NLL, the earlier among equals; None while not all were tried."""
    source = recipe.source_of(method)
    trials = trials_of(recipe, out, source)
    if len(trials) < sum(map(len, source.tune.values())):
        return None
    best = min(trials, key=lambda trial: trial["nll"], default={})
    return {option: best[option] for option in source.tune}


def validation_nll(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    assert predictions.labels is not None  # validation data have labels
    return float(nll_of_logits(predictions.logits, predictions.labels).mean())


def _fit(materials: Materials, method: Method, seed: int, chosen: Chosen, folder: Path) -> RunFolder:
    dataset = materials.training_data(method.data, seed)
    settings = settings_of(materials.recipe, method, seed, chosen)
    table = None
    if needs_dynamics(materials.recipe, method):
        before = dynamics_settings(materials.recipe, method, seed, chosen)
        run = _train(materials, dataset, before, dynamics_folder(folder))
        table = table_of_run(run, method.difficulty, dataset, seed)
    elif LOSSES[settings.loss].needs_weights:
        table = materials.table(method.difficulty, dataset, seed)
    return _train(materials, dataset, settings, folder, table)


def _train(
    materials: Materials,
    dataset: Dataset,
    settings: TrainingSettings,
    folder: Path,
    table: DifficultyTable | None = None,
) -> RunFolder:
    validation = materials.validation if settings.patience or settings.heeds_validation else None
    return train(dataset, settings, out=folder, difficulty=table, validation=validation, resume=folder.exists())


def _predict(folder: Path, split: str, dataset: Dataset) -> None:
    file = predictions_file(folder, split)
    if not file.exists():
        write_predictions(predict(folder, dataset), file)


def spec_of(recipe: Recipe, method: Method) -> dict[str, Any]:
    """What a method's runs depend on, as JSON values; of a tuned one the choice comes out of it."""
    source, data = recipe.source_of(method), recipe.data
    spec = {
        "settings": asdict(settings_of(recipe, method, 0)),
        "difficulty": asdict(method.difficulty) if LOSSES[source.loss].needs_weights else None,
        "change": asdict(method.data),
        "tune": source.tune,
        "tuning_seed": recipe.tuning_seed if source.tune else None,
        "data": {key: getattr(data, key) for key in ("train", "validation", "label_column", "limit", "inputs")},
    }
    if needs_dynamics(recipe, method):  # no key elsewhere, so that runs from before there was one are kept
        spec["dynamics"] = asdict(dynamics_settings(recipe, method, 0))
    return json.loads(json.dumps(spec))
