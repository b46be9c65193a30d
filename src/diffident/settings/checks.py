"""What is wrong with settings, as one sentence a fault."""

import dataclasses
import math
import types
import typing
from typing import Any

from diffident.errors import InputError, did_you_mean
from diffident.losses import LOSSES, make_loss
from diffident.settings.defaults import EXAMPLES, MODEL_PREFIXES, MODELS, options_of_loss

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
    "doubt": (0, 0.99, False),
    "others": (0, 1, False),
    "temperature": (0, math.inf, True),
    "curriculum": (0, 1, False),
    "soft_targets": (0, 1, False),
    "smoothing": (0, 1, False),
    "gamma": (0, math.inf, False),
    "gamma_low": (0, math.inf, False),
    "epsilon": (-1, math.inf, False),
    "margin": (0, math.inf, False),
    "eta": (0, math.inf, False),
    "num_bins": (1, 10000, False),
    "bin_temperature": (0, math.inf, True),
    "mixup": (0, math.inf, False),
    "mixup_until": (0, 1, False),
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
_MEND = "Leave it out for its default."


def loss_faults(values: dict[str, Any], fields: dict[str, dataclasses.Field]) -> list[str]:
    """What does not go together with the loss; nothing where the loss itself is unknown.

    Args:
        values: Settings by name, maybe wrong by themselves.
        fields: Of the settings, by name.
    """
    loss, preset = values.get("loss", "cross-entropy"), values.get("preset", "none")
    if loss not in LOSSES:
        return []
    kind, faults = LOSSES[loss], []
    having = [name for name, other in LOSSES.items() if preset in other.presets]
    if having and loss not in having:
        faults.append(f"`preset` must be one of the loss {loss!r}; got {preset!r}. Take it with loss={having[0]}.")
    faults.extend(_mixing_faults(loss, values, fields))
    faults.extend(_curriculum_faults(loss, values, fields))
    faults.extend(_restart_faults(loss, values))
    soft = values.get("soft_targets", 0)
    if soft and not value_faults(fields["soft_targets"], soft) and not kind.needs_weights:
        faults.append(
            f"`soft_targets` must be 0 with the loss {loss!r}, which is given no difficulty; got {soft}. For "
            "cross-entropy with them: --loss difficulty-aware --set doubt=0."
        )
    for setting in ("accumulation", "devices") if kind.couples else ():
        if values.get(setting, 1) != 1:
            faults.append(
                f"`{setting}` must be 1 with the loss {loss!r}, which compares the samples of a batch; got "
                f"{values[setting]}."
            )
    options: dict[str, Any] = {
        key: value for key, value in options_of_loss(loss, values).items() if not value_faults(fields[key], value)
    }
    try:
        make_loss(loss, **options)
    except InputError as error:
        faults.append(str(error))
    return faults


def _mixing_faults(loss: str, values: dict[str, Any], fields: dict[str, dataclasses.Field]) -> list[str]:
    """What does not go with mixtures of samples, of the loss or of the setting `mixup`."""
    kind, model, mixup = LOSSES[loss], values.get("model", ""), values.get("mixup", 0)
    if not mixup or value_faults(fields["mixup"], mixup):
        mixup = 0
    if mixup and (kind.mixes or kind.couples):
        why = "has its own alpha" if kind.mixes else "compares the samples of a batch"
        return [f"`mixup` must be 0 with the loss {loss!r}, which {why}; got {mixup}. Leave it out."]
    faults, until = [], values.get("mixup_until", 1)
    if not mixup and until != 1 and not value_faults(fields["mixup_until"], until):
        faults.append(f"`mixup_until` must be 1 without mixup; got {until}. Set mixup, for example to 1, with it.")
    if (kind.mixes or mixup) and model == "ngrams":
        what = f"`loss` must not mix inputs where these are texts; got {loss!r}"
        what = what if kind.mixes else f"`mixup` must be 0 where inputs are texts; got {mixup}"
        faults.append(f"{what} with model {model!r}. {'Take another loss.' if kind.mixes else 'Leave it out.'}")
    if (loss == "mixup" or mixup) and values.get("dynamics") is True:
        faults.append(
            "`dynamics` must be false with mixup, which shows the model no sample as it is; got true. Leave one out."
        )
    return faults


