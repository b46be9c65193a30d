"""Training: a data set and settings in, a run folder out; and predictions from a run folder."""

import hashlib
import json
import platform
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import diffident
from diffident.data.dataset import Dataset
from diffident.difficulties.weights import difficulty_weights
from diffident.errors import DiffidentError, IdMismatchError, InputError, ResumeError
from diffident.losses import LOSSES, make_loss
from diffident.models import Preprocessor, build_model, fit_preprocessor, load_preprocessor
from diffident.records import DifficultyTable, Predictions, positions_of
from diffident.settings import TrainingSettings, load_settings, settings_toml
from diffident.storage.atomic import atomic_path, write_text
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.storage.predictions import write_predictions
from diffident.storage.runs import RunFolder, differing_settings, open_run

_PREDICT_BATCH = 512
_MOMENTUM = 0.9
_CROP_FRACTION = 8


class NonFiniteLossError(DiffidentError, ArithmeticError):
    """The training loss became NaN or infinite."""


@dataclass(frozen=True)
class _Samples:
    """The training set in memory: rows of the three tensors belong together."""

    inputs: Shaped[Tensor, "n ..."]
    labels: Int[Tensor, " n"]
    weights: Float[Tensor, " n"] | None


def train(
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    out: str | Path,
    difficulty: DifficultyTable | str | Path | None = None,
    validation: Dataset | None = None,
    test: Dataset | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RunFolder:
    """Train a classifier; equal settings, data and thread count give equal bytes on the CPU.

    Args:
        dataset: Labelled training data.
        settings: From `load_settings`.
        out: Folder of the run; new, unless `resume`.
        difficulty: Table or its file, for the loss `difficulty-aware`; joined by id, may hold more ids.
        validation: Measured after each epoch, predicted at the end.
        test: Predicted at the end.
        resume: Go on after the last finished epoch; a finished run is returned as it is.
        progress: Called with (epochs done, epochs) after each epoch is safe on disk.

    Raises:
        InputError: data, settings and difficulty do not fit each other.
        IdMismatchError: training ids are not in the difficulty table.
        ResumeError: the folder holds a run with other settings or data.
        NonFiniteLossError: the loss is NaN or infinite.
    """
    out = Path(out)
    _check_data(dataset, validation, test)
    weights, digest = _weights_for(dataset, settings, difficulty)
    config = settings_toml(settings, data=_describe(dataset, digest))
    if _claim(out, settings, config, resume).finished:
        return open_run(out)
    fabric = _fabric(settings)
    preprocessor, inputs = fit_preprocessor(dataset, settings)
    preprocessor.save(out)
    samples = _Samples(inputs, torch.from_numpy(np.array(dataset.labels, dtype=np.int64)), weights)
    held_out = None if validation is None else (preprocessor.transform(validation), validation.labels)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=_cuda_devices(fabric)):
        torch.manual_seed(settings.seed)
        model = build_model(settings, preprocessor, dataset.num_classes)
        _save_transformers_config(model, out)
        _fit(fabric, model, samples, settings, out, held_out, progress)
    write_text(
        out / "environment.json", json.dumps(_environment(fabric, time.perf_counter() - started), indent=1) + "\n"
    )
    for split, part in (("validation", validation), ("test", test)):
        if part is not None:
            write_predictions(
                _predict(fabric, model, preprocessor, part, dataset.label_names),
                out / "predictions" / f"{split}.parquet",
            )
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    with atomic_path(out / "model.safetensors") as temporary:
        save_file(state, temporary)
    return open_run(out)


