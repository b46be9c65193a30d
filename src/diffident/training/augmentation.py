"""Random changes of training images, in batches of tensors."""

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

from diffident.settings import TrainingSettings

_CROP_FRACTION = 8
_LEAST_SIDE = 16


def augments(settings: TrainingSettings, inputs: Shaped[Tensor, "n ..."]) -> bool:
    """Whether these inputs are augmented: images, and with `auto` RGB images of 16 px and more."""
    if settings.augment == "none" or inputs.dtype != torch.uint8:
        return False
    return settings.augment == "crop-flip" or (inputs.shape[1] == 3 and min(inputs.shape[2:]) >= _LEAST_SIDE)


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