def _curriculum_faults(loss: str, values: dict[str, Any], fields: dict[str, dataclasses.Field]) -> list[str]:
    """What does not go with easy samples first."""
    curriculum = values.get("curriculum")
    if not curriculum or value_faults(fields["curriculum"], curriculum):
        return []
    faults = []
    if not LOSSES[loss].needs_weights:
        faults.append(
            f"`curriculum` must be 0 with the loss {loss!r}, which is given no difficulty; got {curriculum}. For "
            "cross-entropy with one: --loss difficulty-aware --set doubt=0."
        )
    if values.get("normalizer") == "none":
        faults.append(
            "`normalizer` must not be none with a curriculum, as many weights are then 0, and their samples in no "
            "order; got none. Leave it out for rank."
        )
    if values.get("dynamics") is True:
        faults.append(
            "`dynamics` must be false with a curriculum, whose first epochs do not show every sample; got true. Leave "
            "one out."
        )
    return faults


def _restart_faults(loss: str, values: dict[str, Any]) -> list[str]:
    """What does not go with beginning anew on mixtures of soft targets."""
    if values.get("restart") is not True:
        return []
    faults = []
    if not LOSSES[loss].needs_weights:
        faults.append(
            f"`restart` must be false with the loss {loss!r}, which is given no difficulty; got true. Leave it out."
        )
    if values.get("model") == "ngrams":
        faults.append("`restart` must be false where inputs are texts, which cannot be mixed; got true. Leave it out.")
    beside = [name for name in ("mixup", "soft_targets", "dynamics") if values.get(name)]
    if beside:
        faults.append(f"`restart` must be false beside {', '.join(beside)}; got true. Leave one out.")
    return faults


def kind_of(field: dataclasses.Field) -> Any:
    """The type of a setting; of `float | None` the number."""
    if not isinstance(field.type, types.UnionType):
        return field.type
    return next(kind for kind in typing.get_args(field.type) if kind is not type(None))


def value_faults(field: dataclasses.Field, value: Any, where: str = "") -> list[str]:
    """What is wrong with one setting by itself: its type, its range, its name; ` in FILE` says where it stands."""
    if value is None and field.default is None:
        return []
    kind = kind_of(field)
    if typing.get_origin(kind) is tuple and value is not None:
        return [fault for one in value for fault in _single_faults(field.name, one, typing.get_args(kind)[0], where)]
    return _single_faults(field.name, value, kind, where)


def _single_faults(key: str, value: Any, kind: Any, where: str) -> list[str]:
    allowed = (int, float) if kind is float else kind  # a whole number is a number
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        mend = "For example: mlp." if key == "model" else _MEND
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        return [f"`{key}` must be {words[kind]}; got {value!r}{where}. {mend}"]
    return _range_faults(key, value, where)


def _range_faults(key: str, value: Any, where: str) -> list[str]:
    if key == "model":
        if value in MODEL_PREFIXES:
            return [f"`model` must have a name after {value!r}; got none{where}. For example: {EXAMPLES[value]}."]
        if value not in MODELS and not value.startswith(MODEL_PREFIXES):
            near = did_you_mean(value, MODELS + MODEL_PREFIXES)
            return [f"`model` must be a known name; got {value!r}{where}. {near}"]
    if key in _CHOICES and value not in _CHOICES[key]:
        return [f"`{key}` must be a known name; got {value!r}{where}. {did_you_mean(value, _CHOICES[key])}"]
    if key in _RANGES:
        low, high, strict = _RANGES[key]
        number: Any = value
        inside = math.isfinite(number) and (number > low if strict else number >= low) and number <= high
        if not inside:
            bound = f"{'above' if strict else 'at least'} {low}" + ("" if math.isinf(high) else f" and at most {high}")
            return [f"`{key}` must be {bound}; got {value}{where}. {_MEND}"]
    return []


def raise_faults(faults: list[str]) -> None:
    """Raise one `InputError` of all faults, if there are any."""
    if faults:
        raise InputError(faults[0] if len(faults) == 1 else f"{len(faults)} settings are wrong. " + " ".join(faults))
