"""`train` and `predict`: the stages around the loop."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.files import first_line
from diffident.models import build_model, fit_preprocessor, load_preprocessor
from diffident.records import DifficultyTable, Predictions
from diffident.settings import TrainingSettings, load_settings, settings_toml
from diffident.storage.atomic import atomic_path
from diffident.storage.predictions import write_predictions
from diffident.storage.runs import RunFolder, open_run
from diffident.training.checkpoints import Checkpoints
from diffident.training.checks import check_data, check_labels, weights_for
from diffident.training.dynamics import DynamicsRecorder
from diffident.training.inference import make_fabric, predictions_of
from diffident.training.loop import NonFiniteLossError, Samples, fit
from diffident.training.run_state import claim, describe, save_transformers_config, write_environment


def train(
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    out: str | Path,
    difficulty: DifficultyTable | str | Path | None = None,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    checkpoint_seconds: float = 5.0,
) -> RunFolder:
    """Train a classifier; equal settings, data and thread count give equal bytes on the CPU.

    Args:
        dataset: Labelled training data.
        settings: From `load_settings`.
        out: Folder of the run; new, unless `resume`. A run that fails before its first checkpoint, or whose loss is
            not finite, leaves nothing there.
        difficulty: Table or its file, for the loss `difficulty-aware`; joined by id, may hold more ids.
        validation: Measured after each epoch, predicted at the end.
        test: Predicted at the end.
        resume: Go on after the last checkpoint; a finished run is returned as it is.
        progress: Called with (epochs done, epochs) after each epoch.
        checkpoint_seconds: Least time between two checkpoints; a crash costs so much, and the epoch it falls into.

    Raises:
        InputError: data, settings and difficulty do not fit each other.
        IdMismatchError: training ids are not in the difficulty table.
        ResumeError: the folder holds a run with other settings or data.
        NonFiniteLossError: the loss is NaN or infinite.
    """
    out = Path(out)
    check_data(dataset, validation, test)
    weights, digest = weights_for(dataset, settings, difficulty)
    fabric = make_fabric(settings)
    run, is_new = claim(out, settings, settings_toml(settings, data=describe(dataset, digest)), resume)
    if run.finished:
        return run
    checkpoints = Checkpoints(out, checkpoint_seconds)
    try:
        model = _fit_and_predict(fabric, dataset, weights, settings, run, checkpoints, validation, test, progress)
    except Exception as error:
        if is_new and (isinstance(error, NonFiniteLossError) or not checkpoints.exist):
            shutil.rmtree(out)
        raise
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic_path(run.weights) as temporary:
        save_file(state, temporary)
    return open_run(out)


def _fit_and_predict(
    fabric: Fabric,
    dataset: Dataset,
    weights: torch.Tensor | None,
    settings: TrainingSettings,
    run: RunFolder,
    checkpoints: Checkpoints,
    validation: Dataset | None,
    test: Dataset | None,
    progress: Callable[[int, int], None] | None,
) -> nn.Module:
    """Prepare data and model, train, and write the predictions of the held-out splits; the trained model."""
    preprocessor, inputs = fit_preprocessor(dataset, settings)
    preprocessor.save(run.path)
    samples = Samples(inputs, _labels_of(dataset), weights)
    held_out = None if validation is None else Samples(preprocessor.transform(validation), _labels_of(validation))
    recorder = (
        DynamicsRecorder(run.path, dataset.ids, np.asarray(dataset.labels, dtype=np.int64), fabric.device)
        if settings.dynamics
        else None
    )
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[fabric.device.index or 0] if fabric.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = build_model(settings, preprocessor, dataset.num_classes)
        save_transformers_config(model, run.path)
        module = fit(
            fabric, model, samples, settings, checkpoints, held_out=held_out, recorder=recorder, progress=progress
        )
    write_environment(run.path, fabric.device, time.perf_counter() - started)
    for split, part in (("validation", validation), ("test", test)):
        if part is not None:
            predictions = predictions_of(module, preprocessor, part, dataset.label_names, fabric.device)
            write_predictions(predictions, run.predictions(split))
    return model


def _labels_of(dataset: Dataset) -> torch.Tensor:
    return torch.from_numpy(np.array(dataset.labels, dtype=np.int64))


def predict(run_dir: str | Path, dataset: Dataset, *, device: str | None = None) -> Predictions:
    """A trained model's logits, in the data's order, from nothing but the run folder.

    Args:
        run_dir: Folder of a finished run.
        dataset: What to predict; labels are optional.
        device: Instead of the run's: auto, cpu, cuda or mps.

    Raises:
        InputError: not a finished run, no such device, or data with other classes, modality or shape.
    """
    run = open_run(run_dir)
    num_classes = run.data["num_classes"]
    check_labels(dataset, num_classes, run.label_names, "the run")
    settings = run.settings if device is None else load_settings(**{**asdict(run.settings), "device": device})
    fabric = make_fabric(settings)
    preprocessor = load_preprocessor(run.path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(settings, preprocessor, num_classes, run=run.path)
    module = fabric.setup_module(model)
    _load_weights(model, run.weights)
    return predictions_of(module, preprocessor, dataset, run.label_names, fabric.device)


def _load_weights(model: nn.Module, file: Path) -> None:
    try:
        model.load_state_dict(load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"`run` must have whole weights; {file}: {first_line(error)}. Train it again.") from None
