"""Filters and random fields that several image corruptions share. Pixels are float32 [h, w, c] in [0, 1]."""

import numpy as np
from jaxtyping import Float
from scipy import fft, signal

Pixels = Float[np.ndarray, "h w c"]
Field = Float[np.ndarray, "h w"]
Number = int | float


def filtered(pixels: Pixels, kernel: Float[np.ndarray, "k l"], border: str) -> Pixels:
    """Correlation of every channel with a kernel of odd sides; `border` is a mode of `numpy.pad`."""
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(pixels, ((top, top), (left, left), (0, 0)), mode=border)  # type: ignore[call-overload]
    mirrored = kernel[::-1, ::-1, None].astype(np.float32)
    return signal.oaconvolve(padded, mirrored, mode="valid", axes=(0, 1)).astype(np.float32)


def smoothed(values: Float[np.ndarray, "h w ..."], spread: Number) -> Float[np.ndarray, "h w ..."]:
    """Gaussian filter with mirrored borders, exact for any spread: a cosine transform diagonalises it."""
    if not spread:
        return values
    transformed = fft.dctn(values, axes=(0, 1), norm="ortho")
    for axis, size in enumerate(values.shape[:2]):
        frequencies = np.pi * np.arange(size) / size
        gain = np.exp(-((spread * frequencies) ** 2) / 2)
        transformed *= gain.reshape([-1 if number == axis else 1 for number in range(values.ndim)])
    return np.asarray(fft.idctn(transformed, axes=(0, 1), norm="ortho")).astype(values.dtype)


def streak(radius: int, spread: Number, angle: float) -> Float[np.ndarray, "k l"]:
    """Kernel of a motion: half a normal curve from the centre outwards, at an angle in radians, y downwards."""
    length = 2 * radius + 1
    steps = np.arange(length)
    weights = np.exp(-(steps**2) / (2 * spread**2))
    kernel = np.zeros((2 * length + 1, 2 * length + 1))
    rows = np.rint(length + steps * np.sin(angle)).astype(int)
    columns = np.rint(length + steps * np.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), weights / weights.sum())
    return kernel


def plasma(height: int, width: int, decay: Number, generator: np.random.Generator) -> Field:
    """Fractal noise in [0, 1]: midpoints are means of neighbours plus noise, divided by decay^2 at every halving."""
    side = 1 << (max(height, width, 2) - 1).bit_length()
    heights = np.zeros((side, side))
    step, amount = side, 1.0
    while step >= 2:
        half = step // 2
        first, second = slice(None, None, step), slice(half, None, step)
        corners = heights[first, first]
        sums = corners + np.roll(corners, -1, axis=0)
        sums = sums + np.roll(sums, -1, axis=1)
        centres = sums / 4 + amount * generator.uniform(-1, 1, corners.shape)
        heights[second, second] = centres
        # An edge's midpoint lies between two corners along it and two centres across it; the field wraps around.
        for axis, place in enumerate([(first, second), (second, first)]):
            along = corners + np.roll(corners, -1, axis=1 - axis)
            across = centres + np.roll(centres, 1, axis=axis)
            heights[place] = (along + across) / 4 + amount * generator.uniform(-1, 1, corners.shape)
        step, amount = half, amount / decay**2
    heights = heights[:height, :width]
    spread = np.ptp(heights)
    return ((heights - heights.min()) / (spread if spread else 1)).astype(np.float32)
