"""The fitted Gaussians, as every other stage takes them."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
