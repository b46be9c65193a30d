"""Gaussians per class with a shared covariance, one background Gaussian, and the distances to them.

Everything is divided by N. The statistics take one pass and can be merged; the solution is the discriminant form, in
which only the directions that tell the classes apart are kept: with Sigma_t v = lambda Sigma_w v, v^T Sigma_w v = 1,
the directions with lambda = 1 cancel in the relative distance, and at most min(K - 1, d) others are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError, ShapeError

# Rows of a block: large enough for a fast product, small enough that a scored block stays in the cache.
_FIT_ROWS, _SCORE_ROWS, _SHIFT_ROWS = 8_192, 2_048, 1_024
# Part of the total variance that a sum of products resolves: within-class variance below it is rounding.
_RESOLUTION = {torch.float32: 1e-7, torch.float64: 1e-13}


@dataclass(frozen=True)
class GaussianStatistics:
    """Sufficient statistics of labelled features; small, and mergeable across shards and machines.

    Attributes:
        shift: Subtracted from every feature, so that a mean far from zero costs no precision (d,), float64.
        counts: Samples of each class (K,), int64.
        sums: Sum of shifted features of each class (K, d), float64.
        gram: Sum of the shifted features' outer products (d, d), float64.
        resolution: Part of the total variance below which the statistics hold nothing but rounding.
    """

    shift: Float[Tensor, " d"]
    counts: Int[Tensor, " k"]
    sums: Float[Tensor, "k d"]
    gram: Float[Tensor, "d d"]
    resolution: float = _RESOLUTION[torch.float64]

    @classmethod
    def start(cls, values: Float[Tensor, "n d"], num_classes: int) -> "GaussianStatistics":
        """Empty statistics, shifted by about the mean of these features: that of the first rows will do."""
        if num_classes < 1:
            raise InputError(f"`num_classes` must be at least 1; got {num_classes}. Count the labels' classes.")
        head = values[:_SHIFT_ROWS].double()
        shift = (
            torch.nan_to_num(head.mean(dim=0), posinf=0.0, neginf=0.0) if len(head) else head.new_zeros(head.shape[1])
        )
        num_features = values.shape[1]
        zeros = shift.new_zeros
        counts = torch.zeros(num_classes, dtype=torch.int64, device=values.device)
        return cls(shift, counts, zeros(num_classes, num_features), zeros(num_features, num_features))

    @property
    def num_samples(self) -> int:
        """Samples seen so far."""
        return int(self.counts.sum())

    def updated(
        self, values: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, first_row: int = 0
    ) -> "GaussianStatistics":
        """The statistics with these samples added; `first_row` numbers the first of them in errors.

        Raises:
            ShapeError: another width than before, or another number of labels.
            InputError: a feature that is NaN or infinite, or a label outside [0, K); names the row.
        """
        _check(values, labels, len(self.shift), len(self.counts), first_row)
        counts, sums, gram = self.counts.clone(), self.sums.clone(), self.gram.clone()
        counts += torch.bincount(labels, minlength=len(counts))
        dtype = _working_type(values)
        for start in range(0, len(values), _FIT_ROWS):
            block = _centred(values[start : start + _FIT_ROWS], self.shift, dtype)
            block_sums = _class_sums(block, labels[start : start + _FIT_ROWS], len(counts))
            product = _gram(block)
            if not bool(block_sums.isfinite().all() and product.diagonal().isfinite().all()):
                raise _not_finite(values[start : start + _FIT_ROWS], first_row + start)
            sums += block_sums
            gram += product
        resolution = max(self.resolution, _RESOLUTION[dtype])
        return replace(self, counts=counts, sums=sums, gram=gram, resolution=resolution)

    def merge(self, other: "GaussianStatistics") -> "GaussianStatistics":
        """The statistics of both sets of samples, exact although their shifts differ."""
        if self.sums.shape != other.sums.shape:
            raise ShapeError(
                f"`other` must have shape {tuple(self.sums.shape)} (classes, features); got {tuple(other.sums.shape)}. "
                "Start both with the same number of classes on features of the same encoder."
            )
        moved = other.shift - self.shift
        total = other.sums.sum(dim=0)
        outer = torch.outer(moved, total)
        gram = other.gram + outer + outer.T + other.num_samples * torch.outer(moved, moved)
        sums = other.sums + other.counts[:, None] * moved
        resolution = max(self.resolution, other.resolution)
        counts = self.counts + other.counts
        return replace(self, counts=counts, sums=self.sums + sums, gram=self.gram + gram, resolution=resolution)


@dataclass(frozen=True)
class Gaussians:
    """Class Gaussians with a shared covariance and the background Gaussian, in the discriminant form.

    Attributes:
        counts: Samples of each class (K,).
        means: Class means; zero rows for absent classes (K, d), float64.
        overall_mean: Mean of everything (d,), float64.
        within: Within-class covariance after shrinkage (d, d), float64.
        between: Covariance of the class means (d, d), float64; the background's is within + between.
        whitening: W (d, rank) with W^T within W = I, float64.
        directions: Discriminant directions (d, m), float64.
        ratios: lambda of each direction, above 1 (m,), float64.
        projected_means: Class means minus the overall mean on the directions (K, m), float64.
        shrinkage: Part of the scaled identity in `within`, in [0, 1].
        shrinkage_choice: `auto` or `given`.
        rank: Rank of `within`.
        condition_number: Largest over smallest non-null eigenvalue of the covariance before shrinkage.
        constant_features: Number of features that never vary.
    """

    counts: Int[Tensor, " k"]
    means: Float[Tensor, "k d"]
    overall_mean: Float[Tensor, " d"]
    within: Float[Tensor, "d d"]
    between: Float[Tensor, "d d"]
    whitening: Float[Tensor, "d q"]
    directions: Float[Tensor, "d m"]
    ratios: Float[Tensor, " m"]
    projected_means: Float[Tensor, "k m"]
    shrinkage: float
    shrinkage_choice: str
    rank: int
    condition_number: float
    constant_features: int

    def to(self, device: torch.device | str) -> "Gaussians":
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})

    @property
    def singleton_classes(self) -> list[int]:
        """Classes with one sample: their mean is that sample, so that its difficulty says little."""
        return (self.counts == 1).nonzero().flatten().tolist()

    @property
    def absent_classes(self) -> list[int]:
        """Classes without samples: infinitely far from everything."""
        return (self.counts == 0).nonzero().flatten().tolist()


def fit_gaussians(
    values: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    num_classes: int | None = None,
    shrinkage: float | str = "auto",
) -> Gaussians:
    """Fit all Gaussians to labelled features.

    Args:
        values: Features, float16 to float64; any scale and offset.
        labels: Classes in [0, num_classes).
        num_classes: Default: the largest label plus one.
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`; see `choose_shrinkage`.

    Raises:
        InputError: no samples, a NaN or infinite feature, a label out of range, a wrong shrinkage.
        ShapeError: as many labels as rows are needed.

    Example:
        >>> gaussians = fit_gaussians(features.values, features.labels)
        >>> gaussians.projected_means.shape         # 10 classes differ in 9 directions
        torch.Size([10, 9])
    """
    if values.ndim != 2 or not len(values):
        raise ShapeError(f"`values` must be [n, d] with n at least 1; got {tuple(values.shape)}. Give the features.")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if len(labels) else 1
    statistics = GaussianStatistics.start(values, max(num_classes, 1)).updated(values, labels)
    return solve_gaussians(statistics, shrinkage)


def solve_gaussians(statistics: GaussianStatistics, shrinkage: float | str = "auto") -> Gaussians:
    """Gaussians from their statistics, in float64.

    Sigma_w' = (1 - a) Sigma_w + a (tr Sigma_w / d) I and Sigma_t' = Sigma_w' + Sigma_b: the discriminant form stays
    exact, and every lambda is at least 1. Directions in which no class varies are left out (they have rank 0).
    """
    size = statistics.num_samples
    if not size:
        raise InputError("`statistics` must hold at least one sample; got none. Update them with features first.")
    counts = statistics.counts.double()
    centroids = statistics.sums / counts.clamp(min=1)[:, None]
    offset = statistics.sums.sum(dim=0) / size
    total = statistics.gram / size - torch.outer(offset, offset)
    deviations = torch.where(counts[:, None] > 0, centroids - offset, 0.0)
    weighted = deviations * (counts / size).sqrt()[:, None]
    between = weighted.T @ weighted
    within = total - between
    within = (within + within.T) / 2
    amount = choose_shrinkage(within, statistics.counts) if shrinkage == "auto" else _checked_shrinkage(shrinkage)
    scale = within.trace().clamp(min=0) / len(within)
    shrunk = (1 - amount) * within + amount * scale * torch.eye(len(within), dtype=within.dtype, device=within.device)
    least = statistics.resolution * total.trace()
    whitening, spectrum = _whiten(shrunk, least)
    condition = _condition_number(spectrum, amount, float(scale), float(least))
    directions, ratios = _discriminants(whitening, weighted)
    return Gaussians(
        counts=statistics.counts,
        means=torch.where(counts[:, None] > 0, centroids + statistics.shift, 0.0),
        overall_mean=offset + statistics.shift,
        within=shrunk,
        between=between,
        whitening=whitening,
        directions=directions,
        ratios=ratios,
        projected_means=deviations @ directions,
        shrinkage=float(amount),
        shrinkage_choice="auto" if shrinkage == "auto" else "given",
        rank=whitening.shape[1],
        condition_number=condition,
        constant_features=int((total.diagonal() <= 1e-12 * total.diagonal().max()).sum()),
    )


def choose_shrinkage(within: Float[Tensor, "d d"], counts: Int[Tensor, " k"]) -> float:
    """Oracle-approximating shrinkage for a covariance pooled over classes.

    The degrees of freedom are N minus the number of classes present, since every class spends one on its mean.

    Reference:
        Chen, Wiesel, Eldar and Hero 2010, arXiv 0907.4698, eq. 23, with n = N - K.
    """
    freedom = int(counts.sum()) - int((counts > 0).sum())
    if freedom < 1:
        return 1.0
    size = len(within)
    trace, square = float(within.trace()), float((within * within).sum())
    if trace <= 0:
        return 1.0
    numerator = (1 - 2 / size) * square + trace**2
    denominator = (freedom + 1 - 2 / size) * (square - trace**2 / size)
    return 1.0 if denominator <= 0 else min(1.0, max(0.0, numerator / denominator))


def relative_squared_distance(
    state: Gaussians, values: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Squared distance to the label's Gaussian minus that to the background.

    Returns:
        Difficulty, dimensionless, unbounded, float64, mean 0 over the fitted data without shrinkage; higher is harder.

    Raises:
        ShapeError: feature width differs from `fit_gaussians`.
        InputError: a label out of range or of a class without samples.

    Reference:
        Ren et al. 2021, arXiv 2106.09022, eq. 3; Cui et al. 2023, arXiv 2304.10127 (opposite sign).
    """
    _check(values, labels, len(state.overall_mean), len(state.counts))
    _check_fitted(state, labels)
    return torch.cat([own for own, _ in _labelled_blocks(state, values, labels)] or [state.ratios.new_zeros(0)])


def nearest_classes(
    state: Gaussians, values: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Difficulty, and what the other classes say: one product with the class means a block, nothing of size [n, K].

    Returns:
        The difficulty of `relative_squared_distance`; the class of least distance, the label itself among ties; and the
        margin, difficulty minus the least over classes: at least 0, exactly 0 where the label is nearest. All (n,).

    Raises:
        As `relative_squared_distance`.
    """
    _check(values, labels, len(state.overall_mean), len(state.counts))
    _check_fitted(state, labels)
    constant = _class_constants(state)
    difficulty, nearest, margin = [], [], []
    for (own, p), chosen in zip(_labelled_blocks(state, values, labels), _blocks(labels, _SCORE_ROWS), strict=True):
        # Without the terms that all classes share: they change neither the nearest class nor the margin.
        every = torch.addmm(constant.to(p.dtype), p, state.projected_means.T.to(p.dtype), alpha=-2)
        of_label = every.gather(1, chosen[:, None])[:, 0]
        least, found = every.min(dim=1)
        difficulty.append(own)
        nearest.append(torch.where(of_label <= least, chosen, found))
        margin.append((of_label - least).clamp(min=0).double())
    if not difficulty:
        return state.ratios.new_zeros(0), labels, state.ratios.new_zeros(0)
    return torch.cat(difficulty), torch.cat(nearest), torch.cat(margin)


def relative_squared_distances(state: Gaussians, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Squared distance to every class's Gaussian minus that to the background; infinite for classes without samples.

    One matrix product over the discriminant directions. The least over classes is the out-of-distribution score.
    """
    _check(values, None, len(state.overall_mean), len(state.counts))
    constant = _class_constants(state)
    gains = 1 - 1 / state.ratios
    scores = []
    for p in _projections(state, values, state.directions):
        p = p.double()
        scores.append(torch.addmm(constant + (p.square() @ gains)[:, None], p, state.projected_means.T, alpha=-2))
    return torch.cat(scores)


def squared_distances(state: Gaussians, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """D2_k: squared Mahalanobis distance to every class's Gaussian, float64; infinite for classes without samples."""
    _check(values, None, len(state.overall_mean), len(state.counts))
    means = (state.means - state.overall_mean) @ state.whitening
    constant = torch.where(state.counts > 0, means.square().sum(dim=1), torch.inf)
    return torch.cat(
        [
            torch.addmm(constant + q.square().sum(dim=1)[:, None], q, means.T, alpha=-2).clamp(min=0)
            for q in (p.double() for p in _projections(state, values, state.whitening))
        ]
    )


def background_squared_distance(state: Gaussians, values: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """D2_0: squared Mahalanobis distance to the background Gaussian, float64."""
    _check(values, None, len(state.overall_mean), len(state.counts))
    gains = 1 - 1 / state.ratios
    whitened = [q.double().square().sum(dim=1) for q in _projections(state, values, state.whitening)]
    gained = [p.double().square() @ gains for p in _projections(state, values, state.directions)]
    return torch.cat(whitened) - torch.cat(gained)


def _labelled_blocks(state: Gaussians, values: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Difficulty (block,), float64, and projections (block, m) of every block of rows.

    sum_j (p_j - m_yj)^2 - p_j^2 / lambda_j, written with one pass over the projections and one over the label's means.
    """
    dtype = _working_type(values)
    means, gains = state.projected_means.to(dtype), (1 - 1 / state.ratios).to(dtype)
    lengths = state.projected_means.square().sum(dim=1)
    for p, chosen in zip(_projections(state, values, state.directions), _blocks(labels, _SCORE_ROWS), strict=True):
        mixed = torch.addcmul(means[chosen] * -2, p, gains)
        yield torch.linalg.vecdot(p, mixed).double() + lengths[chosen], p


def _projections(state: Gaussians, values: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """Centred features on directions (block, m), in the working type, in blocks of rows."""
    dtype = _working_type(values)
    # Columns are scaled to unit length, so that float32 neither over- nor underflows.
    lengths = directions.norm(dim=0).clamp(min=1e-300)
    narrow = (directions / lengths).to(dtype)
    for start in range(0, len(values), _SCORE_ROWS):
        block = values[start : start + _SCORE_ROWS]
        p = (_centred(block, state.overall_mean, dtype) @ narrow).mul_(lengths.to(dtype))
        if not bool(p.sum().isfinite()):
            raise _not_finite(block, start)
        yield p


def _blocks(values: Tensor, rows: int) -> Iterator[Tensor]:
    """Slices of so many rows; none of nothing."""
    yield from (values[start : start + rows] for start in range(0, len(values), rows))


def _working_type(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _centred(values: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """Values minus the centre; subtracted in two steps, so that no float64 copy of float32 features is made."""
    high = centre.to(dtype)
    low = (centre - high.double()).to(dtype)
    return (values.to(dtype) - high).sub_(low)


def _class_sums(block: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sum of each class's rows (K, d), float64: rows are gathered by class, which no scatter of rows is as fast as."""
    counts = torch.bincount(labels, minlength=num_classes)
    order = labels.argsort(stable=True)
    return F.embedding_bag(order, block, counts.cumsum(0) - counts, mode="sum").double()


def _gram(block: Tensor) -> Tensor:
    """block^T block in float64. NumPy takes the symmetric product (half the work), which torch has not."""
    if block.device.type == "cpu":
        array = block.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # named by the caller
            return torch.from_numpy(array.T @ array).double()
    return (block.T @ block).double()


def _class_constants(state: Gaussians) -> Tensor:
    """Squared length of each class's projected mean; infinite for classes without samples."""
    return torch.where(state.counts > 0, state.projected_means.square().sum(dim=1), torch.inf)


def _whiten(shrunk: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """W (d, rank) with W^T shrunk W = I, and the eigenvalues of `shrunk`."""
    spectrum, vectors = torch.linalg.eigh(shrunk)
    kept = spectrum > least
    return vectors[:, kept] / spectrum[kept].sqrt(), spectrum


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


def _condition_number(spectrum: Tensor, amount: float, scale: float, least: float) -> float:
    """Of the covariance before shrinkage, over its non-null eigenvalues."""
    if amount >= 1:
        return 1.0
    before = (spectrum - amount * scale) / (1 - amount)
    kept = before[before > least]
    return float(kept.max() / kept.min()) if len(kept) else 1.0


def _checked_shrinkage(shrinkage: float | str) -> float:
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise InputError(f"`shrinkage` must be `auto` or in [0, 1]; got {shrinkage!r}. Leave it out for `auto`.")
    return float(shrinkage)


def _check(values: Tensor, labels: Tensor | None, num_features: int, num_classes: int, first_row: int = 0) -> None:
    if values.ndim != 2 or values.shape[1] != num_features:
        raise ShapeError(
            f"`values` must be [n, {num_features}]; got {tuple(values.shape)}. Use features of the same encoder."
        )
    if labels is None:
        return
    if labels.shape != values.shape[:1]:
        raise ShapeError(f"`labels` must be one per row, [{len(values)}]; got {tuple(labels.shape)}. Match them by id.")
    outside = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}); got {int(labels[row])} at row {row + first_row}. "
            f"Re-index the labels or fit with num_classes={max(int(labels.max()) + 1, num_classes)}."
        )


def _check_fitted(state: Gaussians, labels: Tensor) -> None:
    absent = (state.counts[labels] == 0).nonzero()
    if len(absent):
        row = int(absent[0])
        raise InputError(
            f"`labels` must be of classes with samples; got class {int(labels[row])} at row {row}, which was fitted "
            "on nothing. Fit with samples of it, or leave the row out."
        )


def _not_finite(block: Tensor, first_row: int) -> InputError:
    """The error for a block whose sums or projections came out as NaN or infinite: found after the work, at no cost."""
    wrong = (~block.isfinite().all(dim=1)).nonzero()
    if len(wrong):
        row = int(wrong[0]) + first_row
        return InputError(f"`values` must be finite; got NaN or infinity at row {row}. Mend or leave out that sample.")
    largest = float(block.abs().max())
    return InputError(
        f"`values` must be below 1e18, so that their squares fit; got {largest:.3g} from row {first_row} on. "
        "Scale the features down."
    )
