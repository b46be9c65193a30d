"""Distort rendered characters, so that the encoder sees shapes rather than typefaces."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from diffident.encoders.glyph_network import SIDE


def augment(images: Tensor, generator: Generator) -> Tensor:
    """Distort at random: uint8 [n, 48, 48] to [n, 1, 32, 32] in [0, 1]."""
    n = len(images)
    x = thicken(images[:, None].float() / 255, generator)
    x = F.grid_sample(x, random_grid(n, generator), align_corners=False)
    x = coarsen(x, generator)
    noise = 0.04 * torch.randn(x.shape, generator=generator) * torch.rand(n, 1, 1, 1, generator=generator)
    x = x * (0.7 + 0.3 * torch.rand(n, 1, 1, 1, generator=generator)) + noise
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-3)


def thicken(x: Tensor, generator: Generator) -> Tensor:
    """Strokes a pixel or two wider on each side, or one narrower."""
    choice = torch.rand(len(x), 1, 1, 1, generator=generator)
    x = torch.where(choice > 0.55, F.max_pool2d(x, 3, 1, 1), x)
    x = torch.where(choice > 0.8, F.max_pool2d(x, 3, 1, 1), x)
    return torch.where(choice < 0.12, -F.max_pool2d(-x, 3, 1, 1), x)


def random_grid(n: int, generator: Generator) -> Tensor:
    """Where each pixel is taken from: rotation, shear, scale, shift and a smooth bend; [n, 32, 32, 2]."""
    angle, shear = torch.randn(n, generator=generator) * 0.17, torch.randn(n, generator=generator) * 0.2
    scale = 1 / (0.85 + 0.35 * torch.rand(n, 2, generator=generator))
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([torch.stack([cos, -sin + shear], 1), torch.stack([sin, cos], 1)], 1) * scale[:, None]
    maps = torch.cat([rotation, torch.randn(n, 2, 1, generator=generator) * 0.06], dim=2)
    bends = F.interpolate(torch.randn(n, 2, 4, 4, generator=generator) * 0.07, size=(SIDE, SIDE), mode="bicubic")
    return F.affine_grid(maps, [n, 1, SIDE, SIDE], align_corners=False) + bends.permute(0, 2, 3, 1)


def coarsen(x: Tensor, generator: Generator) -> Tensor:
    """Two images in three pass through a resolution of 7 to 16 pixels in 16 grey levels."""
    parts = []
    for part in x.split(64):
        if torch.rand((), generator=generator) < 0.67:
            side = int(torch.randint(7, 17, (), generator=generator))
            small = (F.adaptive_avg_pool2d(part, side) * 16).round() / 16
            part = F.interpolate(small, size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
        parts.append(part)
    return torch.cat(parts)
