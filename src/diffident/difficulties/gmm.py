"""Gaussian mixtures: log-likelihood under a background mixture minus that under the label's mixture.

Features are reduced to their leading principal components. Every class is a mixture of a few Gaussians, the background
is such a mixture of all samples; each of the two models shares one covariance among all its Gaussians (shrunk as in
`rmd`). difficulty = log p(z) - log p(z | y), margin = max over k of log p(z | k) - log p(z | y). With one component
and all dimensions, difficulty is half of `rmd`'s plus a constant, up to shrinkage.

Cost: three passes, one product of N x d x d, then at most 50 rounds of expectation-maximisation on N x 64 numbers
(starting from K-means, so that nothing is random).

Reference:
    Hastie and Tibshirani 1996, Discriminant analysis by Gaussian mixtures.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.clusters import (
    Components,
    class_clusters,
    fit_components,
    keep_own,
    pairwise_squared,
    rows_of_classes,
)
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
from diffident.gaussian import oracle_shrinkage
from diffident.options import check_whole
from diffident.progress import counted

_MAX_ROUNDS = 50
_TOLERANCE = 1e-6
_LEAST_VARIANCE = 1e-6
_BLOCK_NUMBERS = 2**22


@dataclass(frozen=True)
class GmmOptions:
    """Options of `gmm`.

    Attributes:
        components: Largest number of Gaussians a class; each starts from at least ten samples.
        dimensions: Largest number of principal components.
    """

    components: int = 3
    dimensions: int = 64

    def __post_init__(self):
        check_whole("components", self.components, 1)
        check_whole("dimensions", self.dimensions, 1)


@dataclass(frozen=True)
class Mixtures:
    """A mixture per class with one covariance for all.

    Attributes:
        means: Of the Gaussians (c, p), float64.
        owners: Class of each (c,).
        log_weights: Log of each one's weight in its class (c,).
        whitening: W (p, p) with W^T covariance W = I.
        log_determinant: Of the covariance.
        num_classes: Number of classes.
    """

    means: Float[Tensor, "c p"]
    owners: Int[Tensor, " c"]
    log_weights: Float[Tensor, " c"]
    whitening: Float[Tensor, "p p"]
    log_determinant: float
    num_classes: int

    @property
    def log_constants(self) -> Float[Tensor, " c"]:
        """Log of weight times density at the mean of every Gaussian."""
        return self.log_weights - 0.5 * (self.means.shape[1] * math.log(2 * math.pi) + self.log_determinant)

    def log_likelihoods(self, values: Float[Tensor, "b p"]) -> Float[Tensor, "b k"]:
        """Log p(z | k) for every class; minus infinity for classes without samples."""
        squared = pairwise_squared(values @ self.whitening, self.means @ self.whitening)
        joint = self.log_constants - 0.5 * squared
        owners = self.owners.expand_as(joint)
        empty = joint.new_full((len(values), self.num_classes), -torch.inf)
        greatest = empty.scatter_reduce(1, owners, joint, "amax")
        scaled = (joint - greatest.gather(1, owners)).exp()
        return greatest + torch.zeros_like(greatest).scatter_add_(1, owners, scaled).log()


@dataclass(frozen=True)
class Gmm:
    """Mixtures of the classes and of everything.

    Attributes:
        components: From features to what the mixtures are of.
        classes: One mixture a class.
        background: One mixture of all samples.
        counts: Samples of each class (k,).
        rounds: Rounds of expectation-maximisation, of the classes and of the background.
    """

    components: Components
    classes: Mixtures
    background: Mixtures
    counts: Int[Tensor, " k"]
    rounds: tuple[int, int]


def fit(
    blocks: Blocks,
    labels: np.ndarray,
    num_classes: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Gmm:
    """Components, then the mixtures; options: `GmmOptions`. `progress` gets (done, total) in every round."""
    chosen = make_options(GmmOptions, "gmm", options)
    check_range(torch.from_numpy(labels), num_classes, 0)
    components = fit_components(blocks, labels, chosen.dimensions)
    values = components.project_all(blocks, labels)
    classes = torch.from_numpy(labels).to(values.device)
    mixtures, rounds = fit_mixtures(values, classes, num_classes, chosen.components, progress)
    background, background_rounds = fit_mixtures(values, torch.zeros_like(classes), 1, chosen.components, progress)
    counts = torch.bincount(classes, minlength=num_classes)
    return Gmm(components, mixtures, background, counts, (rounds, background_rounds))


def score(state: Gmm, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Log-likelihood ratio of every sample; the same whether or not the rows were fitted."""

    def parts():
        num_features = len(state.components.mean)
        for start, block, chosen in checked_blocks(blocks, labels, len(state.counts), num_features):
            check_present(state.counts, chosen, start)
            values = state.components.project(block)
            chosen = chosen.to(values.device)
            own, nearest, margin = choose_nearest(-state.classes.log_likelihoods(values), chosen)
            yield state.background.log_likelihoods(values)[:, 0] + own, nearest, margin

    return join_scores(parts())


def describe(state: Gmm) -> dict[str, Any]:
    """Numbers of components and Gaussians, rounds, and what variance the components carry."""
    return {
        "num_features": len(state.components.mean),
        "dimensions": state.components.directions.shape[1],
        "variance_kept": state.components.variance,
        "num_gaussians": len(state.classes.owners),
        "num_background_gaussians": len(state.background.owners),
        "rounds": list(state.rounds),
        "singleton_classes": int((state.counts == 1).sum()),
        "absent_classes": int((state.counts == 0).sum()),
    }


