"""Logits of a trained module."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from diffident.data.dataset import Dataset
from diffident.devices import resolve_device
from diffident.difficulties.targets import Targets
from diffident.errors import InputError
from diffident.models import Preprocessor, fits_in_memory
from diffident.progress import counted
from diffident.records import Predictions
from diffident.settings import TrainingSettings
from diffident.training.sources import InMemory, Samples, Source, Streamed

_BATCH_SIZE = 512


def make_fabric(settings: TrainingSettings) -> Fabric:
    """Fabric on the devices and in the precision of the settings.

    Raises:
        InputError: no such device here, or not as many, or it lacks the precision.
    """
    # MPS by name alone: it has neither float64 nor several processes.
    name = resolve_device(settings.device, accelerators=("cuda",)).type
    if name == "cpu" and settings.precision == "16-mixed":
        raise InputError("`precision` must be one that the device has; got '16-mixed' on the CPU. Set bf16-mixed.")
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(name, settings.devices)
    if settings.devices > there:
        raise InputError(f"`devices` must be at most {there}, as many as are there; got {settings.devices}. Set fewer.")
    # Buffers need no broadcast, as batch norm is that of all processes; so one alone can predict.
    strategy = "auto" if settings.devices == 1 else DDPStrategy(start_method="spawn", broadcast_buffers=False)
    return Fabric(accelerator=name, devices=settings.devices, strategy=strategy, precision=settings.precision)  # type: ignore[arg-type]


def source_of(
    dataset: Dataset,
    preprocessor: Preprocessor,
    settings: TrainingSettings,
    device: torch.device,
    *,
    inputs: torch.Tensor | None = None,
    targets: Targets | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """The prepared samples: in memory, or read by workers where that is wanted or they do not fit.

    Args:
        dataset: With or without labels; without, they are 0.
        preprocessor: Prepares it.
        settings: Of the run.
        device: Where batches are wanted.
        inputs: The prepared samples, where they are in memory already.
        targets: Weights, and what to learn in the place of the data's own labels; or None.
        progress: Called with (done, total) while samples are prepared here.
    """
    preprocessor.check(dataset)
    given = np.zeros(len(dataset)) if dataset.labels is None else dataset.labels
    weights = soft = None
    if targets is not None:
        given, weights, soft = targets.labels, targets.weights, targets.soft
    labels = torch.from_numpy(np.array(given, dtype=np.int64))
    if inputs is None and not fits_in_memory(preprocessor, len(dataset), settings):
        return Streamed(dataset, preprocessor, labels, weights, soft, device, settings.num_workers)
    if inputs is None:
        inputs = preprocessor.transform(dataset, progress)
    return InMemory(Samples(inputs, labels, weights, soft), device)


@torch.no_grad()
def logits_of(
    module: nn.Module, source: Source, progress: Callable[[int, int], None] | None = None
) -> Float[torch.Tensor, "n c"]:
    """Logits of all samples in their order, float32 on the CPU; the module is left in evaluation mode.

    Args:
        module: The classifier.
        source: The samples.
        progress: Called with (done, total).
    """
    module.eval()
    batches = source.batches(list(torch.arange(len(source)).split(_BATCH_SIZE)))
    counted_batches = counted(batches, len(source), progress, len)
    return torch.cat([module(batch.inputs).float().cpu() for batch in counted_batches])


def predictions_of(
    module: nn.Module,
    source: Source,
    dataset: Dataset,
    label_names: tuple[str, ...] | None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predictions of a module that Fabric has set up, so that they are made in the run's precision.

    Args:
        module: The classifier.
        source: The prepared samples.
        dataset: The same samples, for ids and labels.
        label_names: Name of each class, or None.
        progress: Called with (done, total).
    """
    labels = None if dataset.labels is None else torch.from_numpy(np.array(dataset.labels, dtype=np.int64))
    return Predictions(dataset.ids, logits_of(module, source, progress), labels, label_names)
