"""Many samples on one picture, each with its given and its nearest label under it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.font_manager
from PIL import Image, ImageDraw, ImageFont, ImageOps

from diffident.storage.atomic import atomic_path

_MARGIN = 8
_TEXT_HEIGHT = 16
_TITLE_HEIGHT = 20
_LEAST_WIDTH = 640
_INK = {"given": "#1a1a1a", "nearest": "#b3261e", "agrees": "#5f6368"}


@dataclass(frozen=True)
class Cell:
    """One sample of the sheet: its picture and the two lines under it."""

    image: Image.Image
    given: str
    nearest: str
    suspect: bool


def draw_contact_sheet(cells: Sequence[Cell], *, title: str, columns: int = 10, tile: int = 112) -> Image.Image:
    """Draw the samples in reading order.

    Args:
        cells: The samples; an empty sequence gives a sheet that says that there are none.
        title: On top, in as many lines as it takes; without samples, up to its first semicolon.
        columns: Samples in a row.
        tile: Side of a picture in pixels; pictures keep their shape and are enlarged without smoothing if small.

    Returns:
        An RGB image.
    """
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    cell_width, cell_height = tile + _MARGIN, tile + 2 * _TEXT_HEIGHT + _MARGIN
    width = max(columns * cell_width + _MARGIN, _LEAST_WIDTH)
    font = _font(16, bold=True)
    lines = _wrap(title if cells else f"{title.partition(';')[0]}: none", font, width - 2 * _MARGIN)
    head = 20 + _TITLE_HEIGHT * len(lines)
    sheet = Image.new("RGB", (width, head + rows * cell_height + 4), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, 12 + _TITLE_HEIGHT * number), line, fill=_INK["given"], font=font)
    for number, cell in enumerate(cells):
        left = _MARGIN + (number % columns) * cell_width
        _draw_cell(sheet, draw, cell, left, head + (number // columns) * cell_height, tile)
    return sheet


def _wrap(text: str, font, width: int) -> list[str]:
    """The text in lines that fit; a word that is too long for a line is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fit(word, font, width))
    return lines


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, left: int, top: int, tile: int) -> None:
    small = max(cell.image.size) < tile
    resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    picture = ImageOps.contain(cell.image.convert("RGB"), (tile, tile), resampling)
    sheet.paste(picture, (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2))
    outline = _INK["nearest"] if cell.suspect else "#dadce0"
    draw.rectangle((left - 1, top - 1, left + tile, top + tile), outline=outline, width=2 if cell.suspect else 1)
    font = _font(12)
    draw.text((left, top + tile + 2), _fit(cell.given, font, tile), fill=_INK["given"], font=font)
    text, ink = (f"→ {cell.nearest}", "nearest") if cell.suspect else ("nearest too", "agrees")
    draw.text((left, top + tile + 2 + _TEXT_HEIGHT), _fit(text, font, tile), fill=_INK[ink], font=font)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib and covers Latin, Greek, Cyrillic, Arabic and more."""
    weight = "bold" if bold else "normal"
    properties = matplotlib.font_manager.FontProperties(family="DejaVu Sans", weight=weight)
    return ImageFont.truetype(matplotlib.font_manager.findfont(properties), size)


def _fit(text: str, font, width: int) -> str:
    text = " ".join(text[:200].split()) or "(no name)"
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def save_contact_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write the sheet as PNG, atomically."""
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
