"""Noise in every value of an image."""

import numpy as np

from diffident.corruptions.fields import Number, Pixels


def gaussian_noise(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """Normal noise of this standard deviation."""
    return pixels + level * generator.standard_normal(pixels.shape, dtype=np.float32)


def shot_noise(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """Poisson counts of photons, of which white has so many."""
    return (generator.poisson(pixels * level) / level).astype(np.float32)


def impulse_noise(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """This share of the values, each on its own, set to 0 or 1."""
    drawn = generator.random(pixels.shape, dtype=np.float32)
    return np.where(drawn < level, (drawn < level / 2).astype(np.float32), pixels)
