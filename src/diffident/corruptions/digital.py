"""What cameras and files do to images."""

import io

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from diffident.corruptions.fields import Number, Pixels, smoothed


def brightness(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """The value of HSV raised, hue and saturation kept; black becomes grey."""
    value = pixels.max(axis=2, keepdims=True)
    raised = np.minimum(value + level, 1)
    return np.where(value > 0, pixels * (raised / np.where(value > 0, value, 1)), raised)


def contrast(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """Differences from the mean of every channel made smaller."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return (pixels - mean) * level + mean


def elastic(pixels: Pixels, level: tuple[Number, Number, Number], generator: np.random.Generator) -> Pixels:
    """Tilted by an affine map that moves three points at random, and displaced by smooth noise; one interpolation."""
    height, width, channels = pixels.shape
    side = min(height, width)
    amount, spread, tilt = (part * side for part in level)
    centre, reach = np.array([height // 2, width // 2]), side // 3
    points = centre + np.array([[reach, reach], [reach, -reach], [-reach, -reach]])
    moved = points + generator.uniform(-tilt, tilt, points.shape)
    # Rows of [y, x, 1] at the moved points to where they came from; without a triangle there is no tilt.
    from_moved = np.eye(3, 2)
    if reach:
        from_moved = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points.astype(np.float64), rcond=None)[0]
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(np.float64)
    for plane in places:
        plane += amount * smoothed(generator.uniform(-1, 1, (height, width)), spread)
    sources = np.tensordot(from_moved[:2].T, places, axes=1) + from_moved[2][:, None, None]
    planes = [map_coordinates(pixels[:, :, number], sources, order=1, mode="mirror") for number in range(channels)]
    return np.stack(planes, axis=2)


def pixelate(pixels: Pixels, level: Number, generator: np.random.Generator) -> Pixels:
    """Brought to a part of its size and back, each time by means of boxes."""
    image = as_image(pixels)
    small = image.resize((max(1, int(image.width * level)), max(1, int(image.height * level))), Image.Resampling.BOX)
    return as_pixels(small.resize(image.size, Image.Resampling.BOX))


def jpeg(pixels: Pixels, level: int, generator: np.random.Generator) -> Pixels:
    """Compressed as JPEG of this quality and decoded."""
    stream = io.BytesIO()
    as_image(pixels).save(stream, "JPEG", quality=level)
    with Image.open(stream) as image:
        return as_pixels(image)


def as_pixels(image: Image.Image) -> Pixels:
    """Float32 [h, w, c] in [0, 1] of an L or RGB image."""
    values = np.asarray(image, dtype=np.float32) / 255
    return values if values.ndim == 3 else values[:, :, None]


def as_image(pixels: Pixels) -> Image.Image:
    """The nearest L or RGB image."""
    values = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0])
