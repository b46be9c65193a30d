"""The lines of metrics as other tools want them: CSV, TensorBoard, Weights & Biases, MLflow."""

import csv
import hashlib
import importlib.util
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diffident.errors import MissingDependencyError
from diffident.settings import TrainingSettings
from diffident.storage.atomic import write_text

_NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


@runtime_checkable
class Log(Protocol):
    """One tool's log; a resumed run goes on with it, and what was logged beyond the checkpoint is replaced."""

    def epoch_done(self, lines: list[dict[str, Any]]) -> None:
        """Log the last line."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def check_loggers(names: tuple[str, ...]) -> None:
    """Raise `MissingDependencyError` unless the libraries of all the logs are installed."""
    for name in names:
        if name in _NEEDS and importlib.util.find_spec(_NEEDS[name]) is None:
            raise MissingDependencyError(f"`loggers={name}` must have {name}. Run: pip install {_NEEDS[name]}.")


def open_logs(settings: TrainingSettings, out: Path, lines: list[dict[str, Any]]) -> list[Log]:
    """The logs of the settings.

    Args:
        settings: Of the run.
        out: Folder of the run; logs that are files lie in it.
        lines: Of the epochs that were done before.
    """
    kinds = {"csv": _Csv, "tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow}
    return [kinds[name](settings, out, lines) for name in dict.fromkeys(settings.loggers)]


class _Csv:
    """`metrics.csv`, written anew after every epoch: it is small, and never holds an epoch twice."""

    def __init__(self, settings: TrainingSettings, out: Path, lines: list[dict[str, Any]]):
        self._file = out / "metrics.csv"

    def epoch_done(self, lines: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        names = dict.fromkeys(name for line in lines for name in line)  # validation data may have come later
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text(self._file, text.getvalue())

    def close(self) -> None:
        pass


class _TensorBoard:
    """Event files in `tensorboard/`; epochs beyond the checkpoint are marked as void."""

    def __init__(self, settings: TrainingSettings, out: Path, lines: list[dict[str, Any]]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=len(lines) + 1)

    def epoch_done(self, lines: list[dict[str, Any]]) -> None:
        for name, value in _numbers(lines[-1]).items():
            self._writer.add_scalar(name, value, lines[-1]["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, named after the folder and found again by its path."""

    def __init__(self, settings: TrainingSettings, out: Path, lines: list[dict[str, Any]]):
        import wandb  # type: ignore[import-not-found]

        name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
        self._run = wandb.init(
            project="diffident", name=out.name, id=name, dir=str(out), resume="allow", config=asdict(settings)
        )

    def epoch_done(self, lines: list[dict[str, Any]]) -> None:
        self._run.log(_numbers(lines[-1]), step=lines[-1]["epoch"])

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """A run of MLflow, at the tracking address of its own settings; its id is kept in `mlflow-run.txt`."""

    def __init__(self, settings: TrainingSettings, out: Path, lines: list[dict[str, Any]]):
        import mlflow  # type: ignore[import-not-found]

        self._mlflow, file = mlflow, out / "mlflow-run.txt"
        if file.exists():
            mlflow.start_run(run_id=file.read_text(encoding="utf-8").strip())
            return
        mlflow.set_experiment("diffident")
        run = mlflow.start_run(run_name=out.name)
        write_text(file, f"{run.info.run_id}\n")
        mlflow.log_params(asdict(settings))

    def epoch_done(self, lines: list[dict[str, Any]]) -> None:
        self._mlflow.log_metrics(_numbers(lines[-1]), step=lines[-1]["epoch"])

    def close(self) -> None:
        self._mlflow.end_run()


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items() if name != "epoch"}
