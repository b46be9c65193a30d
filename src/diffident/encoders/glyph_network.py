"""The network of the encoder that comes with the package, and its preprocessing."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

SIDE = 32
NUM_FEATURES = 96


class GlyphNetwork(nn.Module):
    """Four convolutions and a linear layer: images [n, 1, 32, 32] in [0, 1] to features [n, 96].

    The position on the 4 x 4 grid is kept (no global pooling): where a stroke is tells characters apart.
    """

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(
            *_stage(1, 32, stride=2), *_stage(32, 64, stride=1), *_stage(64, 96, stride=2), *_stage(96, 128, stride=2)
        )
        self.project = nn.Linear(128 * 4 * 4, NUM_FEATURES)

    def forward(self, images: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n d"]:
        """Features, linear in the last layer, so that classes are spread like Gaussians."""
        return self.project(self.stages(images).flatten(1))


def _stage(num_in: int, num_out: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)]


def prepare_glyph(image: Image.Image) -> Float[Tensor, "1 32 32"]:
    """Grey levels stretched to [0, 1], ink bright: the border counts as background.

    Pictures are resized as a whole to 32 x 32, so that their shape may change. What bicubic interpolation overshoots is
    cut off at the picture's own range, not at black and white, so that contrast and brightness make no difference.
    """
    page = image.convert("L")
    levels = np.asarray(page)
    resized = page.convert("F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grey = np.asarray(resized, dtype=np.float32).clip(levels.min(), levels.max())
    low, high = grey.min(), grey.max()
    ink = (grey - low) / max(high - low, 1)
    if np.median(np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])) > 0.5:
        ink = 1 - ink
    return torch.from_numpy(ink)[None]
