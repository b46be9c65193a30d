"""The samples of a page: which rows it holds, what is shown of each, and their thumbnails within a budget of bytes."""

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from diffident.auditing import suspect_rows
from diffident.data.dataset import Dataset
from diffident.errors import UnreadableSampleError
from diffident.records import Suspects

THUMBNAIL_SIDE = 128
LARGE_SIDE = 384
_QUALITY = 78
# Characters of a text on its card; the whole is shown on a click where the page has room for it.
SHORT_TEXT = 280
LONG_TEXT = 20_000
_MOST_NUMBERS = 64


@dataclass(frozen=True)
class Neighbours:
    """Nearest samples by features, of the given and of the nearest class, best first.

    Attributes:
        rows: Table rows they are neighbours of (m,).
        given: Table rows of the given class (m, k); -1 where the class has no more.
        nearest: Table rows of the nearest class (m, k); -1 where that is the given class, or has no more.
    """

    rows: np.ndarray
    given: np.ndarray
    nearest: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Compressed pictures by table row, in base64, and the ids that could not be read.

    Attributes:
        thumbnails: WebP of at most `THUMBNAIL_SIDE` pixels.
        large: WebP of at most `LARGE_SIDE` pixels, of few rows whose picture is larger than its thumbnail.
        unreadable: Errors of samples that were left out.
    """

    thumbnails: dict[int, str] = field(default_factory=dict)
    large: dict[int, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()


def importance(suspects: Suspects) -> np.ndarray:
    """Every row of the table, those that matter most first.

    Those whose labels are most probably wrong and the hardest by turns, and now and then an easy one, to compare with.
    """
    place = np.full(len(suspects.order), np.inf)
    lists = ((suspect_rows(suspects), 2, 0), (suspects.order, 2, 1), (suspects.order[::-1], 16, 15.5))
    for rows, step, start in lists:
        place[rows] = np.minimum(place[rows], start + step * np.arange(len(rows)))
    return np.argsort(place, kind="stable")


def page_rows(by_importance: np.ndarray, neighbours: Neighbours | None, most: int) -> np.ndarray:
    """Table rows that a page of at most `most` rows holds, ascending: all, or those that matter most and theirs."""
    if len(by_importance) <= most:
        return np.arange(len(by_importance))
    wanted = [by_importance[: most // 4]]
    if neighbours is not None:
        wanted += [neighbours.rows, neighbours.given.ravel(), neighbours.nearest.ravel()]
    rows = np.concatenate([*wanted, by_importance])
    rows = rows[rows >= 0]
    first = np.sort(np.unique(rows, return_index=True)[1])[:most]
    return np.sort(rows[first])


def describe_sample(sample: Any, most: int) -> str:
    """What a card says of a text or of a vector, at most so many characters."""
    if isinstance(sample, str):
        return shorten(sample, most)
    values = np.asarray(sample).ravel()
    shown = "  ".join(f"{value:.4g}" for value in values[:_MOST_NUMBERS].tolist())
    return shorten(f"{shown}  … ({len(values)} numbers)" if len(values) > _MOST_NUMBERS else shown, most)


def shorten(text: str, most: int) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def with_neighbours(by_importance: np.ndarray, neighbours: Neighbours | None) -> Iterable[int]:
    """Rows by importance, each followed by its neighbours: who is shown large is shown with them."""
    known = {} if neighbours is None else {int(row): number for number, row in enumerate(neighbours.rows)}
    for row in by_importance.tolist():
        yield row
        if neighbours is not None and row in known:
            number = known[row]
            yield from (int(one) for one in neighbours.given[number] if one >= 0)
            yield from (int(one) for one in neighbours.nearest[number] if one >= 0)


def make_pictures(
    dataset: Dataset,
    positions: Callable[[int], int],
    rows: Iterable[int],
    *,
    most: int,
    budget: int,
    most_large: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Thumbnails of the rows in their order, until their number or the budget of bytes is used up.

    Args:
        dataset: Of images.
        positions: Position in the data set of a table row.
        rows: Table rows, those that matter most first; repeated ones are taken once.
        most: Number of thumbnails at most.
        budget: Bytes of base64 at most.
        most_large: So many of the first rows also get a large picture; these take at most a quarter of the budget.
        progress: Called with (done, most).
    """
    thumbnails: dict[int, str] = {}
    large: dict[int, str] = {}
    unreadable: dict[int, str] = {}
    spent = spent_on_large = 0
    for row in rows:
        if len(thumbnails) >= most or spent >= budget:
            break
        if row in thumbnails or row in unreadable:
            continue
        try:
            image = dataset[positions(row)]
        except UnreadableSampleError as error:
            unreadable[row] = str(error)
            continue
        thumbnail = encode_picture(image, THUMBNAIL_SIDE)
        spent += len(thumbnail)
        if spent > budget:
            break
        thumbnails[row] = thumbnail
        if len(large) < most_large and max(image.size) > THUMBNAIL_SIDE and spent_on_large < budget // 4:
            large[row] = encode_picture(image, LARGE_SIDE)
            spent += len(large[row])
            spent_on_large += len(large[row])
        if progress is not None:
            progress(len(thumbnails), most)
    return Pictures(thumbnails, large, tuple(unreadable.values()))


def encode_picture(image: Image.Image, side: int) -> str:
    """The picture as WebP in base64, made smaller where it is larger than the side."""
    return base64.b64encode(encode_webp(image, side)).decode("ascii")


def encode_webp(image: Image.Image, side: int) -> bytes:
    """The picture as WebP, made smaller where it is larger than the side."""
    image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "WEBP", quality=_QUALITY, method=4)
    return stream.getvalue()
