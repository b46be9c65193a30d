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

# Amounts that are tried beside the one of least error of the covariance, where they are above it.
_AMOUNTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
# Samples a feature, and samples a class, from which on the choice makes no difference that is worth the time.
_ENOUGH_A_FEATURE, _ENOUGH_A_CLASS = 20, 50
# Rows that are judged at most, and their distances to all classes; but never fewer rows than the last.
_MOST_ROWS, _MOST_DISTANCES, _FEWEST_ROWS = 4_000, 1_000_000, 500
# Of the search for the temperature: steps at most, and the last step's relative size.
_STEPS, _SMALL_STEP = 30, 1e-4


def rows_to_judge(num_samples: int, num_classes: int) -> Int[Tensor, " m"]:
    """Numbers of the rows that `choose_shrinkage` looks at, ascending: some thousands at random, always the same."""
    most = min(_MOST_ROWS, max(_FEWEST_ROWS, _MOST_DISTANCES // num_classes))
    return torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))[:most].sort().values


def is_worth_judging(least: float, counts: Int[Tensor, " k"], num_features: int) -> bool:
    """Whether samples are so few that `least`, the oracle's, may be far too little, and there are amounts above it."""
    num_samples, num_present = int(counts.sum()), int((counts > 0).sum())
    few = num_samples < max(_ENOUGH_A_FEATURE * num_features, _ENOUGH_A_CLASS * num_present)
    return few and num_present > 1 and least < _AMOUNTS[-1]


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
    no difference it stays that of `oracle_shrinkage`, below which it is never. What is shrunk towards stays that of all
    samples. A sample that is there twice is not left out.

    Args:
        least: What `oracle_shrinkage` says, in (0, 1].
        spectrum: Eigenvalues of the within-class covariance before shrinkage, ascending, float64.
        vectors: Its eigenvectors, in columns.
        deviations: Class means minus the overall mean, float64; those of absent classes do not matter.
        counts: Samples of each class.
        values: Some of the fitted samples, drawn at random, minus the overall mean.
        labels: Their classes.

    Returns:
        `least`, or one of 0.02 to 0.9 above it.

    Reference:
        The closed form for covariances without one sample: Hoffbeck and Landgrebe 1996; the standard error: Breiman,
        Friedman, Olshen and Stone 1984.
    """
    more = counts[labels] > 1  # the others are their class's mean
    present = counts > 0
    labels = (present.cumsum(0) - 1)[labels[more]]
    if len(labels) < 2:
        return least
    rotated, centres = (values[more] @ vectors.to(values.dtype)).double(), deviations[present] @ vectors
    amounts = [least, *(amount for amount in _AMOUNTS if amount > least)]
    losses = [_losses_at(amount, spectrum, rotated, centres, counts[present], labels) for amount in amounts]
    best = losses[int(torch.stack([loss.mean() for loss in losses]).argmin())]
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
    """The amount; `InputError` where it is none in [0, 1]."""
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise InputError(f"`shrinkage` must be `auto` or in [0, 1]; got {shrinkage!r}. Leave it out for `auto`.")
    return float(shrinkage)


def _losses_at(
    amount: float, spectrum: Tensor, rotated: Tensor, centres: Tensor, counts: Tensor, labels: Tensor
) -> Float[Tensor, " m"]:
    """-log p(label) of every row with this amount; rows and class means are on the eigenvectors."""
    precision = ((1 - amount) * spectrum + amount * spectrum.mean()).reciprocal()
    scaled = centres * precision
    lengths = (scaled * centres).sum(dim=1)
    distances = (rotated.square() @ precision)[:, None] - 2 * rotated @ scaled.T + lengths
    between = lengths[:, None] - 2 * scaled @ centres.T + lengths
    everyone = torch.ones_like(labels, dtype=torch.bool)
    return _least_losses(without_themselves(distances, between, counts, labels, everyone, 1 - amount), labels)


def _least_losses(distances: Float[Tensor, "m k"], labels: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """-log softmax(-b D2) of the labels at the b of the least mean: Newton's method, as that is convex in b."""
    excess = distances - distances.gather(1, labels[:, None])
    tiny = torch.finfo(excess.dtype).tiny
    rivals = excess.scatter(1, labels[:, None], torch.inf).amin(dim=1)  # far classes say nothing of the scale
    factor = 1 / (2 * rivals.abs().median().clamp(min=tiny))
    least, most = factor * 1e-4, factor * 1e4
    for _ in range(_STEPS):
        probabilities = torch.softmax(-factor * excess, dim=1)
        mean = (probabilities * excess).sum(dim=1)
        curvature = (probabilities * excess.square()).sum(dim=1).sub(mean.square()).mean()
        before, factor = factor, factor + mean.mean() / curvature.clamp(min=tiny)
        factor = factor.clamp(min=torch.maximum(least, before / 4), max=torch.minimum(most, before * 4))
        if abs(float(factor / before) - 1) < _SMALL_STEP:
            break
    return torch.logsumexp(-factor * excess, dim=1)
