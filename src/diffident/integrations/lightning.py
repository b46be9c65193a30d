"""A callback for Lightning's `Trainer` that keeps what every epoch saw of every sample."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffident.difficulties.training_dynamics import EpochDynamics, measure_epoch
from diffident.errors import InputError, MissingDependencyError
from diffident.storage.dynamics import discard_epochs, write_epoch

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    raise MissingDependencyError("`lightning` must be installed. Run: pip install 'diffident[lightning]'.") from None

_NEEDED = ("logits", "labels", "ids")


class RecordDynamics(Callback):
    """Writes `dynamics.parquet` as `diffident train --set dynamics=true` does, one file an epoch.

    `diffident score FOLDER --method training-dynamics` then scores every sample. `training_step` must return a
    dictionary with `logits`, `labels` and `ids` beside `loss`; `diffident.with_ids` puts the ids into the batches.
    Samples that a distributed sampler repeats count once; every process sends its part to the first.

    Args:
        folder: Where `dynamics.parquet` goes.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._batches: list[tuple[list[str], torch.Tensor, EpochDynamics]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Discard what a run that was cut off left beyond its checkpoint."""
        if trainer.is_global_zero:
            discard_epochs(self._folder, trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self._batches = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep what the step's logits, from before its update, say of its samples."""
        missing = [name for name in _NEEDED if not isinstance(outputs, dict) or name not in outputs]
        if missing:
            raise InputError(
                f"`training_step` must return {', '.join(_NEEDED)}; {', '.join(missing)} missing. "
                f"Return them beside `loss`, the ids from diffident.with_ids."
            )
        seen = measure_epoch(outputs["logits"].detach(), outputs["labels"])
        ids = [str(sample) for sample in outputs["ids"]]
        self._batches.append((ids, outputs["labels"], seen))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the epoch."""
        parts = _gathered(self._joined(), trainer.world_size)
        if trainer.is_global_zero:
            ids = np.array([sample for part in parts for sample in part[0]], dtype=object)
            _, once = np.unique(ids.astype(str), return_index=True)
            rows = torch.from_numpy(once)
            labels = torch.cat([part[1] for part in parts])[rows].numpy()
            columns = {name: torch.cat([part[2][name] for part in parts])[rows] for name in parts[0][2]}
            write_epoch(self._folder, trainer.current_epoch + 1, ids[once], labels, EpochDynamics(**columns))

    def _joined(self) -> tuple[list[str], torch.Tensor, dict[str, torch.Tensor]]:
        ids = [sample for batch, _, _ in self._batches for sample in batch]
        labels = torch.cat([labels for _, labels, _ in self._batches]).cpu()
        names = vars(self._batches[0][2])
        return ids, labels, {n: torch.cat([getattr(seen, n) for _, _, seen in self._batches]).cpu() for n in names}


def _gathered(part: Any, world_size: int) -> list[Any]:
    if world_size == 1:
        return [part]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, part)
    return parts