def predict(run_dir: str | Path, dataset: Dataset, *, device: str | None = None) -> Predictions:
    """A trained model's logits, in the data's order, from nothing but the run folder.

    Args:
        run_dir: Folder of a finished run.
        dataset: What to predict; labels are optional.
        device: Instead of the run's.

    Raises:
        InputError: not a finished run, or data with other classes, modality or shape.
    """
    run = open_run(run_dir)
    num_classes = run.data["num_classes"]
    _check_labels(dataset, num_classes, run.label_names, "the run")
    settings = run.settings if device is None else load_settings(**{**asdict(run.settings), "device": device})
    preprocessor = load_preprocessor(run.path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(settings, preprocessor, num_classes, run=run.path)
    model.load_state_dict(load_file(run.weights))
    return _predict(_fabric(settings), model, preprocessor, dataset, run.label_names)


def _fit(
    fabric: Fabric,
    model: nn.Module,
    samples: _Samples,
    settings: TrainingSettings,
    out: Path,
    held_out: tuple | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """The loop. Randomness is seeded anew for every epoch, so a checkpoint needs no generator states."""
    options: dict[str, Any] = settings.loss_options
    criterion = make_loss(settings.loss, **options)
    module, optimizer = fabric.setup(model, _optimizer(model, settings))
    moved: list[Any] = [None if part is None else part.to(fabric.device) for part in vars(samples).values()]
    samples = _Samples(*moved)
    lines = _restore(out, model, optimizer)
    steps = max(1, -(-len(samples.labels) // settings.batch_size) - (len(samples.labels) % settings.batch_size == 1))
    for epoch in range(len(lines), settings.epochs):
        started = time.perf_counter()
        torch.manual_seed(_epoch_seed(settings.seed, epoch))
        generator = torch.Generator().manual_seed(_epoch_seed(settings.seed, epoch) + 1)
        module.train()
        losses, hits = [], []
        for step, rows in enumerate(_batches(len(samples.labels), settings.batch_size, generator)):
            rows = rows.to(fabric.device)
            rate = _learning_rate(settings, epoch * steps + step, settings.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            inputs, labels = samples.inputs[rows], samples.labels[rows]
            if _augments(settings, samples.inputs):
                inputs = crop_and_flip(inputs, generator)
            logits = module(inputs)
            loss = criterion(logits, labels, None if samples.weights is None else samples.weights[rows])
            if not bool(torch.isfinite(loss)):
                raise NonFiniteLossError(
                    f"`loss` must be finite; got {loss.item()} at epoch {epoch + 1}, step {step + 1}. Try a lower "
                    f"learning_rate (now {settings.learning_rate:g}), more warmup or precision=32-true."
                )
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()
            losses.append(loss.detach() * len(rows))
            hits.append((logits.detach().argmax(1) == labels).sum())
        count = len(samples.labels)
        line = {
            "epoch": epoch + 1,
            "train_loss": float(torch.stack(losses).sum()) / count,
            "train_accuracy": int(torch.stack(hits).sum()) / count,
            "learning_rate": rate,
            **({} if held_out is None else _measure(module, held_out[0], held_out[1], fabric)),
            "seconds": round(time.perf_counter() - started, 3),
        }
        lines.append(line)
        _save_checkpoint(out, model, optimizer, lines)
        if progress is not None:
            progress(epoch + 1, settings.epochs)


def crop_and_flip(images: Shaped[Tensor, "n c h w"], generator: torch.Generator) -> Shaped[Tensor, "n c h w"]:
    """Pad by an eighth of the height with zeros, crop at random and flip half: each image on its own."""
    count, channels, height, width = images.shape
    pad = max(1, height // _CROP_FRACTION)
    top, left = (torch.randint(2 * pad + 1, (count, 1), generator=generator) for _ in range(2))
    flip = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(flip, width - 1 - columns, columns) + left
    rows = (torch.arange(height) + top).to(images.device)
    padded = functional.pad(images, (pad, pad, pad, pad))
    samples = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[samples, channel, rows[:, None, :, None], columns.to(images.device)[:, None, None, :]]


def _augments(settings: TrainingSettings, inputs: Tensor) -> bool:
    if settings.augment == "none" or inputs.dtype != torch.uint8:
        return False
    return settings.augment == "crop-flip" or (inputs.shape[1] == 3 and min(inputs.shape[2:]) >= 16)


def _batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    """Rows in random order; a last batch of one joins the one before, as batch normalisation needs two."""
    batches = list(torch.randperm(count, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    yield from batches


def _learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, total - warmup)
    return settings.learning_rate * 0.5 * (1 + float(np.cos(np.pi * done)))


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=_MOMENTUM, nesterov=True, **options)
    return torch.optim.AdamW(model.parameters(), fused=settings.precision != "16-mixed", **options)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:6], "big")


def _measure(module: nn.Module, inputs: Tensor, labels: np.ndarray, fabric: Fabric) -> dict[str, float]:
    logits, wanted = _logits(module, inputs, fabric), torch.from_numpy(np.array(labels, dtype=np.int64))
    accuracy = float((logits.argmax(1) == wanted).double().mean())
    return {"validation_loss": float(functional.cross_entropy(logits, wanted)), "validation_accuracy": accuracy}


@torch.no_grad()
def _logits(module: nn.Module, inputs: Shaped[Tensor, "n ..."], fabric: Fabric) -> Float[Tensor, "n c"]:
    module.eval()
    return torch.cat([module(part.to(fabric.device)).float().cpu() for part in inputs.split(_PREDICT_BATCH)])


def _predict(
    fabric: Fabric, model: nn.Module, preprocessor: Preprocessor, dataset: Dataset, label_names: tuple[str, ...] | None
) -> Predictions:
    if not len(dataset):
        raise InputError(f"`data` must hold samples; got none at {dataset.name}. Check the path.")
    model = model if fabric.device == next(model.parameters()).device else model.to(fabric.device)
    with fabric.autocast():
        logits = _logits(model, preprocessor.transform(dataset), fabric)
    labels = None if dataset.labels is None else torch.from_numpy(np.array(dataset.labels, dtype=np.int64))
    return Predictions(dataset.ids, logits, labels, label_names)


def _fabric(settings: TrainingSettings) -> Fabric:
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise InputError(f"`device` must be there; got {name!r}. Set device=cpu.")
    return Fabric(accelerator=name, devices=1, precision=settings.precision)  # type: ignore[arg-type]


def _cuda_devices(fabric: Fabric) -> list[int]:
    return [fabric.device.index or 0] if fabric.device.type == "cuda" else []


def _check_data(dataset: Dataset, validation: Dataset | None, test: Dataset | None) -> None:
    if dataset.labels is None:
        raise InputError(
            f"`data` must have labels to train on; got none at {dataset.name}. Name them: --label-column NAME."
        )
    if len(dataset) < 2:
        raise InputError(f"`data` must hold at least 2 samples; got {len(dataset)} at {dataset.name}. Give more.")
    if dataset.num_classes < 2:
        raise InputError(
            f"`data` must have at least 2 classes; got {dataset.num_classes} at {dataset.name}. Check labels."
        )
    if validation is not None and validation.labels is None:
        raise InputError(f"`validation` must have labels; got none at {validation.name}. Leave it out, or name them.")
    for part in (dataset, validation, test):
        if part is not None:
            _check_labels(part, dataset.num_classes, dataset.label_names, "the training data")


def _check_labels(dataset: Dataset, num_classes: int, names: tuple[str, ...] | None, where: str) -> None:
    if dataset.labels is None:
        return
    if dataset.label_names is not None and names is not None and tuple(dataset.label_names) != tuple(names):
        extra, lacking = sorted(set(dataset.label_names) - set(names)), sorted(set(names) - set(dataset.label_names))
        how = f"extra {extra[:3]}, lacking {lacking[:3]}" if extra or lacking else "the same names in another order"
        raise InputError(f"`label_names` of {dataset.name} must be those of {where}; got {how}. Use one list of names.")
    outside = (dataset.labels < 0) | (dataset.labels >= num_classes)
    if outside.any():
        row = int(outside.nonzero()[0][0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}), the classes of {where}; got {int(dataset.labels[row])} at "
            f"{str(dataset.ids[row])!r} of {dataset.name}. Re-index them, or drop the labels."
        )


def _weights_for(
    dataset: Dataset, settings: TrainingSettings, difficulty: DifficultyTable | str | Path | None
) -> tuple[Float[Tensor, " n"] | None, str | None]:
    """The weights in the data's order and their digest; None where the loss takes none."""
    if not LOSSES[settings.loss].needs_weights:
        return None, None
    if difficulty is None:
        raise InputError(
            f"`difficulty` must be given for the loss {settings.loss!r}; got None. Make it with "
            f"`diffident score FEATURES --out difficulty.parquet`, then add --difficulty difficulty.parquet."
        )
    if not isinstance(difficulty, DifficultyTable):
        difficulty = read_difficulty_table(difficulty)
    rows = positions_of(difficulty.ids, dataset.ids, what=dataset.name, where="the difficulty table")
    if len(set(rows.tolist())) != len(rows):
        raise IdMismatchError(
            f"`ids` of {dataset.name} must be unique; some occur twice. Give every sample its own id."
        )
    differ = (difficulty.labels[rows] != dataset.labels).nonzero()[0]
    if len(differ):
        first = ", ".join(repr(str(dataset.ids[row])) for row in differ[:3])
        raise InputError(
            f"`difficulty` must be scored on the labels of {dataset.name}; {len(differ)} of {len(rows)} differ: first "
            f"{first}. Score it again on these labels."
        )
    values = torch.from_numpy(np.array(difficulty.difficulty[rows], dtype=np.float64))
    weights = difficulty_weights(values, normalizer=settings.normalizer, temperature=settings.temperature).float()
    return weights, hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:16]


def _describe(dataset: Dataset, digest: str | None) -> dict[str, Any]:
    """The `[data]` table: what the run was trained on."""
    labels = np.asarray(dataset.labels, dtype=np.int64).tobytes()
    return {
        "name": dataset.name,
        "modality": dataset.modality,
        "num_samples": len(dataset),
        "num_classes": dataset.num_classes,
        "label_names": dataset.label_names,
        "ids": hashlib.sha256("\n".join(map(str, dataset.ids)).encode()).hexdigest()[:16],
        "labels": hashlib.sha256(labels).hexdigest()[:16],
        "fingerprint": dataset.fingerprint,
        "weights": digest,
    }


def _claim(out: Path, settings: TrainingSettings, config: str, resume: bool) -> RunFolder:
    """The run at `out`: new, or the one to go on with."""
    used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if used and not resume:
        raise InputError(f"`out` must be new; {out} exists. Use --resume to go on with it, or another --out.")
    if not used:
        write_text(out / "config.toml", config)
        return open_run(out, unfinished=True)
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
    return run


def _data_of(config: str) -> dict[str, Any]:
    return tomllib.loads(config)["data"]


def _restore(out: Path, model: nn.Module, optimizer: Any) -> list[dict]:
    file = out / "checkpoint" / "last.pt"
    if not file.exists():
        return []
    state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["lines"]


def _save_checkpoint(out: Path, model: nn.Module, optimizer: Any, lines: list[dict]) -> None:
    with atomic_path(out / "checkpoint" / "last.pt") as temporary:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "lines": lines}, temporary)
    write_text(out / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _save_transformers_config(model: nn.Module, out: Path) -> None:
    config = getattr(getattr(model, "model", None), "config", None)
    if config is not None and hasattr(config, "save_pretrained"):
        config.save_pretrained(str(out / "tokenizer"))


def _environment(fabric: Fabric, seconds: float) -> dict[str, Any]:
    return {
        "diffident": diffident.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": str(fabric.device),
        "num_threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
    }
