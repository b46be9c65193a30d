"""Image encoders: timm, open_clip and the vision models of transformers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from diffident.encoders.common import autocast, fingerprint, freeze, loading, resolve_device, resolve_precision
from diffident.errors import InputError, MissingDependencyError, did_you_mean


class ImageEncoder:
    """Any image model with its preprocessing.

    Args:
        model: The network.
        transform: PIL image (RGB) to a tensor [3, h, w].
        name: As it shall be known.
        forward: Model and images [n, 3, h, w] to features [n, d] (default: call the model).
        device: `auto`, `cpu`, `cuda`, ...
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        description: What else changes a feature, for the fingerprint (default: the transform's repr).
    """

    modality = "image"

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        *,
        name: str,
        forward: Callable[[Any, Tensor], Tensor] | None = None,
        device: str = "auto",
        precision: str = "auto",
        description: Any = None,
    ):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self.fingerprint = fingerprint(model, [name, description or repr(transform), str(self._dtype)])
        has_convolutions = any(
            isinstance(module, nn.Conv2d) and module.kernel_size != module.stride for module in model.modules()
        )
        self._channels_last = has_convolutions
        self._model = freeze(model, self._device, channels_last=has_convolutions)
        self._transform = transform
        self._forward = forward or (lambda network, images: network(images))

    def prepare(self, sample: Image.Image) -> Tensor:
        """The model's own preprocessing of one image, [3, h, w]."""
        return self._transform(sample.convert("RGB"))

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """Features of prepared images, float32 on the CPU."""
        images = torch.stack(list(batch)).to(self._device, non_blocking=True)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._dtype):
            features = self._forward(self._model, images)
        return features.float().flatten(1).cpu()


def open_timm(name: str, *, device: str, image_size: int | None, precision: str) -> ImageEncoder:
    """A timm model with its own preprocessing; `image_size` resizes the whole picture to N x N instead."""
    try:
        import timm
        from timm.data import create_transform, resolve_model_data_config
    except ImportError:
        raise MissingDependencyError(
            "`timm:` must have the library timm. Install it: pip install 'diffident[vision]'."
        ) from None
    known = timm.list_models()
    if ":" not in name and name.split(".")[0] not in known:
        hint = did_you_mean(name, known).split("Choices:")[0]
        raise InputError(
            f"`timm:` must be followed by a model of timm's; got `{name}`. {hint}List: timm.list_models()."
        )
    options: dict[str, Any] = {}
    if image_size is not None and "vit" in name:
        options = {"img_size": image_size}
    with loading(f"timm:{name}"):
        model = timm.create_model(name, pretrained=True, num_classes=0, **options)
    config = resolve_model_data_config(model)
    if image_size is not None:
        config |= {"input_size": (3, image_size, image_size), "crop_pct": 1.0, "crop_mode": "squash"}
    transform: Any = create_transform(**config, is_training=False)
    return ImageEncoder(model, transform, name=f"timm:{name}", device=device, precision=precision)


def open_clip_encoder(name: str, *, device: str, image_size: int | None, precision: str) -> ImageEncoder:
    """The image tower of an open_clip model, `ARCH/TAG`."""
    try:
        import open_clip
    except ImportError:
        raise MissingDependencyError(
            "`open_clip:` must have open_clip_torch. Install it: pip install 'diffident[vision]'."
        ) from None
    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        hint = did_you_mean(architecture, open_clip.list_models()).split("Choices:")[0]
        raise InputError(
            f"`open_clip:` must be followed by ARCH/TAG; got `{name}`. {hint}List: open_clip.list_pretrained()."
        )
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise InputError(f"`open_clip:` must be followed by ARCH/TAG; got `{name}`. Tags of {architecture}: {tags}.")
    with loading(f"open_clip:{name}"):
        options: dict[str, Any] = {"force_image_size": image_size} if image_size else {}
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=tag, **options)
    return from_open_clip(model, transform, name=f"open_clip:{name}", device=device, precision=precision)


def from_open_clip(
    model: nn.Module, transform: Any, *, name: str, device: str = "auto", precision: str = "auto"
) -> ImageEncoder:
    """An open_clip model that is there already."""
    return ImageEncoder(
        model, transform, name=name, forward=lambda clip, x: clip.encode_image(x), device=device, precision=precision
    )


def from_transformers_vision(
    model: nn.Module, processor: Any, *, name: str, device: str = "auto", precision: str = "auto"
) -> ImageEncoder:
    """A vision model of transformers that is there already; pooled output, else the mean over positions."""
    return ImageEncoder(
        model,
        lambda image: processor(images=image, return_tensors="pt")["pixel_values"][0],
        name=name,
        forward=_pooled,
        device=device,
        precision=precision,
        description=processor.to_json_string() if hasattr(processor, "to_json_string") else repr(processor),
    )


def _pooled(model: Any, images: Tensor) -> Tensor:
    if hasattr(model, "get_image_features"):
        features = model.get_image_features(pixel_values=images)
        return features if isinstance(features, Tensor) else features.pooler_output
    output = model(pixel_values=images)
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state.mean(dim=1) if pooled is None else pooled
