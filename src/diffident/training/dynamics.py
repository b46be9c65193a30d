"""What a run's own training steps say of every sample, kept while it trains."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor

from diffident.difficulties.training_dynamics import EpochDynamics, measure_epoch
from diffident.storage.dynamics import discard_epochs, write_epoch


class DynamicsRecorder:
    """Collects one epoch at a time, 20 bytes a sample, and writes it when it ends.

    Args:
        run: Folder of the run.
        ids: Of the training samples (n,).
        labels: Given labels, int64 (n,).
        device: Where the logits are; nothing leaves it before the epoch has ended.
    """

    def __init__(self, run: Path, ids: np.ndarray, labels: Int[np.ndarray, " n"], device: torch.device):
        self._run, self._ids, self._labels = run, ids, torch.from_numpy(labels).to(device)
        count = len(ids)
        self._seen = EpochDynamics(
            predictions=torch.zeros(count, dtype=torch.int64, device=device),
            margins=torch.zeros(count, device=device),
            label_probs=torch.zeros(count, device=device),
            el2n=torch.zeros(count, device=device),
        )

    def begin(self, epochs_done: int, fabric: Fabric) -> None:
        """Start after this many epochs; later ones, of a run that was cut off after its checkpoint, are discarded."""
        if fabric.is_global_zero:
            discard_epochs(self._run, epochs_done)

    def batch_done(self, rows: Int[Tensor, " b"], logits: Float[Tensor, "b c"]) -> None:
        """Keep what the logits of a training step, from before its update, say of these rows and their given labels."""
        for name, values in vars(measure_epoch(logits, self._labels[rows])).items():
            getattr(self._seen, name)[rows] = values

    def epoch_done(self, epoch: int, fabric: Fabric) -> None:
        """Write the epoch, counted from 1; every sample was in one batch of one process."""
        if fabric.world_size > 1:
            for values in vars(self._seen).values():
                values.copy_(fabric.all_reduce(values, reduce_op="sum"))
        if fabric.is_global_zero:
            write_epoch(self._run, epoch, self._ids, self._labels.cpu().numpy(), self._seen)
        for values in vars(self._seen).values():
            values.zero_()
