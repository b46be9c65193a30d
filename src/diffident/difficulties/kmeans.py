"""Class-wise K-means: squared distance to the label's nearest centroid minus that to another class's.

Features are reduced to their leading principal components and scaled so that their whole variance is 1. With g_k the
squared distance to the nearest centroid of class k, difficulty = g_y - min over k != y of g_k (g_y where there is no
other class), margin = g_y - min over k of g_k. One cluster a class is the nearest class mean.

Cost: three passes, one product of N x d x d, then K-means on N x 64 numbers.

Reference:
    Sorscher et al. 2022, arXiv 2206.14486 (distance to K-means prototypes as difficulty, without labels); here the
    prototypes are a class's own, and the distance is relative, since a wrong label is far from its class only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.clusters import Clusters, Components, class_clusters, fit_components, pairwise_squared
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_present,
    check_range,
    checked_blocks,
    choose_nearest,
    join_scores,
    make_options,
)
from diffident.options import check_whole


@dataclass(frozen=True)
class KmeansOptions:
    """Options of `kmeans`.

    Attributes:
        clusters: Largest number a class; a cluster has at least ten samples.
        dimensions: Largest number of principal components.
    """

    clusters: int = 3
    dimensions: int = 64

    def __post_init__(self):
        check_whole("clusters", self.clusters, 1)
        check_whole("dimensions", self.dimensions, 1)


@dataclass(frozen=True)
class Kmeans:
    """Centroids of every class.

    Attributes:
        components: From features to what is clustered.
        clusters: The centroids and their classes.
        counts: Samples of each class (k,).
    """

    components: Components
    clusters: Clusters
    counts: Int[Tensor, " k"]


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Kmeans:
    """Components, then centroids; options: `KmeansOptions`."""
    chosen = make_options(KmeansOptions, "kmeans", options)
    check_range(torch.from_numpy(labels), num_classes, 0)
    components = fit_components(blocks, labels, chosen.dimensions)
    classes = torch.from_numpy(labels).to(components.mean.device)
    clusters = class_clusters(components.project_all(blocks, labels), classes, num_classes, chosen.clusters)
    return Kmeans(components, clusters, torch.bincount(classes, minlength=num_classes))


def score(state: Kmeans, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Relative squared distance to centroids; the same whether or not the rows were fitted."""

    def parts():
        num_features = len(state.components.mean)
        for start, block, chosen in checked_blocks(blocks, labels, len(state.counts), num_features):
            check_present(state.counts, chosen, start)
            distances = _class_distances(state, state.components.project(block))
            chosen = chosen.to(distances.device)
            own, nearest, margin = choose_nearest(distances, chosen)
            other = distances.scatter(1, chosen[:, None], torch.inf).amin(dim=1)
            yield own - torch.where(other.isfinite(), other, 0.0), nearest, margin

    return join_scores(parts())


def describe(state: Kmeans) -> dict[str, Any]:
    """Numbers of components and centroids, and what variance the components carry."""
    return {
        "num_features": len(state.components.mean),
        "dimensions": state.components.directions.shape[1],
        "variance_kept": state.components.variance,
        "num_centroids": len(state.clusters.owners),
        "singleton_classes": int((state.counts == 1).sum()),
        "absent_classes": int((state.counts == 0).sum()),
    }


def _class_distances(state: Kmeans, values: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
    """Squared distance to the nearest centroid of every class; infinite for classes without samples."""
    squared = pairwise_squared(values, state.clusters.centroids)
    distances = squared.new_full((len(values), len(state.counts)), torch.inf)
    return distances.scatter_reduce_(1, state.clusters.owners.expand_as(squared), squared, "amin")
