"""Nearest samples of the given and of the nearest class, by the cosine of the features; in blocks, of any number."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.protocol import Blocks, labelled_blocks
from diffident.records import DifficultyTable
from diffident.report.samples import Neighbours


def find_neighbours(blocks: Blocks, table: DifficultyTable, rows: np.ndarray, num_neighbours: int = 4) -> Neighbours:
    """The samples most like each of the rows: of its given class, and of its nearest class where that is another.

    Two passes over the features: one gathers the rows, one compares them with every sample of the classes they ask for.

    Args:
        blocks: The features, in the table's order.
        table: Labels and nearest labels.
        rows: Table rows (m,).
        num_neighbours: For each row and class.

    Returns:
        The neighbours, most like first; a sample is never its own neighbour.
    """
    queries = _gather(blocks, table.labels, rows)
    labels = torch.from_numpy(np.asarray(table.labels, dtype=np.int64))
    given = labels[rows]
    nearest = torch.from_numpy(np.asarray(table.nearest_labels, dtype=np.int64))[rows]
    nearest = torch.where(nearest == given, -1, nearest)
    asked = torch.cat([given, nearest])
    best = _search(blocks, table.labels, torch.cat([queries, queries]), asked, np.tile(rows, 2), num_neighbours)
    return Neighbours(np.asarray(rows), best[: len(rows)].numpy(), best[len(rows) :].numpy())


def _gather(blocks: Blocks, labels: np.ndarray, rows: np.ndarray) -> Float[Tensor, "m d"]:
    """The unit features of the rows, in their order."""
    order = np.argsort(rows, kind="stable")
    ordered = np.asarray(rows)[order]
    found = []
    for start, block, _ in labelled_blocks(blocks, labels):
        first, last = np.searchsorted(ordered, [start, start + len(block)])
        found.append(_unit(block[torch.from_numpy(ordered[first:last] - start)]))
        if last == len(ordered):
            break
    gathered = torch.cat(found)
    return gathered[torch.from_numpy(np.argsort(order, kind="stable"))]


def _search(
    blocks: Blocks,
    labels: np.ndarray,
    queries: Float[Tensor, "q d"],
    asked: Int[Tensor, " q"],
    own: np.ndarray,
    num_neighbours: int,
) -> Int[Tensor, "q k"]:
    """Table rows of the samples of class `asked` that are most like each query; -1 where there are no more."""
    own_rows = torch.from_numpy(np.asarray(own, dtype=np.int64))
    likeness = torch.full((len(queries), num_neighbours), -torch.inf)
    found = torch.full((len(queries), num_neighbours), -1, dtype=torch.int64)
    wanted = [(label, (asked == label).nonzero().flatten()) for label in asked[asked >= 0].unique().tolist()]
    for start, block, chosen in labelled_blocks(blocks, labels):
        for label, wanting in wanted:
            members = (chosen == label).nonzero().flatten()
            if not len(members):
                continue
            cosine = queries[wanting] @ _unit(block[members]).T
            rows = (members + start).expand(len(wanting), -1)
            cosine = cosine.masked_fill(rows == own_rows[wanting, None], -torch.inf)
            every = torch.cat([likeness[wanting], cosine], dim=1)
            best = every.topk(num_neighbours, dim=1)
            likeness[wanting] = best.values
            found[wanting] = torch.cat([found[wanting], rows], dim=1).gather(1, best.indices)
    return torch.where(likeness.isinf(), -1, found)


def _unit(values: Tensor) -> Float[Tensor, "b d"]:
    return torch.nn.functional.normalize(values.float(), dim=1)
