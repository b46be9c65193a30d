"""Image encoders: any network with its preprocessing; timm and open_clip by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor, nn

from diffident.encoders.common import (
    autocast,
    describe_model,
    digest_parts,
    freeze,
    loading,
    plain_repr,
    resolve_device,
    resolve_precision,
)
from diffident.encoders.digests import digest_callable
from diffident.errors import InputError, MissingDependencyError, did_you_mean


class ImageEncoder:
    """Any image model with its preprocessing.

    Where the transform ends in `ToTensor` and `Normalize`, as those of timm and open_clip do, that part runs on the
    whole batch, on the model's device: the same numbers for a tenth of the time, and a quarter of the bytes to move.

    Args:
        model: The network.
        transform: PIL image (RGB) to a tensor [3, h, w].
        name: As it shall be known.
        forward: Model and images [n, 3, h, w] to features [n, d] (default: call the model).
        device: `auto`, `cpu`, `cuda`, ...
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        preprocessing: All about the transform, for the fingerprint (default: its repr).
        image_size: Side of the images, where one was asked for.
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
        preprocessing: str | None = None,
        image_size: int | None = None,
    ):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        # The repr is for people: it leaves out what a step of one's own does.
        preprocessing = preprocessing or f"{plain_repr(transform)} {digest_callable(transform)}"
        self.parts = describe_model(model, preprocessing, self._dtype, image_size=image_size)
        if forward is not None:
            self.parts["forward"] = digest_callable(forward)
        self.fingerprint = digest_parts(self.parts)
        self._channels_last = any(
            isinstance(module, nn.Conv2d) and module.kernel_size != module.stride for module in model.modules()
        )
        self._model = freeze(model, self._device, channels_last=self._channels_last)
        self._transform, self._moments = _split_transform(transform)
        self._forward = forward or (lambda network, images: network(images))

    def prepare(self, sample: Image.Image) -> Shaped[Tensor, "_ _ _"]:
        """The model's own preprocessing of one image, [3, h, w]; bytes [h, w, 3] where the rest is left to `encode`."""
        image = self._transform(sample.convert("RGB"))
        return image if self._moments is None else torch.from_numpy(np.array(image))

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """Features of prepared images, float32 on the CPU."""
        images = torch.stack(list(batch)).to(self._device)
        if self._moments is not None:
            images = _normalize(images, *self._moments)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        with autocast(self._device, self._dtype):
            features = self._forward(self._model, images.contiguous(memory_format=layout))
        return features.float().flatten(1).cpu()


def _split_transform(transform: Callable) -> tuple[Callable, tuple[Tensor, Tensor] | None]:
    """The transform up to `ToTensor`, and the mean and deviation of the normalisation after it; or it all and None."""
    if not type(transform).__module__.startswith("torchvision."):
        return transform, None
    from torchvision.transforms import Compose, Normalize, ToTensor

    steps = transform.transforms if isinstance(transform, Compose) else []
    if len(steps) >= 2 and isinstance(steps[-2], ToTensor) and type(steps[-1]) is Normalize:
        mean, std = (torch.as_tensor(moment, dtype=torch.float32) for moment in (steps[-1].mean, steps[-1].std))
        return Compose(steps[:-2]), (mean.flatten(), std.flatten())
    return transform, None


def _normalize(images: Shaped[Tensor, "n h w 3"], mean: Tensor, std: Tensor) -> Float[Tensor, "n 3 h w"]:
    """What `ToTensor` and `Normalize` do, in their order, so that the features are the same to the last bit."""
    # Whole rows of moments: torch is ten times slower at broadcasting over three numbers.
    mean, std = (moment.to(images.device).expand(images.shape[2], 3).contiguous() for moment in (mean, std))
    return images.float().div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)


def open_timm(name: str, *, device: str, image_size: int | None, precision: str) -> ImageEncoder:
    """A timm model with its own preprocessing; `image_size` resizes the whole picture to N x N instead."""
    try:
        import timm
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
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    with loading(f"timm:{name}"):
        try:
            # Models with position embeddings are made for one size and have to be told another.
            sizes: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
            model = timm.create_model(name, **options, **sizes)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            model = timm.create_model(name, **options)
    return from_timm(model, name=f"timm:{name}", device=device, image_size=image_size, precision=precision)


def from_timm(
    model: nn.Module, *, name: str, device: str = "auto", image_size: int | None = None, precision: str = "auto"
) -> ImageEncoder:
    """A timm model that is there already, made with `num_classes=0`; the preprocessing is that of its configuration."""
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(model)
    if image_size is not None:
        config |= {"input_size": (3, image_size, image_size), "crop_pct": 1.0, "crop_mode": "squash"}
    transform: Any = create_transform(**config, is_training=False)
    return ImageEncoder(model, transform, name=name, device=device, precision=precision, image_size=image_size)


def open_clip_encoder(name: str, *, device: str, image_size: int | None, precision: str) -> ImageEncoder:
    """The image tower of an open_clip model: `ARCH/TAG`, `ARCH/CHECKPOINT`, `hf-hub:NAME` or `local-dir:PATH`."""
    try:
        import open_clip
    except ImportError:
        raise MissingDependencyError(
            "`open_clip:` must have open_clip_torch. Install it: pip install 'diffident[vision]'."
        ) from None
    architecture, tag = (name, None) if name.startswith(("hf-hub:", "local-dir:")) else _split_tag(name, open_clip)
    options: dict[str, Any] = {}
    if image_size is not None:
        options = {"force_image_size": image_size, "image_resize_mode": "squash"}
    with loading(f"open_clip:{name if tag is None or not Path(tag).exists() else tag}"):
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=tag, **options)
    return from_open_clip(
        model, transform, name=f"open_clip:{name}", device=device, precision=precision, image_size=image_size
    )


def _split_tag(name: str, open_clip: Any) -> tuple[str, str]:
    from open_clip.pretrained import is_pretrained_cfg

    architecture, _, tag = name.partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        hint = did_you_mean(architecture, known).split("Choices:")[0]
        raise InputError(
            f"`open_clip:` must be followed by ARCH/TAG; got `{name}`. {hint}List: open_clip.list_pretrained()."
        )
    if not is_pretrained_cfg(architecture, tag) and not Path(tag).is_file():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        choices = f"Tags of {architecture}: {', '.join(tags)}" if tags else f"{architecture} has no tags"
        raise InputError(
            f"`open_clip:` must be followed by ARCH/TAG or ARCH/CHECKPOINT; got `{name}`. {choices}; a checkpoint is a "
            "path to a file."
        )
    return architecture, tag


def from_open_clip(
    model: nn.Module,
    transform: Any,
    *,
    name: str,
    device: str = "auto",
    precision: str = "auto",
    image_size: int | None = None,
) -> ImageEncoder:
    """An open_clip model that is there already, with its transform for validation."""
    return ImageEncoder(
        model,
        transform,
        name=name,
        forward=lambda clip, images: clip.encode_image(images),
        device=device,
        precision=precision,
        image_size=image_size,
    )
