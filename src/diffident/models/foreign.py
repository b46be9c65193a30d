"""Models of timm, torchvision, transformers and your own function, and the image input that each was made for."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor, nn

from diffident.encoders.callables import import_function
from diffident.encoders.common import loading
from diffident.errors import InputError, MissingDependencyError, did_you_mean

_OFFLINE = "Name a local folder or a filled cache, or set pretrained=false."
# These have a second head for training, with an output of its own.
_TWO_HEADED = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class ImageInput:
    """What an image model was made for.

    Attributes:
        size: (height, width) in pixels.
        mean: Of each channel of the pixels in [0, 1], subtracted first.
        std: Of each channel, divided by.
        interpolation: `bilinear`, `bicubic`, ..., by which images were resized.
        channels: 3, or 1 for models of grey images.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    channels: int = 3


def image_input(model: str) -> ImageInput:
    """The input that a model of timm, torchvision or transformers was made for; no weights are fetched.

    Raises:
        InputError: no such model.
        MissingDependencyError: timm is not installed.
        UnavailableError: the model's description could not be fetched.
    """
    kind, _, name = model.partition(":")
    if kind == "timm":
        config = _timm_config(name)
        _, height, width = config["input_size"]
        return ImageInput((height, width), tuple(config["mean"]), tuple(config["std"]), config["interpolation"])
    if kind == "transformers":
        return _transformers_input(name)
    from torchvision import models

    _check_torchvision(name)
    preset: Any = models.get_model_weights(name)["DEFAULT"].transforms()
    size = (preset.crop_size * 2)[:2]
    return ImageInput((size[0], size[1]), tuple(preset.mean), tuple(preset.std), preset.interpolation.value)


def timm_model(name: str, num_classes: int, size: tuple[int, int], pretrained: bool) -> nn.Module:
    """A model of timm for images of this size, with a new head."""
    config = _timm_config(name)
    other_size = config.get("fixed_input_size") and tuple(config["input_size"][1:]) != size
    options: dict[str, Any] = {"img_size": size} if other_size else {}
    with loading(f"timm:{name}", _OFFLINE):
        return _timm().create_model(name, pretrained=pretrained, num_classes=num_classes, **options)


def torchvision_model(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    """A classifier of torchvision with a new head."""
    from torchvision import models

    _check_torchvision(name)
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _TWO_HEADED else {}
    model = models.get_model(name, num_classes=num_classes, **options)
    if pretrained:
        with loading(f"torchvision:{name}", _OFFLINE):
            state = models.get_model_weights(name)["DEFAULT"].get_state_dict(progress=False)
        own = model.state_dict()
        model.load_state_dict({k: v for k, v in state.items() if k in own and own[k].shape == v.shape}, strict=False)
    return model


def python_model(path: str, num_classes: int) -> nn.Module:
    """What `module:function` returns for the number of classes."""
    function = import_function(path, example="python:my_models:small_cnn")
    try:
        inspect.signature(function).bind(num_classes)
    except TypeError as error:
        raise InputError(
            f"`model` must take the number of classes; python:{path} does not: {error}. Give it one argument."
        ) from None
    except ValueError:  # written in C, says nothing of its arguments
        pass
    model = function(num_classes)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"`model` must return an nn.Module; got {type(model).__name__} from python:{path}. Return one."
        )
    return model


class TransformersClassifier(nn.Module):
    """A sequence classifier of transformers, called with token numbers padded with -1."""

    def __init__(self, model: Any, config: Any):
        super().__init__()
        self.model = model
        self.model.config.pad_token_id = _padding_of(config)

    def forward(self, inputs: Shaped[Tensor, "n length"]) -> Float[Tensor, "n c"]:
        """Logits of padded tokens."""
        mask = inputs >= 0
        # Decoders classify from the last token that is not the padding's.
        tokens = inputs.long().masked_fill(~mask, self.model.config.pad_token_id)
        return self.model(input_ids=tokens, attention_mask=mask.long()).logits


def transformers_model(name: str, num_classes: int, pretrained: bool, run: Path | None) -> nn.Module:
    """A sequence classifier with a new head; with `run`, the architecture that is kept there."""
    transformers = _transformers()
    with loading(f"transformers:{name}", _OFFLINE):
        source = name if run is None else str(run / "tokenizer")
        config = transformers.AutoConfig.from_pretrained(source, num_labels=num_classes)
        kind = transformers.AutoModelForSequenceClassification
        model = kind.from_pretrained(name, config=config) if pretrained else kind.from_config(config)
    return TransformersClassifier(model, config)


