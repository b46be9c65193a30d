"""Blurs."""

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import correlate1d

from diffident.corruptions.fields import Number, Pixels, filtered, smoothed, streak


def defocus_blur(pixels: Pixels, level: tuple[Number, Number], generator: np.random.Generator) -> Pixels:
    """A disk of this radius with a softened edge."""
    return filtered(pixels, _disk(*level), "reflect")


def glass_blur(pixels: Pixels, level: tuple[Number, int, int], generator: np.random.Generator) -> Pixels:
    """Blurred, then every pixel, from the last to the first, takes the value of a near one, then blurred again.

    The paper says that the two change places; the authors' code, which made the published sets, only copies.
    """
    spread, distance, rounds = level
    height, width, _ = pixels.shape
    values = np.floor(smoothed(pixels, spread).clip(0, 1) * 255) / 255
    rows, columns = np.arange(height - distance, distance, -1), np.arange(width - distance, distance, -1)
    rows, columns = rows[rows < height], columns[columns < width]
    order = list(range(height * width))
    for _ in range(rounds):
        moves = generator.integers(-distance, distance, (2, len(rows), len(columns)))
        places = rows[:, None] * width + columns
        others = (rows[:, None] + moves[0]) * width + columns + moves[1]
        for place, other in zip(places.ravel().tolist(), others.ravel().tolist(), strict=True):
            order[place] = order[other]
    moved = values.reshape(height * width, -1)[order].reshape(pixels.shape)
    return smoothed(moved.astype(np.float32), spread)


def motion_blur(pixels: Pixels, level: tuple[int, Number], generator: np.random.Generator) -> Pixels:
    """A streak at an angle within 45 degrees of the horizontal."""
    return filtered(pixels, streak(*level, np.deg2rad(generator.uniform(-45, 45))), "edge")


def zoom_blur(pixels: Pixels, level: tuple[Number, Number], generator: np.random.Generator) -> Pixels:
    """The mean of the image and of its enlargements from 1 to the largest."""
    largest, step = level
    factors = np.arange(round((largest - 1) / step) + 1) * step + 1
    total = pixels.astype(np.float64)
    for factor in factors:
        total += enlarged(pixels, float(factor))
    return (total / (len(factors) + 1)).astype(np.float32)


def enlarged(pixels: Pixels, factor: Number) -> Pixels:
    """The middle of the image, enlarged to its size, bilinear."""
    height, width, channels = pixels.shape
    left, top = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
    box = (left, top, width - left, height - top)
    planes = [Image.fromarray(pixels[:, :, number]) for number in range(channels)]
    resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR, box=box)) for plane in planes]
    return np.stack(resized, axis=2)


def _disk(radius: Number, softness: Number) -> Float[np.ndarray, "k k"]:
    """A disk of whole pixels, softened by a Gaussian of 3 (5 from radius 8 on) pixels a side; its sum is 1."""
    reach = 1 if radius <= 8 else 2
    side = int(np.ceil(radius)) + reach
    steps = np.arange(-side, side + 1)
    disk = (steps**2 + steps[:, None] ** 2 <= radius**2).astype(np.float64)
    curve = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * softness**2))
    for axis in (0, 1):
        disk = correlate1d(disk, curve, axis=axis, mode="constant")
    return disk / disk.sum()
