"""Weather."""

import numpy as np
from jaxtyping import Float

from diffident.corruptions.blur import enlarged
from diffident.corruptions.fields import Field, Number, Pixels, filtered, plasma, smoothed, streak

_RED_GREEN_BLUE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_ICE = np.array([0.88, 1.0, 1.06], dtype=np.float32)
_DIRECTIONS = 8


def snow(pixels: Pixels, level: tuple[Number, ...], generator: np.random.Generator) -> Pixels:
    """A paler image with flakes that fall aslant, and the same flakes turned by half a turn."""
    mean, spread, factor, threshold, radius, streak_spread, share = level
    flakes = generator.normal(mean, spread, pixels.shape[:2]).astype(np.float32)[:, :, None]
    flakes = enlarged(flakes, factor)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    angle = np.deg2rad(generator.uniform(-135, -45))
    flakes = filtered(flakes, streak(int(radius), streak_spread, angle), "edge")
    pale = np.maximum(pixels, 1.5 * _grey(pixels) + 0.5)
    return share * pixels + (1 - share) * pale + flakes + flakes[::-1, ::-1]


def frost(pixels: Pixels, level: tuple[Number, Number], generator: np.random.Generator) -> Pixels:
    """The image dimmed, and ice laid over it.

    The ice is made here, of needles on clouds, with the mean and spread of the authors' six photographs; theirs are not
    shipped.
    """
    height, width, _ = pixels.shape
    ice = _ice(height, width, generator)[:, :, None]
    if pixels.shape[2] == 3:
        ice = ice * _ICE
    return level[0] * pixels + level[1] * ice.clip(0, 1)


def fog(pixels: Pixels, level: tuple[Number, Number], generator: np.random.Generator) -> Pixels:
    """Fractal noise added, and the whole brought back to the largest value of the image."""
    amount, decay = level
    largest = float(pixels.max())
    height, width, _ = pixels.shape
    clouds = plasma(height, width, decay, generator)
    return (pixels + amount * clouds[:, :, None]) * (largest / (largest + amount))


def _grey(pixels: Pixels) -> Float[np.ndarray, "h w 1"]:
    return (pixels @ _RED_GREEN_BLUE)[:, :, None] if pixels.shape[2] == 3 else pixels


def _ice(height: int, width: int, generator: np.random.Generator) -> Field:
    """Needles, in every patch mostly in one direction, on clouds; mean from 0.35 to 0.8."""
    side = max(min(height, width), 8)
    needles = np.zeros((height, width, 1), dtype=np.float32)
    for _ in range(_DIRECTIONS):
        seeds = (generator.random((height, width, 1)) < 0.02).astype(np.float32)
        patches = plasma(height, width, 1.5, generator)[:, :, None] ** 4
        angle = generator.uniform(0, 2 * np.pi)
        needles += filtered(seeds * patches, streak(max(2, side // 20), side / 25, angle), "symmetric")
    needles = smoothed(needles, 0.4)[:, :, 0]
    needles = (needles - needles.mean()) / max(float(needles.std()), 1e-6)
    clouds = plasma(height, width, 2, generator) - 0.5
    return generator.uniform(0.35, 0.8) + 0.1 * needles + 0.3 * clouds
