"""Parts of a data set: by what is in a row, so that another order gives the same parts, at random, or by class."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def drawn_rows(num_rows: int, most: int) -> Int[np.ndarray, " m"]:
    """At most so many row numbers, ascending, drawn at random, the same each time.

    Not every k-th: where samples come in turns of their classes, that would leave out whole classes.
    """
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(0).choice(num_rows, most, replace=False))


def row_keys(block: Float[Tensor, "b d"], seed: int) -> Int[np.ndarray, " b"]:
    """A hash of every row, the same for the same numbers in float16 and float32."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randint(-(2**62), 2**62, (block.shape[1],), generator=generator).to(block.device) | 1
    bits = (block.float() + 0.0).contiguous().view(torch.int32)  # + 0.0: minus zero is zero
    return (bits.long() * factors).sum(dim=1).cpu().numpy()


def places_in_classes(order: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """How many samples of its own class come before each sample in an order of all rows."""
    order = order[labels[order].argsort(stable=True)]  # class by class
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order)) - starts[labels[order]]
    return places
