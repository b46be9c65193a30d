"""From statistics to Gaussians in the discriminant form, with shrinkage."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffident.errors import InputError, ShapeError
from diffident.gaussian.blocks import Labels, Values, centred, working_type
from diffident.gaussian.shrinkage import (
    checked_shrinkage,
    choose_shrinkage,
    is_worth_judging,
    oracle_shrinkage,
    rows_to_judge,
)
from diffident.gaussian.state import Gaussians
from diffident.gaussian.statistics import GaussianStatistics
from diffident.records import tensor_of

# Inverse iteration: vectors, steps, and how many times the threshold the smallest eigenvalue that it finds must be.
_PROBES, _ITERATIONS, _CLEARLY = 4, 6, 3.0


def fit_gaussians(
    values: Values,
    labels: Labels,
    *,
    num_classes: int | None = None,
    shrinkage: float | str = "auto",
) -> Gaussians:
    """Fit all Gaussians to labelled features.

    Args:
        values: Features, float16 to float64; any scale and offset.
        labels: Classes in [0, num_classes). Arrays will do, as everywhere here.
        num_classes: Default: the largest label plus one.
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`; see `choose_shrinkage`.

    Raises:
        InputError: labels that are no integers, a NaN or infinite feature, a label out of range, a wrong shrinkage.
        ShapeError: no samples or features, or not as many labels as rows.

    Example:
        >>> gaussians = fit_gaussians(features.values, features.labels)
        >>> gaussians.projected_means.shape         # 10 classes differ in 9 directions
        torch.Size([10, 9])
    """
    values, labels = tensor_of(values, "values"), tensor_of(labels, "labels")
    if values.ndim != 2 or not values.numel():
        raise ShapeError(
            f"`values` must be [n, d] with n and d at least 1; got {tuple(values.shape)}. Give the features."
        )
    if num_classes is None:
        num_classes = int(labels.long().max()) + 1 if len(labels) else 1
    statistics = GaussianStatistics.start(values, max(num_classes, 1)).updated(values, labels)

    def judged() -> tuple[Tensor, Tensor]:
        rows = rows_to_judge(len(values), num_classes).to(values.device)
        return values[rows].detach(), labels[rows].long()

    return solve_gaussians(statistics, shrinkage, judged)


def solve_gaussians(
    statistics: GaussianStatistics,
    shrinkage: float | str = "auto",
    judged: Callable[[], tuple[Tensor, Tensor]] | None = None,
) -> Gaussians:
    """Gaussians from their statistics, in float64.

    Sigma_w' = (1 - a) Sigma_w + a (tr Sigma_w / d) I and Sigma_t' = Sigma_w' + Sigma_b: the discriminant form stays
    exact, and every lambda is at least 1. Directions in which no class varies are left out (they have rank 0).

    Args:
        statistics: Of all samples.
        shrinkage: As for `fit_gaussians`.
        judged: Gives the features and classes of `rows_to_judge`; called where `auto` needs them. Without it, `auto` is
            `oracle_shrinkage`, which needs the statistics alone.
    """
    size = statistics.num_samples
    if not size:
        raise InputError("`statistics` must hold at least one sample; got none. Update them with features first.")
    counts = statistics.counts.double()
    centroids = statistics.sums / counts.clamp(min=1)[:, None]
    offset = statistics.sums.sum(dim=0) / size
    total = (statistics.gram / size).sub_(torch.outer(offset, offset))
    deviations = torch.where(counts[:, None] > 0, centroids - offset, 0.0)
    weighted = deviations * (counts / size).sqrt()[:, None]
    between = weighted.T @ weighted
    within = total - between
    within = (within + within.T).div_(2)
    mean = offset + statistics.shift
    amount, spectrum = _amount_and_spectrum(shrinkage, judged, within, deviations, mean, statistics.counts)
    scale = within.trace().clamp(min=0) / len(within)
    shrunk = (1 - amount) * within
    shrunk.diagonal().add_(amount * scale)
    spreads = total.diagonal().clamp(min=0).sqrt()
    constant = spreads <= statistics.resolution * mean.abs()
    scales = torch.where(constant, 1.0, spreads)
    rank = _rank(within, spectrum, scales, statistics.resolution)
    whitening = _whiten(shrunk, scales, statistics.resolution)
    directions, ratios = _discriminants(whitening, weighted)
    return Gaussians(
        counts=statistics.counts,
        means=torch.where(counts[:, None] > 0, centroids + statistics.shift, 0.0),
        overall_mean=mean,
        within=shrunk,
        between=between,
        whitening=whitening,
        directions=directions,
        ratios=ratios,
        projected_means=deviations @ directions,
        shrinkage=float(amount),
        shrinkage_choice="auto" if shrinkage == "auto" else "given",
        rank=whitening.shape[1],
        condition_number=_condition_number(spectrum, rank),
        constant_features=int(constant.sum()),
    )


def _amount_and_spectrum(
    shrinkage: float | str,
    judged: Callable[[], tuple[Tensor, Tensor]] | None,
    within: Tensor,
    deviations: Tensor,
    mean: Tensor,
    counts: Tensor,
) -> tuple[float, Tensor]:
    """How far the covariance is shrunk, and its ascending eigenvalues before that."""
    if shrinkage != "auto":
        return checked_shrinkage(shrinkage), torch.linalg.eigvalsh(within)
    least = oracle_shrinkage(within, counts)
    if judged is None or not is_worth_judging(least, counts, len(within)):
        return least, torch.linalg.eigvalsh(within)
    spectrum, vectors = torch.linalg.eigh(within)
    values, labels = judged()
    values = centred(values, mean, working_type(values))
    return choose_shrinkage(least, spectrum, vectors, deviations, counts, values, labels), spectrum


def _whiten(covariance: Tensor, scales: Tensor, resolution: float) -> Tensor:
    """W (d, rank) with W^T covariance W = I.

    Features are brought to one spread first, so that a small scale is not taken for the rounding of a large one.
    """
    scaled, threshold = _at_one_spread(covariance, scales), resolution * len(scales)
    whitening = _whitening_of_full_rank(scaled, threshold)
    if whitening is None:
        spectrum, vectors = torch.linalg.eigh(scaled)
        kept = spectrum > threshold
        whitening = vectors[:, kept] / spectrum[kept].sqrt()
    return whitening.div_(scales[:, None])


def _at_one_spread(covariance: Tensor, scales: Tensor) -> Tensor:
    return (covariance / scales).div_(scales[:, None])


def _whitening_of_full_rank(scaled: Tensor, threshold: float) -> Tensor | None:
    """The inverse transposed Cholesky factor where all eigenvalues are clearly above the threshold, else None.

    A fraction of the time of the eigenvectors. Inverse iteration estimates the smallest eigenvalue from above, within a
    factor of two, so a few times the threshold is asked of it.
    """
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if bool(failed):
        return None
    identity = torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
    whitening = torch.linalg.solve_triangular(factor.T, identity, upper=True)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(len(scaled), _PROBES, generator=generator, dtype=scaled.dtype).to(scaled.device)
    for _ in range(_ITERATIONS):
        probes = whitening @ (whitening.T @ (probes / probes.norm(dim=0)))
    return whitening if 1 / float(probes.norm(dim=0).max()) > _CLEARLY * threshold else None


def _discriminants(whitening: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Directions in which the class means differ, and lambda = 1 + their whitened variance.

    Right singular vectors of the whitened means, from the eigenvectors of the smaller of their two Gram matrices.
    """
    if not whitening.shape[1]:
        return whitening, whitening.new_zeros(0)
    whitened = weighted @ whitening
    wide = whitened.shape[0] <= whitened.shape[1]
    gains, vectors = torch.linalg.eigh(whitened @ whitened.T if wide else whitened.T @ whitened)
    kept = gains > 1e-12 * gains.max().clamp(min=1)
    vectors = whitened.T @ vectors[:, kept] / gains[kept].sqrt() if wide else vectors[:, kept]
    return whitening @ vectors, 1 + gains[kept]


def _rank(within: Tensor, spectrum: Tensor, scales: Tensor, resolution: float) -> int:
    """Directions that vary beyond rounding, counted as `_whiten` keeps them; `spectrum` is that of `within`."""
    threshold = resolution * len(scales)
    if float(spectrum[0]) > threshold * float(scales.max()) ** 2:  # then so is the least at one spread
        return len(scales)
    return int((torch.linalg.eigvalsh(_at_one_spread(within, scales)) > threshold).sum())


def _condition_number(spectrum: Tensor, rank: int) -> float:
    """Largest over smallest of the ascending eigenvalues, without the null ones; 1 where there are no others."""
    if not rank:
        return 1.0
    return float(spectrum[-1] / spectrum[-rank].clamp(min=torch.finfo(spectrum.dtype).tiny))
