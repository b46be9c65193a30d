"""How far the within-class covariance is shrunk towards a scaled identity.

What estimates the covariance best is far too little for what the Gaussians are for: telling classes apart and judging
labels. So the amount is the one under which the labels are most likely, each judged by Gaussians that were estimated
without its sample.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError
from diffident.gaussian.leave_one_out import without_themselves

# Amounts that are tried beside the one of least error of the covariance, which is also the least of them.
_AMOUNTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
# Rows that are judged at most; and samples a feature from which on it makes no difference that is worth the time.
_MOST_ROWS, _ENOUGH = 4_000, 20
# Part of the largest eigenvalue below which a direction is null.
_NULL = 1e-12
# Of the search for the temperature: steps at most, and the last step's relative size.
_STEPS, _SMALL_STEP = 30, 1e-4


def rows_to_judge(num_samples: int) -> Int[Tensor, " m"]:
    """Numbers of the rows that `choose_shrinkage` looks at, ascending: a few thousand at random, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(num_samples, generator=generator)[:_MOST_ROWS].sort().values


def is_worth_judging(num_samples: int, num_features: int) -> bool:
    """Whether there are so few samples that `oracle_shrinkage` may be far too little."""
    return num_samples < _ENOUGH * num_features


def choose_shrinkage(
    least: float,
    spectrum: Float[Tensor, " d"],
    vectors: Float[Tensor, "d d"],
    deviations: Float[Tensor, "k d"],
    counts: Int[Tensor, " k"],
    values: Float[Tensor, "m d"],
    labels: Int[Tensor, " m"],
) -> float:
    """The amount under which labels are most likely, by Gaussians that leave each sample out.

    The likelihood is that of softmax(-D2_k / (2 temperature)) at each amount's best temperature. The amount is the
    least that is not worse than the best by more than one standard error of their difference; so where shrinkage makes
    no difference it stays that of `oracle_shrinkage`, below which it is never.

    Args:
        least: What `oracle_shrinkage` says.
        spectrum: Eigenvalues of the within-class covariance before shrinkage, ascending, float64.
        vectors: Its eigenvectors, in columns.
        deviations: Class means minus the overall mean, float64; those of absent classes do not matter.
        counts: Samples of each class.
        values: Some of the fitted samples, drawn at random, minus the overall mean.
        labels: Their classes.

    Reference:
        The closed form for covariances without one sample: Hoffbeck and Landgrebe 1996; the standard error: Breiman,
        Friedman, Olshen and Stone 1984.
    """
    more = counts[labels] > 1  # the others are their class's mean
    values, labels = values[more], labels[more]
    if least >= 1 or len(values) < 2 or int((counts > 0).sum()) < 2:
        return least
    rotated, centres = (values @ vectors.to(values.dtype)).double(), deviations @ vectors
    squares, everyone = rotated.square(), torch.ones_like(labels, dtype=torch.bool)
    amounts = [least, *(amount for amount in _AMOUNTS if amount > least)]
    losses = []
    for amount in amounts:
        shrunk = (1 - amount) * spectrum + amount * spectrum.mean()
        precision = torch.where(shrunk > _NULL * shrunk[-1], shrunk, torch.inf).reciprocal()
        scaled = centres * precision
        lengths = (scaled * centres).sum(dim=1)
        distances = (squares @ precision)[:, None] - 2 * rotated @ scaled.T + lengths
        between = lengths[:, None] - 2 * scaled @ centres.T + lengths
        without = without_themselves(distances, between, counts, labels, everyone, 1 - amount)
        losses.append(_least_losses(without, labels))
    means = torch.stack([loss.mean() for loss in losses])
    best = losses[int(means.argmin())]
    for amount, loss in zip(amounts, losses, strict=True):
        worse = loss - best
        if float(worse.mean()) <= float(worse.std()) / len(worse) ** 0.5:
            return amount
    return least


def oracle_shrinkage(within: Float[Tensor, "d d"], counts: Int[Tensor, " k"]) -> float:
    """Oracle-approximating shrinkage for a covariance pooled over classes: that of least squared error.

    The degrees of freedom are N minus the number of classes present, since every class spends one on its mean.

    Reference:
        Chen, Wiesel, Eldar and Hero 2010, arXiv 0907.4698, eq. 23, with n = N - K.
    """
    freedom = int(counts.sum()) - int((counts > 0).sum())
    if freedom < 1:
        return 1.0
    size = len(within)
    trace, square = float(within.trace()), float(torch.linalg.vector_norm(within)) ** 2
    if trace <= 0:
        return 1.0
    numerator = (1 - 2 / size) * square + trace**2
    denominator = (freedom + 1 - 2 / size) * (square - trace**2 / size)
    return 1.0 if denominator <= 0 else min(1.0, max(0.0, numerator / denominator))


def checked_shrinkage(shrinkage: float | str) -> float:
    """The amount, if it is one."""
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise InputError(f"`shrinkage` must be `auto` or in [0, 1]; got {shrinkage!r}. Leave it out for `auto`.")
    return float(shrinkage)


def _least_losses(distances: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(-b D2) of the labels at the b of the least mean: Newton's method, as that is convex in b."""
    of_label = distances.gather(1, labels[:, None])[:, 0]
    excess = distances - of_label[:, None]
    finite = excess.masked_fill(excess.isinf(), 0.0)
    factor = 1 / (2 * finite.abs().mean().clamp(min=torch.finfo(finite.dtype).tiny))
    least, most = factor * 1e-4, factor * 1e4
    for _ in range(_STEPS):
        probabilities = torch.softmax(-factor * excess, dim=1)
        mean = (probabilities * finite).sum(dim=1)
        slope = -mean.mean()
        curvature = (probabilities * finite.square()).sum(dim=1).sub(mean.square()).mean()
        before, factor = factor, factor - slope / curvature.clamp(min=torch.finfo(finite.dtype).tiny)
        factor = factor.clamp(min=torch.maximum(least, before / 4), max=torch.minimum(most, before * 4))
        if abs(float(factor / before) - 1) < _SMALL_STEP:
            break
    return torch.logsumexp(-factor * excess, dim=1)
