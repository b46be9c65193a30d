"""Logits of a trained module."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from lightning_fabric import Fabric
from torch import Tensor, nn

from diffident.data.dataset import Dataset
from diffident.errors import InputError
from diffident.models import Preprocessor
from diffident.records import Predictions
from diffident.settings import TrainingSettings

_BATCH_SIZE = 512


def make_fabric(settings: TrainingSettings) -> Fabric:
    """Fabric on the one device and in the precision of the settings.

    Raises:
        InputError: no such device here, or it lacks the precision.
    """
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise InputError(f"`device` must be there; got {name!r}. Set device=cpu.")
    if name == "cpu" and settings.precision == "16-mixed":
        raise InputError("`precision` must be one that the device has; got '16-mixed' on the CPU. Set bf16-mixed.")
    return Fabric(accelerator=name, devices=1, precision=settings.precision)  # type: ignore[arg-type]


@torch.no_grad()
def logits_of(module: nn.Module, inputs: Shaped[Tensor, "n ..."], device: torch.device) -> Float[Tensor, "n c"]:
    """Logits of prepared inputs, float32 on the CPU; the module is left in evaluation mode."""
    module.eval()
    return torch.cat([module(part.to(device)).float().cpu() for part in inputs.split(_BATCH_SIZE)])


def predictions_of(
    module: nn.Module,
    preprocessor: Preprocessor,
    dataset: Dataset,
    label_names: tuple[str, ...] | None,
    device: torch.device,
) -> Predictions:
    """Predictions of a module that Fabric has set up, so that they are made in the run's precision.

    Raises:
        InputError: no samples, or samples of another modality or shape than in training.
    """
    if not len(dataset):
        raise InputError(f"`data` must hold samples; got none at {dataset.name}. Check the path.")
    logits = logits_of(module, preprocessor.transform(dataset), device)
    labels = None if dataset.labels is None else torch.from_numpy(np.array(dataset.labels, dtype=np.int64))
    return Predictions(dataset.ids, logits, labels, label_names)
