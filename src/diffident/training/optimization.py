"""The optimizer, the learning rate of every step, the batches and the seeds of an epoch."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffident.settings import TrainingSettings

_MOMENTUM = 0.9


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=_MOMENTUM, nesterov=True, **options)
    # The gradient scaler of 16-mixed cannot unscale inside a fused step.
    return torch.optim.AdamW(model.parameters(), fused=settings.precision != "16-mixed", **options)


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """The rate of step `step` of `total`: linear warm-up, then constant or a half cosine to zero."""
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * done)))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `batches` yields."""
    return max(1, -(-count // batch_size) - (count % batch_size == 1))


def batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    """Rows in random order; a last batch of one joins the one before, as batch normalisation needs two."""
    parts = list(torch.randperm(count, generator=generator).split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for every epoch, so that a checkpoint needs no generator states."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:6], "big")
