"""`train` and `predict`: the stages around the loop."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diffident.data.classes import in_classes_of
from diffident.data.dataset import Dataset
from diffident.difficulties.targets import Targets
from diffident.errors import InputError
from diffident.files import first_line
from diffident.models import Preprocessor, build_model, fit_preprocessor, load_preprocessor
from diffident.records import DifficultyTable, Predictions
from diffident.settings import TrainingSettings, load_settings, settings_toml
from diffident.storage.atomic import atomic_path
from diffident.storage.predictions import read_predictions, write_predictions
from diffident.storage.runs import RunFolder, open_run
from diffident.training.augmentation import augments
from diffident.training.checkpoints import Checkpoints
from diffident.training.checks import check_apart, check_same, check_settings, checked_parts, targets_for
from diffident.training.dynamics import DynamicsRecorder
from diffident.training.inference import make_fabric, predictions_of, source_of
from diffident.training.loop import fit, set_up
from diffident.training.processes import launch
from diffident.training.progress import NonFiniteLossError, Report
from diffident.training.run_state import claim, describe, save_transformers_config, write_environment
from diffident.training.sources import InMemory


@dataclass(frozen=True)
class _Job:
    """All that a process needs to train; it can be sent to another one.

    Attributes:
        dataset: The training data.
        targets: Weights and labels to learn, or None where the loss takes no weights.
        settings: Of the run.
        run: Its folder.
        checkpoint_seconds: Least time between two checkpoints.
        validation: Measured after each epoch, or None.
        test: Predicted at the end, or None.
        progress: Called with the progress by the first process, or None.
    """

    dataset: Dataset
    targets: Targets | None
    settings: TrainingSettings
    run: RunFolder
    checkpoint_seconds: float
    validation: Dataset | None
    test: Dataset | None
    progress: Report | None


def train(
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    out: str | Path,
    difficulty: DifficultyTable | str | Path | None = None,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    resume: bool = False,
    progress: Report | None = None,
    begun: Callable[[], None] | None = None,
    checkpoint_seconds: float = 5.0,
) -> RunFolder:
    """Train a classifier; equal settings, data and thread count give equal bytes on the CPU.

    On the CPU the process keeps freed memory from then on (`diffident.devices.keep_freed_memory`).

    Args:
        dataset: Labelled training data.
        settings: From `load_settings`.
        out: Folder of the run; new, unless `resume`. A run that fails before its first checkpoint, or whose loss is
            not finite, leaves nothing there.
        difficulty: Table or its file, for losses with difficulty; joined by id, may hold more ids.
        validation: Measured after each epoch, predicted at the end; decides when training ends if `patience` is set,
            how unsure `difficulty-aware` lets hard samples be if neither `doubt` nor `alpha` is, whether there is a
            curriculum where that is left open, when it must end, and whether training begins anew (`restart`).
        test: Predicted at the end.
        resume: Go on after the last checkpoint; a finished run only gets the predictions that it lacks.
        progress: Called with a `Progress` now and then during an epoch, and after each.
        begun: Called when data, settings and folder have been found to be right, before anything is trained.
        checkpoint_seconds: Least time between two checkpoints; a crash costs so much, and the epoch it falls into.

    Raises:
        InputError: data, settings and difficulty do not fit each other, or a finished run has predicted other data.
        IdMismatchError: training ids are not in the difficulty table.
        MissingDependencyError: a library that the model or a log needs is not installed.
        ResumeError: the folder holds a run with other settings or data.
        NonFiniteLossError: the loss is NaN or infinite.
    """
    out = Path(out)
    validation, test = checked_parts(dataset, validation, test)
    check_apart(dataset, validation, settings.heeds_validation)
    check_settings(settings, dataset, validation)
    targets, digest = targets_for(dataset, settings, difficulty, validation)
    fabric = make_fabric(settings)
    heeded = settings.patience or settings.heeds_validation
    described = describe(dataset, digest, validation if heeded else None)
    run, is_new = claim(out, settings, settings_toml(settings, data=described), resume)
    if begun is not None:
        begun()
    if run.finished:
        _predict_missing(run, {"validation": validation, "test": test}, settings.device)
        return run
    job = _Job(dataset, targets, settings, run, checkpoint_seconds, validation, test, progress)
    try:
        launch(fabric, _fit_and_predict, job, settings.devices)
    except Exception as error:
        if is_new and (isinstance(error, NonFiniteLossError) or not Checkpoints(out, 0.0).exist):
            shutil.rmtree(out)
        raise
    return open_run(out)


def _fit_and_predict(fabric: Fabric, job: _Job) -> None:
    """Prepare data and model, train, and write the predictions of the held-out splits and the weights."""
    settings, run, started = job.settings, job.run, time.perf_counter()
    preprocessor, inputs = fit_preprocessor(job.dataset, settings)
    if fabric.is_global_zero:
        preprocessor.save(run.path)
    source = source_of(job.dataset, preprocessor, settings, fabric.device, inputs=inputs, targets=job.targets)
    parts = {"validation": job.validation, "test": job.test}
    held_out = {
        split: source_of(part, preprocessor, settings, fabric.device)
        for split, part in parts.items()
        if part is not None
    }
    with torch.random.fork_rng(devices=[fabric.device.index or 0] if fabric.device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        model = build_model(settings, preprocessor, job.dataset.num_classes)
        if fabric.is_global_zero:
            save_transformers_config(model, run.path)
        recorder = _recorder(fabric, job) if settings.dynamics else None
        report = job.progress if fabric.is_global_zero else None
        training = set_up(
            fabric,
            model,
            source,
            settings,
            held_out=held_out.get("validation"),
            recorder=recorder,
            report=report,
            num_classes=job.dataset.num_classes,
            believed=1.0 if job.targets is None else job.targets.believed,
            augmented=augments(settings, preprocessor),
            restarts=_restarts(job),
        )
        checkpoints = Checkpoints(run.path, job.checkpoint_seconds, writes=fabric.is_global_zero)
        module, earlier = fit(training, checkpoints, run.path)
    if fabric.is_global_zero:
        write_environment(run.path, fabric.device, earlier + time.perf_counter() - started)
        for split, part in parts.items():
            if part is not None:
                predictions = predictions_of(module, held_out[split], part, job.dataset.label_names)
                write_predictions(predictions, run.predictions(split))
        _save_weights(model, run.weights)


def _restarts(job: _Job) -> bool:
    """Whether training begins anew if the model learns its labels by heart: with soft targets, if there are some."""
    return job.settings.may_restart and job.targets is not None and job.targets.soft is not None


def _predict_missing(run: RunFolder, parts: dict[str, Dataset | None], device: str) -> None:
    """Write the predictions that a finished run lacks of the held-out splits; those it has must be of the same data."""
    given = {split: part for split, part in parts.items() if part is not None}
    there = [split for split in given if run.predictions(split).exists()]
    for split in there:
        check_same(read_predictions(run.predictions(split)), given[split], split, run.path)
    for split, part in given.items():
        if split not in there:
            write_predictions(predict(run.path, part, device=device), run.predictions(split))


def _recorder(fabric: Fabric, job: _Job) -> DynamicsRecorder:
    labels = np.asarray(job.dataset.labels, dtype=np.int64)
    return DynamicsRecorder(job.run.path, job.dataset.ids, labels, fabric.device)


def _save_weights(model: nn.Module, file: Path) -> None:
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic_path(file) as temporary:
        save_file(state, temporary)


def predict(
    run_dir: str | Path,
    dataset: Dataset,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """A trained model's logits, in the data's order, from nothing but the run folder.

    Args:
        run_dir: Folder of a finished run.
        dataset: What to predict; labels are optional.
        device: Instead of the run's: auto, cpu, cuda or mps.
        progress: Called with (done, total); samples that are all prepared before the first is predicted count twice.

    Raises:
        InputError: not a finished run, no such device, or data with other classes, modality or shape.
    """
    run = open_run(run_dir)
    settings = run.settings if device is None else load_settings(**{**asdict(run.settings), "device": device})
    settings = replace(settings, devices=1)
    fabric = make_fabric(settings)
    model, preprocessor = load_model(run)
    preprocessor.check(dataset)  # of the wrong data this says more than their labels do
    dataset = in_classes_of(dataset, run.data["num_classes"], run.label_names, "the run")
    report, count = progress or (lambda done, total: None), len(dataset)
    source = source_of(
        dataset, preprocessor, settings, fabric.device, progress=lambda done, total: report(done, 2 * count)
    )
    before = count if isinstance(source, InMemory) else 0
    module = fabric.setup_module(model)
    return predictions_of(
        module, source, dataset, run.label_names, lambda done, total: report(before + done, before + count)
    )


def load_model(run: RunFolder) -> tuple[nn.Module, Preprocessor]:
    """The trained model of a finished run, on the CPU, and what prepares its inputs.

    Raises:
        InputError: a file of the run is missing or damaged.
    """
    preprocessor = load_preprocessor(run.path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(run.settings, preprocessor, run.data["num_classes"], run=run.path)
    if run.settings.precision == "64-true":
        model.double()
    try:
        model.load_state_dict(load_file(run.weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"`run` must have whole weights; {run.weights}: {first_line(error)}. Train it again."
        ) from None
    return model, preprocessor
