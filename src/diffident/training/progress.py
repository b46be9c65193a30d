"""How far a run is: the loss of its steps, checked and reported while an epoch lasts."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from diffident.errors import DiffidentError
from diffident.settings import TrainingSettings

_MOST_STEPS = 50
_SECONDS = 0.25


class NonFiniteLossError(DiffidentError, ArithmeticError):
    """The training loss became NaN or infinite."""


@dataclass(frozen=True)
class Progress:
    """Where a run is, now and then during an epoch and at its end.

    Attributes:
        epoch: From 1.
        epochs: How many there are.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        loss: Mean training loss of the epoch so far.
        learning_rate: Of the last step.
        samples_per_second: Of the steps of the epoch so far, without validation and checkpoint.
        epoch_done: Whether the epoch has ended and its metrics are written.
        finished: Whether no epoch follows.
        restarts: Whether training begins anew after this epoch, from its first weights.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    samples_per_second: float
    epoch_done: bool = False
    finished: bool = False
    restarts: bool = False


Report = Callable[[Progress], None]


class EpochMeter:
    """Sums losses and hits of an epoch's steps; waits for the device, and for other processes, only now and then.

    Args:
        fabric: Of the run.
        settings: Of the run.
        epoch: From 0.
        steps: How many steps the epoch has.
        report: Called with the progress now and then, or None.
    """

    def __init__(self, fabric: Fabric, settings: TrainingSettings, epoch: int, steps: int, report: Report | None):
        self._fabric, self._settings, self._epoch, self._steps, self._report = fabric, settings, epoch, steps, report
        self._waiting: list[Tensor] = []
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._count, self._step = 0, 0
        self._rate = 0.0
        self._started = self._looked = time.perf_counter()
        self._seconds = 0.0

    def step_done(self, sums: Float[Tensor, "3"], count: int, rate: float) -> None:
        """Take in a step.

        Args:
            sums: Of this process's samples: their losses, and the hits and the number of those that are not left out.
            count: Samples of all processes.
            rate: The learning rate.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
        """
        self._waiting.append(sums)
        self._count += count
        self._rate = rate
        # All processes must look at the same step, so that only one alone may go by the clock.
        impatient = self._fabric.world_size == 1 and time.perf_counter() - self._looked >= _SECONDS
        if len(self._waiting) == _MOST_STEPS or impatient:
            self._look()
            if self._report is not None:
                self._report(self.progress())

    def totals(self) -> dict[str, float]:
        """Mean loss and accuracy of the epoch, and its last learning rate."""
        self._look()
        loss, hits, learnt = self._sums.tolist()
        return {
            "train_loss": loss / self._count,
            "train_accuracy": hits / max(1, learnt),
            "learning_rate": self._rate,
        }

    def progress(self, *, epoch_done: bool = False, finished: bool = False, restarts: bool = False) -> Progress:
        """Where the run is, by the steps that were looked at."""
        return Progress(
            epoch=self._epoch + 1,
            epochs=self._settings.epochs,
            step=self._step,
            steps=self._steps,
            loss=float(self._sums[0]) / max(1, self._count),
            learning_rate=self._rate,
            samples_per_second=self._count / max(1e-9, self._seconds),
            epoch_done=epoch_done,
            finished=finished,
            restarts=restarts,
        )

    def check(self, loss: float) -> None:
        """Raise `NonFiniteLossError` unless the loss after the last step is finite."""
        if not math.isfinite(loss):
            self._look()  # at the steps that wait, of which one may have been the first
            self._raise(self._step - 1, loss)

    def _look(self) -> None:
        if self._waiting:
            sums = self._fabric.all_reduce(torch.stack(self._waiting), reduce_op="sum").cpu().double()  # type: ignore[union-attr]
            wrong = (~sums[:, 0].isfinite()).nonzero()
            if len(wrong):
                self._raise(self._step + int(wrong[0]), float(sums[int(wrong[0]), 0]))
            self._sums += sums.sum(0)
            self._step += len(self._waiting)
            self._waiting = []
        self._looked = time.perf_counter()
        self._seconds = self._looked - self._started

    def _raise(self, step: int, value: float) -> None:
        raise NonFiniteLossError(
            f"`loss` must be finite; got {value} at epoch {self._epoch + 1}, step {step + 1}. Try a lower "
            f"learning_rate (now {self._settings.learning_rate:g}), more warmup or precision=32-true."
        )
