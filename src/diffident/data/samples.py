"""Reading one sample: text, vectors, and images from files, bytes or arrays."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from diffident.errors import UnreadableSampleError
from diffident.files import first_line

# Formats of pictures that Pillow decodes by itself: EPS, for one, would run a program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "ICO")
_SUFFIXES = "png jpg jpeg jpe jfif webp bmp dib gif tif tiff ppm pgm pbm pnm jp2 tga ico"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split(" "))


@dataclass(frozen=True)
class ReadText:
    """The text at a position."""

    texts: tuple[str, ...]

    def __call__(self, position: int) -> str:
        return self.texts[position]


@dataclass(frozen=True)
class ReadVector:
    """The vector at a position, float32 (d,)."""

    values: np.ndarray

    def __call__(self, position: int) -> np.ndarray:
        return self.values[position]


@dataclass(frozen=True)
class ReadImageArray:
    """The image at a position of uint8 [n, h, w] or [n, h, w, 3]."""

    values: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        return Image.fromarray(self.values[position])


@dataclass(frozen=True)
class ReadImageFile:
    """Decodes the image file at a position; relative paths start at the folder."""

    folder: Path
    paths: Any
    ids: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        return read_image_file(self.folder / str(self.paths[position]), str(self.ids[position]))


@dataclass(frozen=True)
class ReadImageBytes:
    """Decodes the image at a position from its bytes, or where there are none from its path.

    Attributes:
        contents: Arrow column of compressed images; they are never copied as a whole.
        paths: Arrow column of paths for the rows without bytes.
        folder: Where relative paths start.
        ids: The samples' ids, for errors.
    """

    contents: Any
    paths: Any
    folder: Path
    ids: np.ndarray

    def __call__(self, position: int) -> Image.Image:
        content = self.contents[position]
        if not content.is_valid:
            return read_image_file(self.folder / self.paths[position].as_py(), str(self.ids[position]))
        return decode_image(content.as_buffer(), str(self.ids[position]))


def read_image_file(path: Path, sample: str) -> Image.Image:
    """The decoded file; raises like `decode_image`."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnreadableSampleError(
            f"sample `{sample}` must be a readable image file; {path}: {reason}. Mend the path, or remove the row."
        ) from None
    return decode_image(content, sample)


def decode_image(content: Any, sample: str) -> Image.Image:
    """The decoded picture, upright, L or RGB; transparency on white, 16 bits as 8, of an animation the first frame.

    Args:
        content: The compressed bytes, or any buffer of them.
        sample: The sample's id, for errors.

    Raises:
        UnreadableSampleError: the bytes are no whole image; names the sample.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            image.load()
            # Older versions of Pillow open 16-bit files with 32 bits; a copy forgets its format.
            is_16_bit = image.mode == "I" and image.format in ("PNG", "PPM")
            turned = ImageOps.exif_transpose(image)
            return plain_image(_of_16_bits(turned) if is_16_bit else turned)
    except Exception as error:
        # Decoders of damaged files raise nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
        reason = first_line(error).split(" <")[0] if len(content) else "it is empty"
        raise UnreadableSampleError(
            f"sample `{sample}` must be a readable image; {reason}. Replace or remove it."
        ) from None


def _of_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def plain_image(image: Image.Image) -> Image.Image:
    """The picture as L or RGB: transparency on white, 16 bits as 8.

    Raises:
        ValueError: pixels of 32 bits, whose white is unknown.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError("it has pixels of 32 bits, whose white is unknown; save it with 8 or 16")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
