"""What makes a run resumable: its state and the lines of metrics after a finished epoch."""

import json
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from diffident.errors import ResumeError
from diffident.files import first_line
from diffident.storage.atomic import atomic_path, write_text


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint holds the state of."""

    def state_dict(self) -> Any:
        """Tensors, numbers and text."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Go on from such a state."""
        ...


class Checkpoints:
    """The state of a run on disk, written at most every few seconds because each write waits for the disk.

    Args:
        out: Folder of the run.
        every: Least number of seconds between two checkpoints; 0 writes one after each epoch.
        writes: Whether this process writes; of several, one does.
    """

    def __init__(self, out: Path, every: float, *, writes: bool = True):
        self._file = out / "checkpoint" / "last.pt"
        self._metrics = out / "metrics.jsonl"
        self._every, self._writes = every, writes
        self._written = time.monotonic()

    @property
    def exist(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._file.exists()

    def restore(self, parts: dict[str, Stateful]) -> list[dict[str, Any]]:
        """Load the last checkpoint, if there is one; the lines of metrics of the epochs that it has seen.

        Raises:
            ResumeError: the checkpoint is damaged, or of another model.
        """
        lines = []
        if self.exist:
            try:
                state = torch.load(self._file, map_location="cpu", weights_only=True)
                for name, part in parts.items():
                    part.load_state_dict(state[name])
                lines = state["lines"]
            except Exception as error:
                # A damaged file raises nearly anything: UnpicklingError, RuntimeError, EOFError, KeyError, ...
                raise ResumeError(
                    f"`out` must hold a whole checkpoint; {self._file}: {first_line(error)}. Use another --out."
                ) from None
        if self._writes:
            write_text(self._metrics, "".join(map(_json_line, lines)))
        return lines

    def epoch_done(self, parts: dict[str, Stateful], lines: list[dict[str, Any]], *, last: bool) -> None:
        """Add the newest line to `metrics.jsonl`; write a checkpoint where one is due, and after the last epoch."""
        if not self._writes:
            return
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(_json_line(lines[-1]))
        if not last and time.monotonic() - self._written < self._every:
            return
        with atomic_path(self._file) as temporary:
            torch.save({**{name: part.state_dict() for name, part in parts.items()}, "lines": lines}, temporary)
        self._written = time.monotonic()


def _json_line(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
