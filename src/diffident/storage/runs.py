"""The folder of a training run."""

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffident.errors import InputError
from diffident.settings import TrainingSettings, load_settings

# Settings that say what a sample is learnt as: where that changes, the targets' digest differs.
OF_TARGETS = ("relabel", "restart")
# Settings that a resumed run may have otherwise.
_WITHOUT_EFFECT = ("device", "loading", "num_workers", "loggers", *OF_TARGETS)


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        path: The folder.
        settings: Its resolved settings.
        data: The `[data]` table of `config.toml`: name, modality, num_classes, label_names, fingerprints.
    """

    path: Path
    settings: TrainingSettings
    data: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether training has ended; the weights are written last."""
        return self.weights.exists()

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def learnt(self) -> dict[str, float]:
        """What training learnt from validation data of the loss's options, as it was in the epoch that is kept."""
        name = self.settings.learns
        if name is None:
            return {}
        lines = self.read_metrics() or [{}]
        kept = next((line for line in reversed(lines) if line.get("best")), lines[-1])
        return {name: kept[name]} if name in kept else {}

    @property
    def restarted_after(self) -> int | None:
        """The epoch, from 1, after which training began anew, or None."""
        return epoch_before_restart(self.read_metrics())

    @property
    def evaluation(self) -> Path | None:
        """`evaluation.json`, where the run was evaluated."""
        file = self.path / "evaluation.json"
        return file if file.exists() else None

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""
        names = self.data.get("label_names")
        return None if names is None else tuple(names)

    def read_metrics(self) -> list[dict[str, Any]]:
        """One entry an epoch; none where there is no file, nor of a last line cut short as the run was killed.

        Raises:
            InputError: a line is no JSON object.
        """
        path, lines = self.metrics, []
        texts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, text in enumerate(texts, start=1):
            try:
                line = json.loads(text)
            except ValueError:
                if number == len(texts) and not self.finished:
                    break
                raise InputError(
                    f"`metrics.jsonl` must hold JSON lines; got none at line {number} of {path}."
                ) from None
            if not isinstance(line, dict):
                raise InputError(f"`metrics.jsonl` must hold objects; got another at line {number} of {path}.")
            lines.append(line)
        return lines

    def predictions(self, split: str) -> Path:
        """The predictions of a split, there or not."""
        return predictions_file(self.path, split)


def epoch_before_restart(lines: list[dict[str, Any]]) -> int | None:
    """The epoch, from 1, after which training began anew by its lines of metrics, or None."""
    return next((number for number, line in enumerate(lines, 1) if line.get("restarts")), None)


def predictions_file(run: str | Path, split: str) -> Path:
    """Where the predictions of a split are kept in the folder of a run."""
    return Path(run) / "predictions" / f"{split}.parquet"


def open_run(path: str | Path, *, unfinished: bool = False) -> RunFolder:
    """The run in a folder.

    Args:
        path: The folder.
        unfinished: Whether a run without weights is welcome.

    Raises:
        InputError: the folder holds no run, or an unfinished one.
    """
    path = Path(path)
    config = path / "config.toml"
    if not config.is_file():
        raise InputError(f"`run` must be a folder of `diffident train`; {path} has no config.toml. Check the path.")
    settings = load_settings(config)
    run = RunFolder(path, settings, tomllib.loads(config.read_text(encoding="utf-8")).get("data", {}))
    missing = {"modality", "num_classes", "ids"} - run.data.keys()
    if missing:
        raise InputError(f"`run` must be complete; {config} lacks [data] {', '.join(sorted(missing))}. Train it again.")
    if not (run.finished or unfinished):
        raise InputError(
            f"`run` must be finished; {path} has no model.safetensors. Go on with `diffident train --resume`."
        )
    return run


def check_free(out: Path, resume: bool) -> bool:
    """Whether there is something at `out` already.

    Raises:
        InputError: there is, and it is not to be resumed.
    """
    used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if used and not resume:
        raise InputError(f"`out` must be new; {out} exists. Use --resume to go on with it, or another --out.")
    return used


def differing_settings(old: TrainingSettings, new: TrainingSettings) -> list[str]:
    """`key: old, now new` of every setting that changes the result."""
    pairs = [(field.name, getattr(old, field.name), getattr(new, field.name)) for field in dataclasses.fields(old)]
    return [
        f"{key} was {_worded(was)}, now {_worded(now)}"
        for key, was, now in pairs
        if was != now and key not in _WITHOUT_EFFECT
    ]


def _worded(value: Any) -> str:
    return "left open" if value is None else repr(value)