def fit_mixtures(
    values: Float[Tensor, "n p"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    per_class: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Mixtures, int]:
    """Expectation-maximisation from class-wise K-means until the mean log-likelihood settles; and its rounds.

    Gaussians that come to lie nearer to another class's mean than to their own are left out at the end, as in
    `class_clusters`.

    Args:
        values: What the mixtures are of.
        labels: Class of each value.
        num_classes: Number of classes.
        per_class: Largest number of Gaussians a class.
        progress: Called with (done, total) in every round.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    clusters = class_clusters(values, labels, num_classes, per_class)
    gram = values.T @ values
    totals, sums = _assign(clusters.centroids, clusters.owners, values, labels, num_classes)
    mixtures, before, rounds = _maximise(totals, sums, gram, clusters.owners, counts), -math.inf, 0
    one_each = len(totals) == len(counts.nonzero())  # then the first mixtures are exact
    while rounds < _MAX_ROUNDS and not one_each:
        totals, sums, likelihood = _expect(mixtures, values, labels, progress)
        mixtures, rounds = _maximise(totals, sums, gram, clusters.owners, counts), rounds + 1
        if likelihood - before <= _TOLERANCE * max(1.0, abs(likelihood)):
            break
        before = likelihood
    return _without_foreign(mixtures, values, labels, counts), rounds


def _assign(
    centroids: Tensor, owners: Tensor, values: Tensor, labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Totals and sums of samples by the nearest centroid of their class."""
    totals, sums = centroids.new_zeros(len(centroids)), torch.zeros_like(centroids)
    for block, own, squared in _own_squares(centroids, owners, values, labels, num_classes):
        chosen = own.gather(1, squared.argmin(dim=1, keepdim=True))[:, 0]
        totals += torch.bincount(chosen, minlength=len(totals))
        sums.index_add_(0, chosen, block)
    return totals, sums


def _maximise(totals: Tensor, sums: Tensor, gram: Tensor, owners: Tensor, counts: Tensor) -> Mixtures:
    """Mixtures from the responsibilities' totals: sum_i r_ic (z - m_c)(z - m_c)^T = Z^T Z - sum_c n_c m_c m_c^T."""
    means = sums / totals.clamp(min=1e-12)[:, None]
    within = (gram - (means * totals[:, None]).T @ means) / counts.sum()
    width = len(within)
    if not width:
        whitening, log_determinant = within, 0.0
    else:
        amount = oracle_shrinkage(within, counts)
        scale = within.trace().clamp(min=0) / width
        least = _LEAST_VARIANCE / width  # of the features' whole variance, which is 1
        identity = torch.eye(width, dtype=within.dtype, device=within.device)
        shrunk = (1 - amount) * (within + within.T) / 2 + amount * scale * identity
        spectrum, vectors = torch.linalg.eigh(shrunk)
        spectrum = spectrum.clamp(min=least)
        whitening, log_determinant = vectors / spectrum.sqrt(), float(spectrum.log().sum())
    log_weights = (totals / counts[owners]).clamp(min=1e-300).log()
    return Mixtures(means, owners, log_weights, whitening, log_determinant, len(counts))


def _expect(
    mixtures: Mixtures, values: Tensor, labels: Tensor, progress: Callable[[int, int], None] | None
) -> tuple[Tensor, Tensor, float]:
    """Responsibilities' totals and weighted sums over a class's own Gaussians; the mean log-likelihood."""
    totals, sums, likelihood = torch.zeros_like(mixtures.log_weights), torch.zeros_like(mixtures.means), 0.0
    whitening = mixtures.whitening
    means, whitened = mixtures.means @ whitening, values @ whitening
    start = 0
    parts = _own_squares(means, mixtures.owners, whitened, labels, mixtures.num_classes)
    for part, own, squared in counted(parts, len(values), progress, lambda found: len(found[0])):
        joint = mixtures.log_constants[own] - 0.5 * squared
        whole = joint.logsumexp(dim=1, keepdim=True)
        responsibilities = (joint - whole).exp()
        block = values[start : start + len(part)]
        for column in range(own.shape[1]):
            weight = responsibilities[:, column]
            totals.index_add_(0, own[:, column], weight)
            sums.index_add_(0, own[:, column], block * weight[:, None])
        likelihood += float(whole.sum())
        start += len(part)
    return totals, sums, likelihood / len(values)


def _own_squares(
    centroids: Tensor, owners: Tensor, values: Tensor, labels: Tensor, num_classes: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Blocks of values [b, p], numbers of their own class's centroids [b, m] and squared distances to them [b, m].

    Where a class has fewer than m, the number is 0 and the distance infinite.
    """
    table = rows_of_classes(owners, num_classes)
    rows = max(1, _BLOCK_NUMBERS // max(1, table.shape[1] * centroids.shape[1]))
    for block, chosen in zip(values.split(rows), labels.split(rows), strict=True):
        own = table[chosen]
        squared = (block[:, None] - centroids[own]).square().sum(dim=2).masked_fill(own < 0, torch.inf)
        yield block, own.clamp(min=0), squared


def _without_foreign(mixtures: Mixtures, values: Tensor, labels: Tensor, counts: Tensor) -> Mixtures:
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, labels, values)
    present = counts.nonzero()[:, 0]
    means = (sums / counts.clamp(min=1)[:, None])[present]
    kept = torch.zeros_like(mixtures.owners, dtype=torch.bool)
    log_weights = mixtures.log_weights.clone()
    for place, label in enumerate(present.tolist()):
        own = (mixtures.owners == label).nonzero()[:, 0]
        kept[own] = keep_own(mixtures.means[own], means, place)
        log_weights[own] -= log_weights[own][kept[own]].logsumexp(dim=0)
    return Mixtures(
        mixtures.means[kept],
        mixtures.owners[kept],
        log_weights[kept],
        mixtures.whitening,
        mixtures.log_determinant,
        mixtures.num_classes,
    )
