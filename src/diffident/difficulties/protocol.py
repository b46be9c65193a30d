"""What every difficulty method shares: its verbs, its options, its result, and blocks of features with their labels.

A method is a module with

- `fit(blocks, labels, num_classes, **options)`: a frozen state; may pass over the features several times; where
  `MethodKind.iterates`, it takes `progress` for its passes over what it keeps in memory;
- `score(state, blocks, labels, *, fitted=True)`: `Scores`. `fitted` says that these are the very rows that `fit` saw,
  in its order, so that methods which can leave a row out of what judges it do so;
- `describe(state)`: plain JSON values for the metadata of `difficulty.parquet`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.gaussian.blocks import checked_values, not_finite
from diffident.options import options_of
from diffident.progress import counted

Blocks = Callable[[], Iterable[Tensor]]
Options = TypeVar("Options")


@dataclass(frozen=True)
class Scores:
    """What a method says of every sample, in the order of the labels.

    Attributes:
        difficulty: float64 (n,); higher is harder.
        nearest: The class that the method would choose, int64 (n,); the given label where it is among the best.
        margin: How much better that class is than the label, float64 (n,); exactly 0 where it is the label, else > 0.
        distrust: How little the label is to be believed, float64 (n,) in [0, 1]; None where a method does not say.
        likely: The class that is most probably right, int64 (n,); None where a method does not say.
        candidates: The most probable classes, int64 (n, m); None where a method does not say.
        candidate_probs: Probability of each, whatever the label says, float32 (n, m).
    """

    difficulty: Float[np.ndarray, " n"]
    nearest: Int[np.ndarray, " n"]
    margin: Float[np.ndarray, " n"]
    distrust: Float[np.ndarray, " n"] | None = None
    likely: Int[np.ndarray, " n"] | None = None
    candidates: Int[np.ndarray, "n m"] | None = None
    candidate_probs: Float[np.ndarray, "n m"] | None = None


def make_options(kind: type[Options], method: str, values: dict[str, Any]) -> Options:
    """The options record of a difficulty method; raises like `diffident.options.options_of`."""
    return options_of(kind, f"difficulty method {method!r}", values)


def counted_passes(blocks: Blocks, num_rows: int, progress: Callable[[int, int], None]) -> Blocks:
    """The same blocks, the rows of every pass over them `counted`."""
    return lambda: counted(blocks(), num_rows, progress, len)


def labelled_blocks(blocks: Blocks, labels: Int[np.ndarray, " n"]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First row, features [b, d] and labels [b] of every block.

    Raises:
        ShapeError: not as many rows as labels; InputError: no rows.
    """
    start = 0
    for block in blocks():
        if not len(block):
            continue
        chosen = labels[start : start + len(block)]
        if len(chosen) != len(block):
            raise _wrong_count(len(labels), f"{start + len(block)} or more")
        yield start, block, torch.from_numpy(chosen).to(block.device)
        start += len(block)
    if start != len(labels):
        raise _wrong_count(len(labels), str(start))
    if not start:
        raise InputError("`blocks` must hold at least one sample; got none. Extract features first.")


def checked_blocks(
    blocks: Blocks, labels: Int[np.ndarray, " n"], num_classes: int, num_features: int | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """`labelled_blocks` whose features are finite and of one width, and whose labels are in [0, num_classes).

    Raises:
        ShapeError: another width; InputError: NaN or infinity, or a label out of range; names the row.
    """
    for start, block, chosen in labelled_blocks(blocks, labels):
        check_block(block, start, num_features)
        num_features = block.shape[1]
        check_range(chosen, num_classes, start)
        yield start, block, chosen


def check_block(block: Tensor, start: int, num_features: int | None = None) -> None:
    """Refuse features that are not finite or of another width; `start` numbers the first row."""
    width = block.shape[-1] if num_features is None else num_features
    checked_values(block, width)
    if not bool(block.sum(dim=1, dtype=torch.float64).isfinite().all()):
        raise not_finite(block, start)


def check_range(labels: Int[Tensor, " b"], num_classes: int, start: int) -> None:
    """Refuse labels outside [0, num_classes); `start` numbers the first row."""
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}); got {int(labels[row])} at row {row + start}. "
            "Re-index the labels or fit with more classes."
        )


def check_present(counts: Int[Tensor, " k"], labels: Int[Tensor, " b"], start: int) -> None:
    """Refuse labels out of range or of classes that were fitted on nothing: there is no distance to them."""
    check_range(labels, len(counts), start)
    absent = (counts.to(labels.device)[labels] == 0).nonzero()
    if len(absent):
        row = int(absent[0])
        raise InputError(
            f"`labels` must be of classes with samples; got class {int(labels[row])} at row {row + start}, which was "
            "fitted on nothing. Fit with samples of it, or leave the row out."
        )


@contextmanager
def rows_from(start: int, block: Tensor, num_features: int) -> Iterator[None]:
    """Let errors number the rows of a block from the first block's first row."""
    try:
        yield
    except InputError:
        check_block(block, start, num_features)
        raise


def choose_nearest(
    costs: Float[Tensor, "b k"], labels: Int[Tensor, " b"]
) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"], Float[Tensor, " b"]]:
    """The label's cost, the class of least cost and the difference; the label wins ties."""
    own = costs.gather(1, labels[:, None])[:, 0]
    least, nearest = costs.min(dim=1)
    return own, torch.where(own <= least, labels, nearest), own - least


def join_scores(parts: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Scores:
    """`Scores` from difficulty, nearest label and margin of every block."""
    columns = zip(*([part.cpu().numpy() for part in parts_of_block] for parts_of_block in parts), strict=True)
    difficulty, nearest, margin = (np.concatenate(column) for column in columns)
    return Scores(difficulty.astype(np.float64), nearest.astype(np.int64), margin.astype(np.float64))


def check_fitted(labels: Int[np.ndarray, " n"], num_fitted: int) -> None:
    """Refuse `fitted=True` for another number of rows than were fitted."""
    if len(labels) != num_fitted:
        raise ShapeError(
            f"`labels` must be the {num_fitted} that were fitted; got {len(labels)}. "
            "Score other samples with fitted=False."
        )


def _wrong_count(num_labels: int, num_rows: str) -> ShapeError:
    return ShapeError(f"`labels` must be one per feature row; got {num_labels} for {num_rows} rows. Match them by id.")
