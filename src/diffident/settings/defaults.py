"""What a setting is where it is not given: by model and by loss."""

from collections.abc import Iterable
from typing import Any

from diffident.difficulties.weights import TEMPERATURE
from diffident.errors import InputError
from diffident.losses import LOSSES

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
_USED_BY = {
    "width": ("model", MODELS),
    "dropout": ("model", ("mlp", "ngrams", "wrn-28-10")),
    "min_count": ("model", ("ngrams",)),
    "max_length": ("model", ("ngrams", "transformers:")),
    "pretrained": ("model", ("timm:", "torchvision:", "transformers:")),
    "image_size": ("model", (*(name for name in MODELS if name != "ngrams"), *MODEL_PREFIXES)),
    "milestones": ("schedule", ("step",)),
    "step_factor": ("schedule", ("step",)),
}
"""Settings that some models, named or by their prefix, or some schedules alone have a use for."""
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
# A network on an encoder's features cannot learn what the encoder does not know, and is unsure of few samples for good
# reasons; one that is fine-tuned has such features to begin with. One that learns from the samples alone gains from a
# bonus for more of them, on the whole entropy, until it learns its labels by heart; words always (docs/method.md).
_ON_FEATURES = "mlp"
_ON_WORDS = "ngrams"
_TEMPERATURE_ON_FEATURES = 0.3
_OTHERS_ON_FEATURES = 0.2
_FINE_TUNED = ("timm:", "torchvision:", "transformers:")
# A network that must find its features in images gains from every sample whose class is probably known. Most others
# rank worse with the wrong ones among those classes than without the samples (docs/method.md).
_FROM_IMAGES = ("cnn-small", "densenet-bc", "resnet18-32px", "resnet34-32px", "resnet50-32px", "wrn-28-10")
_FROM_IMAGES_UNLESS_PRETRAINED = ("timm:", "torchvision:")
EXAMPLES = {
    "python:": "python:my_models:small_cnn",
    "timm:": "timm:resnet18",
    "torchvision:": "torchvision:resnet18",
    "transformers:": "transformers:distilbert-base-uncased",
}


def defaults_of_model(model: str) -> dict[str, Any]:
    """Those of the model, or of its prefix; one that is unknown gets those of own models."""
    prefix = next((prefix for prefix in MODEL_PREFIXES if model.startswith(prefix)), model)
    return _DEFAULTS.get(prefix, _DEFAULTS["python:"])


def unused_by(values: dict[str, Any], names: Iterable[str]) -> dict[str, list[str]]:
    """Which of these settings the model or the schedule has no use for, by that setting: `model` or `schedule`."""
    found: dict[str, list[str]] = {}
    for name in names:
        decides, users = _USED_BY.get(name, ("", ()))
        if decides and not any(
            values[decides] == user or (user.endswith(":") and values[decides].startswith(user)) for user in users
        ):
            found.setdefault(decides, []).append(name)
    return found


def defaults_of_loss(loss: str, preset: str, given: dict[str, Any]) -> dict[str, Any]:
    """Those of weights, which follow the model, the preset's, and the loss's own beside the settings that are given."""
    if loss not in LOSSES:
        return {}
    kind = LOSSES[loss]
    of_preset = dict(kind.presets.get(preset, {}))
    if given.get("doubt") is not None:  # takes the place of an alpha
        of_preset.pop("alpha", None)
    chosen = {**of_preset, **options_of_loss(loss, given)}
    try:
        own = kind.resolved(**options_of_loss(loss, chosen))
    except (InputError, TypeError):  # what is wrong with them is told by the checks of all settings
        own = {}
    if kind.learnt is not None and kind.learnt not in chosen:
        own.pop(kind.learnt, None)
    # Without weights a temperature means nothing: it stays what it was, so that earlier runs can be resumed.
    on_features = is_on_features(given) or is_fine_tuned(given)
    temperature = _TEMPERATURE_ON_FEATURES if on_features or not kind.needs_weights else TEMPERATURE
    if "others" in own and "others" not in chosen and chosen.get("alpha") is None and given["model"] != _ON_WORDS:
        own["others"] = _OTHERS_ON_FEATURES if on_features else None
    of_weights = {"temperature": temperature, "normalizer": "rank", "distrust": True, **of_preset}
    distrust = of_weights["distrust"] if given.get("distrust") is None else given["distrust"]
    relabel = bool(distrust) and kind.needs_weights and finds_features_in_images(given)
    return {**of_weights, "relabel": relabel, **own}


def is_on_features(given: dict[str, Any]) -> bool:
    """Whether the settings are of a model that sees an encoder's features."""
    return given["model"] == _ON_FEATURES


def learns_in_few_epochs(given: dict[str, Any]) -> bool:
    """Whether the settings are of a model whose inputs are features or words, which it need not find first."""
    return given["model"] in (_ON_FEATURES, _ON_WORDS)


def is_fine_tuned(given: dict[str, Any]) -> bool:
    """Whether the settings are of a model that starts from pre-trained weights."""
    return bool(given["pretrained"]) and given["model"].startswith(_FINE_TUNED)


def finds_features_in_images(given: dict[str, Any]) -> bool:
    """Whether the settings are of a model that starts from images and random weights."""
    model = given["model"]
    return model in _FROM_IMAGES or (not given["pretrained"] and model.startswith(_FROM_IMAGES_UNLESS_PRETRAINED))


def options_of_loss(loss: str, values: dict[str, Any]) -> dict[str, Any]:
    """The settings that are options of the loss, as far as they are given."""
    return {option: values[option] for option in LOSSES[loss].options if values.get(option) is not None}
