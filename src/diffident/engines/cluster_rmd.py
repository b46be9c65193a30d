"""Relative Mahalanobis distance on a Ray cluster: statistics of parts, merged as a tree; then the parts' scores."""

from typing import Any

import numpy as np

from diffident.difficulties import rmd
from diffident.difficulties.protocol import Blocks, Scores, make_options
from diffident.engines.connection import errors_on_one_line
from diffident.engines.workers import Part, merge_statistics, part_scores, part_statistics
from diffident.gaussian import Gaussians, solve_gaussians
from diffident.storage.features import FeatureSource

# Statistics that one task merges; and parts a core, so that the slowest does not hold up the others for long.
_ARITY, _PARTS_PER_CORE = 8, 4
# Times that a part is tried again when its worker dies.
_RETRIES = 3


class ClusterRmd:
    """The verbs of `rmd` for one feature store; workers read its shards themselves.

    Args:
        ray: The module, connected.
        source: The store; every machine must see it under the same path.
    """

    describe = staticmethod(rmd.describe)

    def __init__(self, ray: Any, source: FeatureSource):
        self._ray, self._source = ray, source

    def fit(self, blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Gaussians:
        """The Gaussians of the store; `blocks` only serve to choose the shrinkage."""
        chosen = make_options(rmd.RmdOptions, "rmd", options)
        gather, merge = self._task(part_statistics), self._task(merge_statistics)
        level = [gather.remote(part, num_classes) for part in self._parts(labels)]
        while len(level) > 1:
            level = [merge.remote(*level[start : start + _ARITY]) for start in range(0, len(level), _ARITY)]
        with errors_on_one_line(self._ray):
            statistics = self._ray.get(level[0])
        return solve_gaussians(statistics, chosen.shrinkage, rmd.judged_of(blocks, labels, num_classes))

    def score(self, state: Gaussians, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
        """Scores in the store's order; `blocks` is not used."""
        task, shared = self._task(part_scores), self._ray.put(state)
        with errors_on_one_line(self._ray):
            scores = self._ray.get([task.remote(shared, part) for part in self._parts(labels)])
        columns = zip(*((part.difficulty, part.nearest, part.margin) for part in scores), strict=True)
        return Scores(*map(np.concatenate, columns))

    def _task(self, function: Any) -> Any:
        return self._ray.remote(num_cpus=1, max_retries=_RETRIES)(function)

    def _parts(self, labels: np.ndarray) -> list[Part]:
        """The shards that have rows, in about equally many groups for each core; no more groups than shards."""
        shards = [shard for shard in self._source.shards if shard["rows"]]
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        starts = np.cumsum([0] + [shard["rows"] for shard in shards])
        parts = []
        for group in np.array_split(np.arange(len(shards)), min(len(shards), _PARTS_PER_CORE * cores)):
            first, last = int(group[0]), int(group[-1])
            rows = slice(int(starts[first]), int(starts[last + 1]))
            chosen = tuple(shards[first : last + 1])
            parts.append(Part(self._source.path.resolve(), chosen, labels[rows], rows.start))
        return parts
