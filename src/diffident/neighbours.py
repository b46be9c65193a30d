"""Search for nearest neighbours.

The index is faiss's (optional extra `knn`): exact search as blocked matrix products with a heap, and an inverted file
for what is too large for that; both from one library that is maintained by its authors. scikit-learn's search has no
approximate index, and pynndescent compiles for a minute and is never exact. Exact up to 50,000 rows, then an inverted
file of sqrt(N) lists of which a sixteenth is visited.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffident.errors import MissingDependencyError
from diffident.folds import drawn_rows

INDEXES = ("auto", "exact", "approximate")
_EXACT_ROWS = 50_000
_TRAINING_ROWS_PER_LIST = 64


def build_index(
    blocks: Callable[[], Iterable[Float[np.ndarray, "b d"]]], num_features: int, num_rows: int, kind: str = "auto"
) -> tuple[Any, bool]:
    """An index of the rows by inner product.

    Args:
        blocks: The rows, float32, in blocks; called twice for an approximate index.
        num_features: Width d.
        num_rows: Rows over all blocks.
        kind: `exact`, `approximate`, or `auto`: exact up to 50,000 rows.

    Returns:
        faiss's index, and whether it compares every row.

    Raises:
        MissingDependencyError: faiss is not installed.
    """
    faiss = load_faiss()
    exact = kind == "exact" or (kind == "auto" and num_rows <= _EXACT_ROWS)
    index = faiss.IndexFlatIP(num_features)
    if not exact:
        num_lists = max(1, round(num_rows**0.5))
        index = faiss.IndexIVFFlat(index, num_features, num_lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, num_lists // 16)
        index.cp.min_points_per_centroid = 1  # otherwise faiss warns on standard output
        index.train(_rows_of(blocks(), drawn_rows(num_rows, num_lists * _TRAINING_ROWS_PER_LIST)))
    for block in blocks():
        index.add(block)
    return index, exact


def _rows_of(blocks: Iterable[Float[np.ndarray, "b d"]], rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
    """Those rows of all blocks, ascending."""
    parts, start = [], 0
    for block in blocks:
        first, last = np.searchsorted(rows, [start, start + len(block)])
        parts.append(block[rows[first:last] - start])
        start += len(block)
    return np.concatenate(parts)


def load_faiss() -> Any:
    """The library.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError(
            "`knn` must have the library faiss. Install it: pip install 'diffident[knn]'."
        ) from None
    return faiss
