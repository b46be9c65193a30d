"""The optimizer, the learning rate of every step, the batches and the seeds of an epoch."""

import hashlib
import math
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffident.settings import TrainingSettings

_MOMENTUM = 0.9
# One cycle starts at a 25th of the peak, and ends at a 10,000th of where it started.
_ONE_CYCLE_START = 25.0
_ONE_CYCLE_END = 1e4


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=_MOMENTUM, nesterov=True, **options)
    # The gradient scaler of 16-mixed cannot unscale inside a fused step.
    return torch.optim.AdamW(model.parameters(), fused=settings.precision != "16-mixed", **options)


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """The rate of step `step` of `total`: the warm-up, then the schedule."""
    peak = settings.learning_rate
    if settings.schedule == "one-cycle":
        return _one_cycle(peak, step, settings.warmup * total - 1, total - 1)
    warmup = round(settings.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "step":
        return peak * settings.step_factor ** sum(step >= milestone * total for milestone in settings.milestones)
    if settings.schedule == "constant":
        return peak
    done = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(peak: float, step: int, top: float, end: int) -> float:
    """Half a cosine up to the peak at step `top`, half a cosine down to nearly zero at step `end`.

    Reference:
        Smith and Topin 2017, arXiv 1708.07120, with the cosines and end points of torch's OneCycleLR.
    """
    start = peak / _ONE_CYCLE_START
    if step < top:
        return start + (peak - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    done = (step - top) / max(1e-9, end - top)
    return peak + (start / _ONE_CYCLE_END - peak) * 0.5 * (1 - math.cos(math.pi * min(1.0, done)))


def steps_per_epoch(count: int, batch_size: int, least: int = 2) -> int:
    """How many batches `batches` gives."""
    return max(1, -(-count // batch_size) - (0 < count % batch_size < least))


def batches(count: int, batch_size: int, generator: torch.Generator, least: int = 2) -> list[Int[Tensor, "_"]]:
    """Rows in random order; a last batch of less than `least` joins the one before, as batch norm needs two each."""
    parts = list(torch.randperm(count, generator=generator).split(batch_size))
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def parts_of(count: int, settings: TrainingSettings, rank: int) -> list[Int[Tensor, "_"]]:
    """Positions in a batch of `count` that this process takes, in as many parts as gradients are accumulated over."""
    own = torch.arange(count).tensor_split(settings.devices)[rank]
    return list(own.tensor_split(max(1, min(settings.accumulation, len(own) // 2))))


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed of its own for every epoch and process, so that a checkpoint needs no generator states."""
    text = f"{seed}/{epoch}/{rank}" if rank else f"{seed}/{epoch}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
