"""The training loop on Lightning Fabric."""

import copy
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from diffident.devices import keep_freed_memory
from diffident.difficulties.weights import LEFT_OUT
from diffident.errors import InputError
from diffident.losses import LOSSES, CorrectnessHistory, Mixing, draw_mixing, make_loss, mixed_loss
from diffident.settings import TrainingSettings
from diffident.training.augmentation import CropAndFlip
from diffident.training.averaging import BestWeights, WeightAverage
from diffident.training.checkpoints import Checkpoints, Stateful
from diffident.training.curriculum import Curriculum, length_of, share_shown
from diffident.training.doubt import Bonus, bonus_of_epoch, next_doubt, temperature_of
from diffident.training.dynamics import DynamicsRecorder
from diffident.training.inference import logits_of
from diffident.training.logs import Log, open_logs
from diffident.training.optimization import (
    batches,
    epoch_seed,
    learning_rate,
    make_optimizer,
    parts_of,
    steps_per_epoch,
)
from diffident.training.processes import synced_batch_norm
from diffident.training.progress import EpochMeter, Report
from diffident.training.restart import Stage, must_restart, stage_of
from diffident.training.sources import Samples, Source


@dataclass(frozen=True)
class Training:
    """All that the loop works with.

    Attributes:
        fabric: Devices, precision and processes.
        model: As it is saved.
        module: The model set up by Fabric: called, it computes in the run's precision.
        optimizer: Set up by Fabric.
        source: The training samples.
        settings: Of the run.
        held_out: Validation samples, or None.
        recorder: Keeps the training dynamics, or None.
        average: Moving average of the weights, or None.
        best: The best epoch's weights, where training may end early.
        history: How often each sample was right, for a loss that needs it, or None.
        curriculum: The samples from easy to hard, or None.
        report: Called with the progress, or None.
        num_classes: Logits that the model must give; None is not checked.
        believed: Share of the samples that learn the given label.
        augmented: Whether inputs are cropped and mirrored.
        first: State of the parts before the first epoch, where training may begin anew; else None.
    """

    fabric: Fabric
    model: nn.Module
    module: Any
    optimizer: Any
    source: Source
    settings: TrainingSettings
    held_out: Source | None = None
    recorder: DynamicsRecorder | None = None
    average: WeightAverage | None = None
    best: BestWeights | None = None
    history: CorrectnessHistory | None = None
    curriculum: Curriculum | None = None
    report: Report | None = None
    num_classes: int | None = None
    believed: float = 1.0
    augmented: bool = False
    first: dict[str, Any] | None = None

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint holds."""
        every: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "precision": self.fabric.strategy.precision,
            "average": self.average,
            "best": self.best,
            "history": self.history,
        }
        return {name: part for name, part in every.items() if part is not None}

    def averaged(self) -> AbstractContextManager[None]:
        """With the weights that count: the average where there is one."""
        return nullcontext() if self.average is None else self.average.applied(self.model)


def set_up(
    fabric: Fabric,
    model: nn.Module,
    source: Source,
    settings: TrainingSettings,
    *,
    augmented: bool,
    held_out: Source | None = None,
    recorder: DynamicsRecorder | None = None,
    report: Report | None = None,
    num_classes: int | None = None,
    believed: float = 1.0,
    restarts: bool = False,
) -> Training:
    """Model, optimizer and what the settings ask for, on the device."""
    if fabric.world_size > 1:
        synced_batch_norm(model, fabric.device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    length = length_of(settings, source.weights, ends=held_out is not None, augmented=augmented)
    settings = replace(settings, curriculum=length)
    compiled: Any = torch.compile(model) if settings.compile else model
    module, optimizer = fabric.setup(compiled, make_optimizer(model, settings))
    training = Training(
        fabric,
        model,
        module,
        optimizer,
        source,
        settings,
        held_out=held_out,
        recorder=recorder,
        average=WeightAverage(model, settings.ema) if settings.ema else None,
        best=BestWeights(settings.patience) if settings.patience else None,
        history=CorrectnessHistory(len(source), fabric.device) if LOSSES[settings.loss].needs_history else None,
        curriculum=_curriculum(source, settings),
        report=report,
        num_classes=num_classes,
        believed=believed,
        augmented=augmented,
    )
    if not restarts:
        return training
    return replace(training, first={name: copy.deepcopy(part.state_dict()) for name, part in training.parts.items()})


def _curriculum(source: Source, settings: TrainingSettings) -> Curriculum | None:
    if not settings.curriculum:
        return None
    assert source.weights is not None  # settings refuse it for losses without difficulty
    return Curriculum.of(source.weights, source.labels, settings.seed)


def fit(training: Training, checkpoints: Checkpoints, folder: Path) -> tuple[nn.Module, float]:
    """Train from the last checkpoint to the last epoch.

    Args:
        training: From `set_up`.
        checkpoints: Of the run.
        folder: Of the run; for the logs that the settings ask for.

    Returns:
        The module, with the weights that are to be kept (the last, their average, or the best epoch's); and the
        seconds that the epochs before a restart took.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite.
    """
    settings, best = training.settings, training.best
    if training.fabric.device.type == "cpu":
        keep_freed_memory()
    lines = checkpoints.restore(training.parts)
    earlier = math.fsum(line["seconds"] for line in lines)
    if training.recorder is not None:
        training.recorder.begin(len(lines), training.fabric)
    logs = open_logs(settings, folder, lines) if training.fabric.is_global_zero else []
    try:
        while len(lines) < settings.epochs and not (best is not None and best.exhausted):
            _one_epoch(training, checkpoints, logs, lines)
    finally:
        for log in logs:
            log.close()
    if best is not None:
        best.load_into(training.model)
    elif training.average is not None:
        training.average.load_into(training.model)
    return training.module, earlier


def _one_epoch(training: Training, checkpoints: Checkpoints, logs: list[Log], lines: list[dict[str, Any]]) -> None:
    """Train, validate and write everything down."""
    settings, epoch, started = training.settings, len(lines), time.perf_counter()
    steps = steps_per_epoch(len(training.source), settings.batch_size, 2 * settings.devices)
    meter = EpochMeter(training.fabric, settings, epoch, steps, training.report)
    stage = stage_of(settings, lines)
    learns = settings.learns and training.held_out is not None
    doubt = next_doubt(stage.settings, stage.lines, steps) if learns else None
    shown = share_shown(stage.settings.curriculum or 0.0, stage.settings.epochs, stage.lines)
    _train_epoch(training, stage, epoch, meter, bonus_of_epoch(stage.settings, doubt), shown)
    if not all(bool(one.isfinite().all()) for one in training.model.parameters()):  # by the last step's update
        meter.check(math.nan)
    line = {"epoch": epoch + 1, **meter.totals(), **({} if doubt is None else {"doubt": doubt})}
    if settings.curriculum:
        line["share_shown"] = shown
    with training.averaged():
        if training.held_out is not None:
            found = _validate(training.module, training.held_out, temperature=doubt is not None)
            meter.check(found["validation_loss"])
            line.update(training.fabric.broadcast(found))
        if training.best is not None and shown == 1 and not _will_stop_mixing(stage):  # it says little
            line["best"] = training.best.update(line["validation_loss"], training.model)
    if training.history is not None:
        training.history.epoch_done(lambda hits: cast(Tensor, training.fabric.all_reduce(hits, reduce_op="sum")))
    if training.recorder is not None:
        training.recorder.epoch_done(epoch + 1, training.fabric)  # before the checkpoint: none is ever missing
    restarts = training.first is not None and must_restart(settings, [*lines, line], training.believed)
    if restarts:
        line["restarts"] = True
        _go_back(training)
    lines.append({**line, "seconds": round(time.perf_counter() - started, 3)})
    finished = len(lines) == settings.epochs or (training.best is not None and training.best.exhausted)
    checkpoints.epoch_done(training.parts, lines, last=finished)
    for log in logs:
        log.epoch_done(lines)
    if training.report is not None:
        training.report(meter.progress(epoch_done=True, finished=finished, restarts=restarts))


def _go_back(training: Training) -> None:
    """Bring everything to where it was before the first epoch."""
    assert training.first is not None
    for name, part in training.parts.items():
        part.load_state_dict(training.first[name])


def _mixes(settings: TrainingSettings, epoch: int) -> bool:
    """Whether samples are mixed in an epoch, from 0; rounded, as 0.28 of 25 epochs are 7, and not a little more."""
    return bool(settings.mixup) and epoch < round(settings.mixup_until * settings.epochs, 9)


def _will_stop_mixing(stage: Stage) -> bool:
    """Whether the next epoch mixes samples and a later one does not, which will be another network."""
    return _mixes(stage.settings, len(stage.lines)) and not _mixes(stage.settings, stage.settings.epochs - 1)


def _train_epoch(training: Training, stage: Stage, epoch: int, meter: EpochMeter, bonus: Bonus, shown: float) -> None:
    """One pass over the samples; all randomness is seeded here, by the run's seed and the epoch."""
    settings, done, fabric = stage.settings, len(stage.lines), training.fabric
    torch.manual_seed(epoch_seed(settings.seed, epoch, fabric.global_rank))
    generator = torch.Generator().manual_seed(epoch_seed(settings.seed, epoch) + 1)
    options: dict[str, Any] = {**settings.loss_options, **bonus.options}
    criterion = make_loss(settings.loss, **options)
    training.module.train()
    alpha = settings.mixup if _mixes(settings, done) else 0.0
    order = batches(len(training.source), settings.batch_size, generator, 2 * settings.devices)
    if training.curriculum is not None and shown < 1:
        easiest = training.curriculum.rows(shown, generator)
        order = [easiest[rows] for rows in order]
    parts = [parts_of(len(rows), settings, fabric.global_rank) for rows in order]
    own = [rows[positions] for rows, split in zip(order, parts, strict=True) for positions in split]
    samples = training.source.batches(own)
    for step, (rows, split) in enumerate(zip(order, parts, strict=True)):
        rate = learning_rate(settings, done * len(order) + step, settings.epochs * len(order))
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        changes = CropAndFlip.draw(len(rows), generator) if training.augmented else None
        mixing = draw_mixing(criterion, len(rows), generator, alpha)
        sums = []
        for number, positions in enumerate(split):
            batch = next(samples)
            soft = batch.soft if settings.soft_targets else None
            batch = replace(batch, weights=bonus.weights_seen(batch.weights), soft=soft)
            if changes is not None:
                batch = replace(batch, inputs=changes.rows(positions).apply(batch.inputs))
            with fabric.no_backward_sync(training.module, enabled=number + 1 < len(split)):
                own_mixing = None if mixing is None else mixing.rows(positions)
                sums.append(_part(training, criterion, own_mixing, batch, rows[positions], len(rows)))
        _update(training)
        meter.step_done(sums[0] if len(sums) == 1 else torch.stack(sums).sum(0), len(rows), rate)


def _part(
    training: Training, criterion: nn.Module, mixing: Mixing | None, batch: Samples, rows: Tensor, batch_size: int
) -> Tensor:
    """Gradients of a part of a batch; its losses' sum, and the hits and the number of samples that are not left out."""
    inputs, weights, history = batch.inputs, batch.weights, training.history
    if history is not None:
        weights = history.shares()[rows.to(batch.labels.device)]
    if training.settings.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    model = partial(_logits_of, training)
    soft = None
    if batch.soft is not None:
        assert training.num_classes is not None  # `train` gives it
        soft = batch.soft.over(training.num_classes)
    loss, logits, labels = mixed_loss(model, criterion, mixing, inputs, batch.labels, weights, soft)
    if history is not None:
        history.batch_done(rows.to(logits.device), logits, labels)
    if training.recorder is not None:
        training.recorder.batch_done(rows.to(logits.device), logits.detach())
    # Parts add up to the mean over the whole batch; of processes, DDP takes the mean.
    training.fabric.backward(loss * (training.fabric.world_size * len(rows) / batch_size))
    hits = logits.detach().argmax(1) == labels
    learnt = _learnt(batch.weights, mixing, hits)
    return torch.stack([loss.detach().float() * len(rows), (hits & learnt).sum().float(), learnt.sum().float()])


def _logits_of(training: Training, inputs: Tensor) -> Tensor:
    logits = training.module(inputs)
    if logits.ndim == 2 and training.num_classes not in (None, logits.shape[1]):
        raise InputError(
            f"`model` must give {training.num_classes} logits, one per class; {training.settings.model} gave "
            f"{logits.shape[1]}. Mend its last layer."
        )
    return logits


def _learnt(weights: Tensor | None, mixing: Mixing | None, hits: Tensor) -> Tensor:
    """Which labels that predictions are compared with are of samples that are not left out."""
    if weights is None:
        return torch.ones_like(hits)
    if mixing is not None:
        weights = mixing.labels(weights, weights[mixing.partners.to(weights.device)])
    return weights < LEFT_OUT


def _update(training: Training) -> None:
    if training.settings.clip_norm:
        training.fabric.clip_gradients(
            training.module, training.optimizer, max_norm=training.settings.clip_norm, error_if_nonfinite=False
        )
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average is not None:
        training.average.update()


def _validate(module: nn.Module, held_out: Source, *, temperature: bool) -> dict[str, float]:
    logits, labels = logits_of(module, held_out), held_out.labels
    accuracy = float((logits.argmax(1) == labels).double().mean())
    line = {"validation_loss": float(functional.cross_entropy(logits, labels)), "validation_accuracy": accuracy}
    return {**line, "validation_temperature": temperature_of(logits, labels)} if temperature else line
