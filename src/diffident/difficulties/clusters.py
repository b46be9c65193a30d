"""Principal components and class-wise clusters, whatever the order of the samples: for `kmeans` and `gmm`."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties import rmd
from diffident.difficulties.protocol import Blocks, labelled_blocks
from diffident.gaussian.blocks import centred, working_type

_MAX_ITERATIONS = 50
_ROWS_PER_CLUSTER = 10


@dataclass(frozen=True)
class Components:
    """The leading principal components of all samples, scaled so that the features' whole variance is 1.

    Attributes:
        mean: Of the features (d,), float64.
        directions: Orthogonal, of one length (d, p), float64.
        variance: Part of the whole variance that they carry, in [0, 1].
    """

    mean: Float[Tensor, " d"]
    directions: Float[Tensor, "d p"]
    variance: float

    def project(self, block: Float[Tensor, "b d"]) -> Float[Tensor, "b p"]:
        """Components of features, float64."""
        values = centred(block.to(self.mean.device), self.mean, working_type(block))
        return (values @ self.directions.to(values.dtype)).double()

    def project_all(self, blocks: Blocks, labels: np.ndarray) -> Float[Tensor, "n p"]:
        """Components of every sample: n x p float64 in memory."""
        return torch.cat([self.project(block) for _, block, _ in labelled_blocks(blocks, labels)])


@dataclass(frozen=True)
class Clusters:
    """Centroids with the classes that they belong to.

    Attributes:
        centroids: (c, p), float64.
        owners: Class of each (c,).
        assignment: Cluster of each fitted sample, -1 where its cluster was left out (n,).
    """

    centroids: Float[Tensor, "c p"]
    owners: Int[Tensor, " c"]
    assignment: Int[Tensor, " n"]


def fit_components(blocks: Blocks, labels: np.ndarray, dimensions: int) -> Components:
    """One pass; at most `dimensions` components, fewer where the features have a lower rank."""
    everything = rmd.gaussians_of(blocks, np.zeros_like(labels), 1, 0.0)
    variances, vectors = torch.linalg.eigh(everything.within)
    order = variances.argsort(descending=True)[: min(dimensions, everything.rank)]
    whole = float(variances.clamp(min=0).sum()) or 1.0
    directions = vectors[:, order] / whole**0.5
    return Components(everything.overall_mean, directions, float(variances[order].sum()) / whole)


def class_clusters(
    values: Float[Tensor, "n p"], labels: Int[Tensor, " n"], num_classes: int, per_class: int
) -> Clusters:
    """K-means within every class, with at least ten samples a cluster, less the clusters of wrong labels.

    A cluster that lies nearer to another class's mean than to its own is left out: with wrong labels, a class's
    samples of another class gather in a cluster of their own, which would make them look easy. The cluster nearest to
    the class's mean always stays.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    means = values.new_zeros(num_classes, values.shape[1]).index_add_(0, labels, values)
    means /= counts.clamp(min=1)[:, None]
    present = counts.nonzero()[:, 0]
    centroids, owners, assignment = [], [], torch.full_like(labels, -1)
    for label in present.tolist():
        rows = (labels == label).nonzero()[:, 0]
        number = max(1, min(per_class, len(rows) // _ROWS_PER_CLUSTER))
        found, chosen = _lloyd(values[rows], _split(values[rows], number))
        kept = keep_own(found, means[present], int((present == label).nonzero()[0]))
        renumbered = torch.where(kept, kept.cumsum(0) - 1 + sum(map(len, centroids)), -1)
        assignment[rows] = renumbered[chosen]
        centroids.append(found[kept])
        owners += [label] * int(kept.sum())
    return Clusters(torch.cat(centroids), torch.tensor(owners, device=values.device), assignment)


def pairwise_squared(values: Float[Tensor, "n p"], centroids: Float[Tensor, "c p"]) -> Float[Tensor, "n c"]:
    """Squared Euclidean distances by one matrix product, float64; rounding below 0 is cut off."""
    constant = values.square().sum(dim=1)[:, None] + centroids.square().sum(dim=1)
    return torch.addmm(constant, values, centroids.T, alpha=-2).clamp(min=0)


def rows_of_classes(owners: Int[Tensor, " c"], num_classes: int) -> Int[Tensor, "k m"]:
    """Numbers of each class's centroids, -1 where a class has fewer than the most."""
    counts = torch.bincount(owners, minlength=num_classes)
    table = owners.new_full((num_classes, int(counts.max())), -1)
    order = owners.argsort(stable=True)
    place = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners[order]]
    table[owners[order], place] = order
    return table


def keep_own(centroids: Float[Tensor, "c p"], means: Float[Tensor, "k p"], own: int) -> Tensor:
    """Which centroids of a class lie nearest to its own mean among all classes'; at least one (c,)."""
    distances = torch.cdist(centroids, means, compute_mode="donot_use_mm_for_euclid_dist")
    kept = distances[:, own] <= distances.min(dim=1).values
    kept[distances[:, own].argmin()] = True
    return kept


def _split(values: Float[Tensor, "n p"], number: int) -> Int[Tensor, " n"]:
    """Starting clusters: the one of largest scatter is cut at its mean, across its widest component, again and again.

    Reference:
        Su and Dy 2007, In search of deterministic methods for initializing K-means and Gaussian mixture clustering
        (Var-Part).
    """
    chosen = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    for new in range(1, number):
        sizes = torch.bincount(chosen, minlength=new)[:, None]
        means = values.new_zeros(new, values.shape[1]).index_add_(0, chosen, values) / sizes
        squares = values.new_zeros(new, values.shape[1]).index_add_(0, chosen, (values - means[chosen]).square())
        widest = int(squares.sum(dim=1).argmax())
        axis = int(squares[widest].argmax()) if squares.shape[1] else 0
        if not squares.numel() or squares[widest, axis] <= 1e-20:
            break
        chosen[(chosen == widest) & (values[:, axis] > means[widest, axis])] = new
    return chosen


def _lloyd(values: Float[Tensor, "n p"], chosen: Int[Tensor, " n"]) -> tuple[Float[Tensor, "c p"], Int[Tensor, " n"]]:
    """Centroids and clusters after K-means' iterations; clusters that run empty are left out."""
    for _ in range(_MAX_ITERATIONS):
        _, chosen = chosen.unique(return_inverse=True)
        sizes = torch.bincount(chosen)[:, None]
        centroids = values.new_zeros(len(sizes), values.shape[1]).index_add_(0, chosen, values) / sizes
        nearest = torch.cdist(values, centroids, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        if len(sizes) == 1 or bool((nearest == chosen).all()):
            break
        chosen = nearest
    return centroids, chosen
