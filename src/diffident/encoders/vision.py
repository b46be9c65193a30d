"""Image encoders: any network with its preprocessing; timm and open_clip by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor, nn

from diffident.devices import resolve_device
from diffident.encoders.common import (
    autocast,
    describe_model,
    digest_parts,
    freeze,
    loading,
    plain_repr,
    resolve_precision,
)
from diffident.encoders.digests import digest_callable
from diffident.errors import InputError, MissingDependencyError, did_you_mean


class ImageEncoder:
    """Any image model with its preprocessing.

    Where the transform ends in `ToTensor` and `Normalize`, as those of timm and open_clip do, that part is done in
    another way, with the same numbers to the last bit: on an accelerator for the whole batch, so that bytes are moved
    and not floats; on the CPU by NumPy while the image is prepared, because torch's threads would wait for the workers.

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
        self._normalizes_early = self._device.type == "cpu"
        self._forward = forward or (lambda network, images: network(images))

    def prepare(self, sample: Image.Image) -> Shaped[Tensor, "_ _ _"]:
        """The model's own preprocessing of one image, [3, h, w]; [h, w, 3] where normalisation was split off."""
        image = self._transform(sample.convert("RGB"))
        if self._moments is None:
            return image
        pixels = np.array(image)
        if self._normalizes_early:
            pixels = _normalize(pixels.astype(np.float32), *_rows(self._moments, pixels.shape[1]))
        return torch.from_numpy(pixels)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """Features of prepared images, float32 on the CPU."""
        images = self._stacked(batch)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        with autocast(self._device, self._dtype):
            features = self._forward(self._model, images.contiguous(memory_format=layout))
        return features.float().flatten(1).cpu()

    def _stacked(self, batch: Sequence[Tensor]) -> Float[Tensor, "n 3 h w"]:
        if self._moments is None:
            return torch.stack(list(batch)).to(self._device)
        if self._normalizes_early:
            return torch.from_numpy(np.stack([image.numpy() for image in batch])).permute(0, 3, 1, 2)
        images = torch.stack(list(batch)).to(self._device)
        rows = (torch.from_numpy(row).to(self._device) for row in _rows(self._moments, images.shape[2]))
        return _normalize(images.float(), *rows).permute(0, 3, 1, 2)


def _split_transform(transform: Callable) -> tuple[Callable, tuple[np.ndarray, np.ndarray] | None]:
    """The transform up to `ToTensor`, and the mean and deviation of the normalisation after it; or it all and None."""
    if not type(transform).__module__.startswith("torchvision."):
        return transform, None
    from torchvision.transforms import Compose, Normalize, ToTensor

    steps = transform.transforms if isinstance(transform, Compose) else []
    if len(steps) >= 2 and isinstance(steps[-2], ToTensor) and type(steps[-1]) is Normalize:
        moments = [np.asarray(moment, dtype=np.float32).reshape(-1) for moment in (steps[-1].mean, steps[-1].std)]
        if all(moment.size in (1, 3) for moment in moments):
            mean, std = (np.broadcast_to(moment, 3) for moment in moments)
            return Compose(steps[:-2]), (mean, std)
    return transform, None


def _rows(moments: tuple[np.ndarray, np.ndarray], width: int) -> list[np.ndarray]:
    """The moments for each pixel of a row: broadcasting over three numbers is ten times slower."""
    return [np.tile(moment, (width, 1)) for moment in moments]


def _normalize(pixels: Any, mean: Any, std: Any) -> Any:
    """What `ToTensor` and `Normalize` do, in their order, to float32 arrays or tensors [..., h, w, 3], in place."""
    pixels /= 255
    pixels -= mean
    pixels /= std
    return pixels


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
    architecture, tag = split_tag(name, open_clip)
    options: dict[str, Any] = {}
    if image_size is not None:
        options = {"force_image_size": image_size, "image_resize_mode": "squash"}
    with loading(f"open_clip:{name if tag is None or not Path(tag).exists() else tag}"):
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained=tag, **options)
    return from_open_clip(
        model, transform, name=f"open_clip:{name}", device=device, precision=precision, image_size=image_size
    )


def split_tag(name: str, open_clip: Any) -> tuple[str, str | None]:
    """Architecture, and tag or checkpoint, of an open_clip name; `hf-hub:` and `local-dir:` names have no tag."""
    if name.startswith(("hf-hub:", "local-dir:")):
        return name, None
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
