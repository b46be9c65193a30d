"""The training loop on Lightning Fabric."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from diffident.errors import DiffidentError
from diffident.losses import make_loss
from diffident.settings import TrainingSettings
from diffident.training.augmentation import augments, crop_and_flip
from diffident.training.checkpoints import Checkpoints
from diffident.training.dynamics import DynamicsRecorder
from diffident.training.inference import logits_of
from diffident.training.optimization import batches, epoch_seed, learning_rate, make_optimizer, steps_per_epoch


class NonFiniteLossError(DiffidentError, ArithmeticError):
    """The training loss became NaN or infinite."""


@dataclass(frozen=True)
class Samples:
    """A prepared data set in memory: rows of the tensors belong together."""

    inputs: Shaped[Tensor, "n ..."]
    labels: Int[Tensor, " n"]
    weights: Float[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: Int[Tensor, " b"]) -> "Samples":
        """Some of the samples."""
        return Samples(self.inputs[rows], self.labels[rows], None if self.weights is None else self.weights[rows])

    def to(self, device: torch.device) -> "Samples":
        """The samples on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return Samples(self.inputs.to(device), self.labels.to(device), weights)


def fit(
    fabric: Fabric,
    model: nn.Module,
    samples: Samples,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    *,
    held_out: Samples | None = None,
    recorder: DynamicsRecorder | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """Train from the last checkpoint to the last epoch.

    Returns:
        The model set up by Fabric: called, it computes in the run's precision.

    Raises:
        NonFiniteLossError: the loss is NaN or infinite.
    """
    module, optimizer = fabric.setup(model, make_optimizer(model, settings))
    samples = samples.to(fabric.device)
    lines = checkpoints.restore(model, optimizer)
    if recorder is not None:
        recorder.begin(len(lines))
    for epoch in range(len(lines), settings.epochs):
        started = time.perf_counter()
        line = {"epoch": epoch + 1, **_train_epoch(fabric, module, optimizer, samples, settings, epoch, recorder)}
        if held_out is not None:
            line.update(_validate(module, held_out, fabric.device))
        if recorder is not None:
            recorder.epoch_done(epoch + 1)  # before the checkpoint: a resumed run never lacks an epoch
        lines.append({**line, "seconds": round(time.perf_counter() - started, 3)})
        checkpoints.epoch_done(model, optimizer, lines, last=epoch + 1 == settings.epochs)
        if progress is not None:
            progress(epoch + 1, settings.epochs)
    return module


def _train_epoch(
    fabric: Fabric,
    module: nn.Module,
    optimizer: Any,
    samples: Samples,
    settings: TrainingSettings,
    epoch: int,
    recorder: DynamicsRecorder | None,
) -> dict[str, float]:
    """One pass over the samples; all randomness is seeded here, by the run's seed and the epoch."""
    seed = epoch_seed(settings.seed, epoch)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    options: dict[str, Any] = settings.loss_options
    criterion = make_loss(settings.loss, **options)
    module.train()
    rate, losses, hits = 0.0, [], []
    steps = steps_per_epoch(len(samples), settings.batch_size)
    for step, rows in enumerate(batches(len(samples), settings.batch_size, generator)):
        rate = learning_rate(settings, epoch * steps + step, settings.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rows.to(fabric.device)
        batch = samples.rows(rows)
        inputs = crop_and_flip(batch.inputs, generator) if augments(settings, batch.inputs) else batch.inputs
        logits = module(inputs)
        loss = criterion(logits, batch.labels, batch.weights)
        _check_finite(loss, settings, epoch, step)
        if recorder is not None:
            recorder.batch_done(rows, logits.detach(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.detach() * len(rows))
        hits.append((logits.detach().argmax(1) == batch.labels).sum())
    count = len(samples)
    loss, accuracy = float(torch.stack(losses).sum()) / count, int(torch.stack(hits).sum()) / count
    return {"train_loss": loss, "train_accuracy": accuracy, "learning_rate": rate}


def _check_finite(loss: Tensor, settings: TrainingSettings, epoch: int, step: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise NonFiniteLossError(
            f"`loss` must be finite; got {loss.item()} at epoch {epoch + 1}, step {step + 1}. Try a lower "
            f"learning_rate (now {settings.learning_rate:g}), more warmup or precision=32-true."
        )


def _validate(module: nn.Module, held_out: Samples, device: torch.device) -> dict[str, float]:
    logits, labels = logits_of(module, held_out.inputs, device), held_out.labels
    accuracy = float((logits.argmax(1) == labels).double().mean())
    return {"validation_loss": float(functional.cross_entropy(logits, labels)), "validation_accuracy": accuracy}
