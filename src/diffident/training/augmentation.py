"""Random changes of training images, in batches of tensors."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn import functional

from diffident.models import Preprocessor
from diffident.settings import TrainingSettings

_CROP_FRACTION = 8
_LEAST_SIDE = 16


def augments(settings: TrainingSettings, preprocessor: Preprocessor) -> bool:
    """Whether what is prepared so is augmented: images, and with `auto` RGB images of 16 px and more."""
    if settings.augment == "none" or preprocessor.kind != "image":
        return False
    channels, *sides = preprocessor.shape
    return settings.augment == "crop-flip" or (channels == 3 and min(sides) >= _LEAST_SIDE)


@dataclass(frozen=True)
class CropAndFlip:
    """Where every image of a batch is cropped and whether it is flipped.

    Drawn for a whole batch, so that its parts are changed alike however it is split among steps and processes.

    Attributes:
        top: In [0, 1), how far down the crop begins (n, 1).
        left: In [0, 1), how far to the right it begins (n, 1).
        flip: Whether left and right are swapped (n, 1).
    """

    top: Shaped[Tensor, "n 1"]
    left: Shaped[Tensor, "n 1"]
    flip: Bool[Tensor, "n 1"]

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> "CropAndFlip":
        """Changes for `count` images."""
        top, left, flip = (torch.rand(count, 1, generator=generator) for _ in range(3))
        return cls(top, left, flip < 0.5)

    def rows(self, positions: Int[Tensor, " b"]) -> "CropAndFlip":
        """Those of some of the batch's images."""
        return CropAndFlip(self.top[positions], self.left[positions], self.flip[positions])

    def apply(self, images: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "n c h w"]:
        """Pad by an eighth of the height with zeros, crop, and flip: each image on its own."""
        count, channels, height, width = images.shape
        pad = max(1, height // _CROP_FRACTION)
        top, left = ((share * (2 * pad + 1)).long() for share in (self.top, self.left))
        columns = torch.arange(width).expand(count, width)
        columns = torch.where(self.flip, width - 1 - columns, columns) + left
        rows = (torch.arange(height) + top).to(images.device)
        padded = functional.pad(images, (pad, pad, pad, pad))
        samples = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[samples, channel, rows[:, None, :, None], columns.to(images.device)[:, None, None, :]]
