"""Where batches come from: prepared samples in memory, or images that workers read for every batch.

Both give the same bits: workers prepare samples as `Preprocessor.transform` does, and augmentation follows in batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from diffident.data.dataset import Dataset
from diffident.difficulties.targets import SoftTargets
from diffident.errors import DiffidentError
from diffident.models import Preprocessor


@dataclass(frozen=True)
class Samples:
    """Prepared samples: rows of the tensors belong together.

    Attributes:
        inputs: As the model takes them.
        labels: Classes.
        weights: Of the loss, or None.
        soft: What the loss learns in the place of the labels, or None.
    """

    inputs: Shaped[Tensor, "n ..."]
    labels: Int[Tensor, " n"]
    weights: Float[Tensor, " n"] | None = None
    soft: SoftTargets | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: Int[Tensor, " b"]) -> "Samples":
        """Some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        return Samples(
            self.inputs[rows], self.labels[rows], weights, None if self.soft is None else self.soft.rows(rows)
        )

    def to(self, device: torch.device) -> "Samples":
        """The samples on a device."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return Samples(
            self.inputs.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            weights,
            None if self.soft is None else self.soft.to(device),
        )


class InMemory:
    """Samples in memory: the device's where they take at most half of what is free there, else the machine's.

    Args:
        samples: All of them.
        device: Where batches are wanted.
    """

    def __init__(self, samples: Samples, device: torch.device):
        self._device, self.labels, self.weights = device, samples.labels, samples.weights
        self._samples = samples.to(device) if _fits_on(device, samples.inputs.nbytes) else samples

    def __len__(self) -> int:
        return len(self._samples)

    def batches(self, parts: list[Int[Tensor, "_"]]) -> Iterator[Samples]:
        """The samples of each part, on the device."""
        home = self._samples.labels.device
        for rows in parts:
            yield self._samples.rows(rows.to(home)).to(self._device)


class Streamed:
    """Samples that worker processes read and prepare for every batch, a few batches ahead.

    Args:
        dataset: Of samples that all get the same shape: images.
        preprocessor: Prepares them.
        labels: One a sample.
        weights: One a sample, or None.
        soft: What is learnt in the place of the labels, or None.
        device: Where batches are wanted.
        num_workers: Processes; 0 reads in this one.
    """

    def __init__(
        self,
        dataset: Dataset,
        preprocessor: Preprocessor,
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"] | None,
        soft: SoftTargets | None,
        device: torch.device,
        num_workers: int,
    ):
        self.labels, self.weights, self._soft, self._device = labels, weights, soft, device
        self._order = _Order()
        self._loader = DataLoader(
            _Batches(dataset, preprocessor),
            sampler=self._order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # a loader without one draws from the generator that dropout uses
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, parts: list[Int[Tensor, "_"]]) -> Iterator[Samples]:
        """The samples of each part, on the device."""
        self._order.parts = [rows.numpy() for rows in parts]
        for rows, inputs in zip(parts, self._loader, strict=True):
            if isinstance(inputs, DiffidentError):
                raise inputs
            weights = None if self.weights is None else self.weights[rows]
            soft = None if self._soft is None else self._soft.rows(rows)
            yield Samples(inputs, self.labels[rows], weights, soft).to(self._device)


Source = InMemory | Streamed


class _Order(Sampler):
    """The rows of every batch of the pass that comes next."""

    def __init__(self):
        self.parts: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.parts)


class _Batches(TorchDataset):
    """A whole batch at the rows that are asked for; an error is a result, as workers wrap what they raise."""

    def __init__(self, dataset: Dataset, preprocessor: Preprocessor):
        self._dataset, self._preprocessor = dataset, preprocessor

    def __getitem__(self, rows: np.ndarray) -> Tensor | DiffidentError:
        try:
            return self._preprocessor.transform(self._dataset.select(rows))
        except DiffidentError as error:
            return error


def _fits_on(device: torch.device, needed: int) -> bool:
    return device.type != "cuda" or needed <= torch.cuda.mem_get_info(device)[0] // 2