def _padding_of(config: Any) -> int:
    """The token that texts are padded with; where a model has none, that of the end, as is usual, or the first."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, int) and token >= 0:
            return token
    return 0


class TransformersImageClassifier(nn.Module):
    """An image classifier of transformers, called with standardised pixels."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Logits of images."""
        return self.model(pixel_values=inputs).logits


def transformers_image_model(
    name: str, num_classes: int, size: tuple[int, int], pretrained: bool, run: Path | None
) -> nn.Module:
    """An image classifier with a new head; with `run`, the architecture that is kept there.

    Raises:
        InputError: images of a size that a pretrained model with learnt positions was not made for.
    """
    transformers = _transformers()
    with loading(f"transformers:{name}", _OFFLINE):
        source = name if run is None else str(run / "tokenizer")
        config = transformers.AutoConfig.from_pretrained(source, num_labels=num_classes)
        made_for = getattr(config, "image_size", None)
        if made_for is not None and _pair(made_for) != size:
            if pretrained:
                raise InputError(
                    f"`image_size` must be {_pair(made_for)[0]}, which {name} was made for; got {size[0]}. "
                    f"Leave it out, or set pretrained=false."
                )
            config.image_size = size[0] if isinstance(made_for, int) else size
        kind = transformers.AutoModelForImageClassification
        if not pretrained:
            return TransformersImageClassifier(kind.from_config(config))
        # A head for another number of classes is left out, and made anew.
        return TransformersImageClassifier(kind.from_pretrained(name, config=config, ignore_mismatched_sizes=True))


def transformers_tokenizer(name: str) -> Any:
    """The tokenizer that belongs to a model of transformers."""
    transformers = _transformers()
    with loading(f"transformers:{name}", "Name a local folder or a filled cache."):
        return transformers.AutoTokenizer.from_pretrained(name)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError("`transformers` must be installed. Run: pip install 'diffident[text]'.") from None
    return transformers


def _transformers_input(name: str) -> ImageInput:
    transformers = _transformers()
    with loading(f"transformers:{name}", _OFFLINE):
        config = transformers.AutoConfig.from_pretrained(name)
        values = transformers.AutoImageProcessor.from_pretrained(name).to_dict()
    crop = (values.get("crop_size") if values.get("do_center_crop") else None) or values.get("size") or 224
    size = getattr(config, "image_size", None) or crop
    resample = Image.Resampling(values.get("resample") or Image.Resampling.BILINEAR).name.lower()
    mean, std = values.get("image_mean") or (0.5,), values.get("image_std") or (0.5,)
    channels = getattr(config, "num_channels", 3)
    mean, std = ((tuple(moment) * channels)[:channels] for moment in (mean, std))
    return ImageInput(_pair(size), mean, std, resample, channels)


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a side, a pair, or what processors of transformers call a size."""
    if isinstance(size, int):
        return size, size
    values: dict[str, Any] = dict(size) if hasattr(size, "keys") else {"height": size[0], "width": size[1]}
    edge: Any = values.get("shortest_edge") or values.get("longest_edge")
    return int(values.get("height") or edge), int(values.get("width") or edge)


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise MissingDependencyError("`timm` must be installed. Run: pip install 'diffident[vision]'.") from None
    return timm


def _timm_config(name: str) -> dict[str, Any]:
    timm = _timm()
    if ":" in name:  # hf-hub:, local-dir: only a built model tells
        with loading(f"timm:{name}", _OFFLINE), torch.random.fork_rng(devices=[]):
            return timm.create_model(name, pretrained=False).pretrained_cfg
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models()).split("Choices:")[0]
        raise InputError(f"`model` must be a model of timm; got {name!r}. {hint}List: timm.list_models().")
    try:
        return timm.get_pretrained_cfg(name).to_dict()
    except RuntimeError:
        tags = timm.list_pretrained(f"{architecture}.*")
        raise InputError(f"`model` must have a tag of timm's; got {tag!r} of {name!r}. Known: {tags}.") from None


def _check_torchvision(name: str) -> None:
    from torchvision import models

    choices = models.list_models(module=models)
    if name not in choices:
        raise InputError(f"`model` must be a model of torchvision; got {name!r}. {did_you_mean(name, choices)}")
