"""The folder of a run: begun or gone on with, and what describes it."""

import hashlib
import json
import platform
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import diffident
from diffident.data.dataset import Dataset
from diffident.errors import ResumeError
from diffident.models.foreign import TransformersClassifier, TransformersImageClassifier
from diffident.settings import TrainingSettings
from diffident.storage.atomic import write_text
from diffident.storage.runs import RunFolder, check_free, differing_settings, open_run


def describe(dataset: Dataset, digest: str | None, validation: Dataset | None) -> dict[str, Any]:
    """The `[data]` table: what the run was trained on.

    Args:
        dataset: The training data.
        digest: Of the weights.
        validation: Where it has a say in what is learnt.
    """
    return {
        "name": dataset.name,
        "modality": dataset.modality,
        "num_samples": len(dataset),
        "num_classes": dataset.num_classes,
        "label_names": dataset.label_names,
        "ids": _digest("\n".join(map(str, dataset.ids)).encode()),
        "labels": _digest(np.asarray(dataset.labels, dtype=np.int64).tobytes()),
        "fingerprint": dataset.fingerprint,
        "weights": digest,
        "validation": None if validation is None else _digest_of(validation),
    }


def _digest_of(dataset: Dataset) -> str:
    labels = np.asarray(dataset.labels, dtype=np.int64).tobytes()
    return _digest(dataset.fingerprint.encode() + "\n".join(map(str, dataset.ids)).encode() + labels)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def claim(out: Path, settings: TrainingSettings, config: str, resume: bool) -> tuple[RunFolder, bool]:
    """The run at `out`, and whether it is new; otherwise it is the one to go on with.

    Raises:
        InputError: the folder is used already, and not to be resumed.
        ResumeError: the run there has other settings or data.
    """
    if not check_free(out, resume):
        write_text(out / "config.toml", config)
        return open_run(out, unfinished=True), True
    run = open_run(out, unfinished=True)
    differ = differing_settings(run.settings, settings)
    before, now = ({**t, "name": None} for t in (run.data, _data_of(config)))
    differ += [
        f"data {key} was {before.get(key)!r}, now {now.get(key)!r}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if differ:
        raise ResumeError(
            f"`out` must hold a run with the same settings; {out} differs: {'; '.join(differ)}. Use another --out."
        )
    return run, False


def _data_of(config: str) -> dict[str, Any]:
    return tomllib.loads(config)["data"]


def save_transformers_config(model: nn.Module, out: Path) -> None:
    """Keep the architecture of a transformers model in the run, so that `predict` needs nothing else."""
    for module in model.modules():
        if isinstance(module, TransformersClassifier | TransformersImageClassifier):
            module.model.config.save_pretrained(str(out / "tokenizer"))


def write_environment(out: Path, device: torch.device, seconds: float) -> None:
    """Write `environment.json`: versions, device, threads and how long training took."""
    values = {
        "diffident": diffident.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "num_threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
    }
    write_text(out / "environment.json", json.dumps(values, indent=1) + "\n")
