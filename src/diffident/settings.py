"""Settings of a training run: from TOML, `key=value` and keywords; every fault is reported at once."""

import dataclasses
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffident.errors import InputError, did_you_mean
from diffident.losses import LOSSES, make_loss

MODELS = (
    "cnn-small",
    "densenet-bc",
    "mlp",
    "ngrams",
    "resnet18-32px",
    "resnet34-32px",
    "resnet50-32px",
    "wrn-28-10",
)
MODEL_PREFIXES = ("python:", "timm:", "torchvision:", "transformers:")
# By model, or its prefix. Those of `ngrams` were chosen on validation data: benchmarks/clinc150_selection.py.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "cnn-small": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.01},
    "mlp": {"epochs": 30, "learning_rate": 1e-3, "weight_decay": 0.01, "dropout": 0.3},
    "ngrams": {"epochs": 20, "learning_rate": 8e-3, "weight_decay": 0.01, "dropout": 0.5},
    "densenet-bc": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.05},
    "resnet18-32px": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.05},
    "resnet34-32px": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.05},
    "resnet50-32px": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.05},
    "wrn-28-10": {"epochs": 30, "learning_rate": 2e-3, "weight_decay": 0.05},
    "timm:": {"epochs": 10, "learning_rate": 3e-4, "weight_decay": 0.05},
    "torchvision:": {"epochs": 10, "learning_rate": 3e-4, "weight_decay": 0.05},
    "transformers:": {"epochs": 3, "learning_rate": 3e-5, "weight_decay": 0.01},
    "python:": {"epochs": 30, "learning_rate": 1e-3, "weight_decay": 0.01},
}
_EXAMPLES = {
    "python:": "python:my_models:small_cnn",
    "timm:": "timm:resnet18",
    "torchvision:": "torchvision:resnet18",
    "transformers:": "transformers:distilbert-base-uncased",
}
_CHOICES = {
    "loss": tuple(LOSSES),
    "normalizer": ("auto", "rank", "minmax", "standard", "none"),
    "preset": ("none", *sorted({name for kind in LOSSES.values() for name in kind.presets})),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "constant", "one-cycle", "step"),
    "augment": ("none", "crop-flip", "auto"),
    "loading": ("auto", "memory", "workers"),
    "loggers": ("csv", "tensorboard", "wandb", "mlflow"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("32-true", "bf16-mixed", "16-mixed", "64-true"),
}
# Least and largest value; an open bound is a strict one.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "alpha": (0, math.inf, False),
    "temperature": (0, math.inf, True),
    "smoothing": (0, 1, False),
    "gamma": (0, math.inf, False),
    "gamma_low": (0, math.inf, False),
    "epsilon": (-1, math.inf, False),
    "margin": (0, math.inf, False),
    "eta": (0, math.inf, False),
    "num_bins": (1, 10000, False),
    "bin_temperature": (0, math.inf, True),
    "epochs": (1, math.inf, False),
    "batch_size": (2, math.inf, False),
    "learning_rate": (0, math.inf, True),
    "weight_decay": (0, math.inf, False),
    "warmup": (0, 1, False),
    "milestones": (0, 1, False),
    "step_factor": (0, 1, True),
    "accumulation": (1, math.inf, False),
    "clip_norm": (0, math.inf, False),
    "ema": (0, 0.999999, False),
    "patience": (0, math.inf, False),
    "num_workers": (0, 1024, False),
    "devices": (1, 1024, False),
    "seed": (0, 2**31 - 1, False),
    "image_size": (0, 4096, False),
    "width": (0, 4096, False),
    "dropout": (0, 0.99, False),
    "min_count": (1, math.inf, False),
    "max_length": (1, 65536, False),
}


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what a run computes, besides the data.

    Attributes:
        model: A name of `MODELS`, or a prefix of `MODEL_PREFIXES` and a name.
        loss: A key of `LOSSES`.
        preset: Values of the loss's options by name: `paper` is alpha 0.3, temperature 0.7 and normalizer none of
            `difficulty-aware`. What is set beside it wins. `none` takes the loss's own defaults.
        alpha: Strength of what the loss adds to cross-entropy; of mixup and regmixup, of the Beta distribution. None of
            these numbers of losses means that the loss's own default is taken, or that it takes no such number.
        temperature: Of the weights made of difficulty; of `logit-norm`, of the logits.
        normalizer: Of the difficulty, before it becomes weights; auto is the preset's, or rank.
        smoothing: Of the labels.
        gamma: Power of the focal losses.
        gamma_low: Of `flsd`, for labels of low probability.
        epsilon: Of `poly`.
        margin: Between logits, of `mbls`.
        eta: What a mixture counts beside a sample, of `regmixup`.
        num_bins: Of `soft-ece`.
        bin_temperature: Of `soft-ece`.
        epochs: Passes over the data; 0 takes the model's default.
        batch_size: Samples a step; a last batch of one sample joins the one before.
        learning_rate: Peak rate; 0 takes the model's default.
        weight_decay: Decoupled for adamw; -1 takes the model's default.
        optimizer: adamw or sgd (Nesterov momentum 0.9).
        schedule: cosine (to zero), constant, step, or one-cycle (from a 25th up to the peak, then down to nearly zero).
        warmup: Fraction of all steps with a rising rate; -1 takes the schedule's own: 0.3 of one-cycle, else 0.05.
        milestones: Fractions of all steps after which the rate is multiplied (schedule `step`).
        step_factor: What the rate is multiplied with there.
        accumulation: Parts of a batch that go through the model one after another, to save memory; its gradient is
            that of the whole, but for batch norm and dropout.
        clip_norm: Largest norm of all gradients together; 0 is none.
        ema: Decay of the moving average of the weights, which is validated and kept in their stead; 0 is none.
        patience: Epochs without a lower validation loss after which training ends and the best weights are kept; 0 is
            none.
        augment: none, crop-flip (images), or auto (crop-flip for RGB images of 16 px and more).
        seed: Of initial weights, order, dropout and augmentation.
        device: auto, cpu, cuda or mps.
        devices: Processes that share every batch: GPUs, or processes on the CPU. Batch norm counts all of a batch.
        precision: As Lightning Fabric names it.
        compile: Whether torch.compile makes the model faster.
        channels_last: Whether images lie in memory with their channels last, which convolutions may like better.
        loading: memory (everything is prepared first), workers (images are read for every batch), or auto: memory where
            images take at most half of it. The result is the same.
        num_workers: Processes that read images for batches.
        loggers: Beside metrics.jsonl: csv, tensorboard, wandb, mlflow.
        image_size: Side in pixels to which images are resized; 0 takes the size that a model of timm or torchvision was
            made for, else the data's, at most 64.
        width: Channels of the first stage, hidden units, or the growth of densenet-bc; 0 takes the model's default.
        dropout: Before the linear layers (ngrams, mlp) or in the blocks (wrn-28-10); -1 takes the model's default.
        min_count: Texts that a 1-2-gram must occur in (ngrams).
        max_length: Largest number of grams or tokens kept of a text.
        pretrained: Whether timm, torchvision and transformers models start from downloaded weights.
        dynamics: Whether every epoch writes what it saw of every training sample, for `score --method
            training-dynamics`; the weights are the same with and without.
    """

    model: str
    loss: str = "cross-entropy"
    preset: str = "none"
    alpha: float | None = None
    temperature: float | None = None
    normalizer: str = "auto"
    smoothing: float | None = None
    gamma: float | None = None
    gamma_low: float | None = None
    epsilon: float | None = None
    margin: float | None = None
    eta: float | None = None
    num_bins: int | None = None
    bin_temperature: float | None = None
    epochs: int = 0
    batch_size: int = 128
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup: float = -1.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    step_factor: float = 0.1
    accumulation: int = 1
    clip_norm: float = 0.0
    ema: float = 0.0
    patience: int = 0
    augment: str = "none"
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool = False
    loading: str = "auto"
    num_workers: int = 2
    loggers: tuple[str, ...] = ()
    image_size: int = 0
    width: int = 0
    dropout: float = -1.0
    min_count: int = 2
    max_length: int = 512
    pretrained: bool = True
    dynamics: bool = False

    def __post_init__(self):
        warmup = 0.3 if self.schedule == "one-cycle" else 0.05
        of_loss = _defaults_of_loss(self.loss, self.preset)
        defaults = {"dropout": 0.0, "warmup": warmup, **_defaults_of(self.model), **of_loss}
        for field in dataclasses.fields(self):
            if field.name in defaults and getattr(self, field.name) == field.default:
                object.__setattr__(self, field.name, defaults[field.name])
        values = dataclasses.asdict(self)
        faults = [fault for key, value in values.items() for fault in _value_faults(key, value)]
        _raise_faults(faults or _loss_faults(values))

    @property
    def loss_options(self) -> dict[str, float]:
        """The options that the loss takes."""
        return _options_of(self.loss, vars(self))


def load_settings(
    path: str | Path | None = None, overrides: list[str] | None = None, **explicit: Any
) -> TrainingSettings:
    """Settings from a TOML file, then `key=value` texts, then keywords; the later wins.

    Args:
        path: TOML file with settings at its top level (a run's `config.toml` is one), or None.
        overrides: Such as `["alpha=0.3", "augment=crop-flip"]`.
        explicit: Settings by name; None is as if not given.

    Raises:
        InputError: one message with every unknown name, wrong type and value out of range.

    Example:
        >>> load_settings(None, ["alpha=0.3"], model="ngrams").alpha
        0.3
    """
    values = _read_toml(Path(path)) if path is not None else {}
    faults: list[str] = []
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator or not key:
            faults.append(f"`--set` must be key=value; got {override!r}. Write --set alpha=0.3.")
            continue
        values[key.strip()] = parse_value(text.strip())
    values.update({key: value for key, value in explicit.items() if value is not None})
    fields = {field.name: field for field in dataclasses.fields(TrainingSettings)}
    clean: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            faults.append(f"`{key}` must be a known setting; got {key}={value!r}. {did_you_mean(key, fields)}")
            continue
        value = _converted(value, _kind(fields[key]))
        if not (value == fields[key].default and type(value) is fields[key].type):  # may lie outside: "the model's own"
            faults.extend(_value_faults(key, value))
        clean[key] = value
    if "model" not in values:
        faults.append(f"`model` must be given; got none. Choices: {', '.join(MODELS + MODEL_PREFIXES)}.")
    if faults:
        _raise_faults(faults + _loss_faults(clean))
    return TrainingSettings(**clean)


def settings_toml(settings: TrainingSettings, **tables: dict[str, Any]) -> str:
    """The settings, then the tables, as TOML; equal input gives equal text."""
    values = dataclasses.asdict(settings)
    lines = [f"{key} = {_toml_value(value)}" for key, value in values.items() if value is not None]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {_toml_value(value)}" for key, value in table.items() if value is not None),
        ]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"`config` must be a file; {path} does not exist. Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"`config` must be a TOML file; got {path}: {error}. Mend it there.") from error
    return {key: value for key, value in values.items() if key != "data" or not isinstance(value, dict)}


def parse_value(text: str) -> Any:
    """A TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _defaults_of(model: str) -> dict[str, Any]:
    prefix = next((prefix for prefix in MODEL_PREFIXES if model.startswith(prefix)), model)
    return _DEFAULTS.get(prefix, _DEFAULTS["python:"])


def _converted(value: Any, kind: Any) -> Any:
    """Whole numbers where any number is wanted, lists and texts such as `csv,wandb` where several values are."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            value = [parse_value(part.strip()) for part in value.split(",") if part.strip()]
        several = value if isinstance(value, list | tuple) else [value]
        return tuple(_converted(one, typing.get_args(kind)[0]) for one in several)
    return float(value) if kind is float and isinstance(value, int) and not isinstance(value, bool) else value


def _options_of(loss: str, values: dict[str, Any]) -> dict[str, Any]:
    return {option: values[option] for option in LOSSES[loss].options if values.get(option) is not None}


def _defaults_of_loss(loss: str, preset: str) -> dict[str, Any]:
    """Those of weights, the loss's own, and the preset's."""
    if loss not in LOSSES:
        return {}
    kind = LOSSES[loss]
    return {"temperature": 0.7, "normalizer": "rank", **kind.defaults, **kind.presets.get(preset, {})}


def _loss_faults(values: dict[str, Any]) -> list[str]:
    """What does not go together with the loss; nothing where the loss itself is unknown."""
    loss, model, preset = values.get("loss", "cross-entropy"), values.get("model", ""), values.get("preset", "none")
    if loss not in LOSSES:
        return []
    kind, faults = LOSSES[loss], []
    having = [name for name, other in LOSSES.items() if preset in other.presets]
    if having and loss not in having:
        faults.append(f"`preset` must be one of the loss {loss!r}; got {preset!r}. Take it with loss={having[0]}.")
    if kind.mixes and isinstance(model, str) and (model == "ngrams" or model.startswith("transformers:")):
        faults.append(
            f"`loss` must not mix inputs where these are texts; got {loss!r} with model {model!r}. Take another loss."
        )
    for setting in ("accumulation", "devices") if kind.couples else ():
        if values.get(setting, 1) != 1:
            faults.append(
                f"`{setting}` must be 1 with the loss {loss!r}, which compares the samples of a batch; got "
                f"{values[setting]}."
            )
    if loss == "mixup" and values.get("dynamics") is True:
        faults.append("`dynamics` must be false with the loss 'mixup', which shows the model no sample as it is.")
    options: dict[str, Any] = {
        key: value for key, value in _options_of(loss, values).items() if not _value_faults(key, value)
    }
    try:
        make_loss(loss, **options)
    except InputError as error:
        faults.append(str(error))
    return faults


def _kind(field: dataclasses.Field) -> Any:
    """The type of a setting; of `float | None` the number."""
    if not isinstance(field.type, types.UnionType):
        return field.type
    return next(kind for kind in typing.get_args(field.type) if kind is not type(None))


def _value_faults(key: str, value: Any) -> list[str]:
    field = next(field for field in dataclasses.fields(TrainingSettings) if field.name == key)
    if value is None and field.default is None:
        return []
    kind = _kind(field)
    if typing.get_origin(kind) is tuple and value is not None:
        return [fault for one in value for fault in _single_faults(key, one, typing.get_args(kind)[0])]
    return _single_faults(key, value, kind)


def _single_faults(key: str, value: Any, kind: Any) -> list[str]:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        return [f"`{key}` must be {words[kind]}; got {value!r}."]
    return _range_faults(key, value)


def _range_faults(key: str, value: Any) -> list[str]:
    if key == "model":
        if value in MODEL_PREFIXES:
            return [f"`model` must have a name after {value!r}; got none. For example: {_EXAMPLES[value]}."]
        if value not in MODELS and not value.startswith(MODEL_PREFIXES):
            return [f"`model` must be a known name; got {value!r}. {did_you_mean(value, MODELS + MODEL_PREFIXES)}"]
    if key in _CHOICES and value not in _CHOICES[key]:
        return [f"`{key}` must be a known name; got {value!r}. {did_you_mean(value, _CHOICES[key])}"]
    if key in _RANGES:
        low, high, strict = _RANGES[key]
        number: Any = value
        inside = math.isfinite(number) and (number > low if strict else number >= low) and number <= high
        if not inside:
            bound = f"{'above' if strict else 'at least'} {low}" + ("" if math.isinf(high) else f" and at most {high}")
            return [f"`{key}` must be {bound}; got {value}."]
    return []


def _raise_faults(faults: list[str]) -> None:
    if faults:
        raise InputError(faults[0] if len(faults) == 1 else f"{len(faults)} settings are wrong. " + " ".join(faults))
