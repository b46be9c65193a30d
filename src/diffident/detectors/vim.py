"""Virtual-logit matching: alpha times the distance from the principal subspace, minus log sum exp(logits).

alpha makes the mean of that distance over the training samples that of their largest logit. Distances start at an
origin o: -W^+ b where the last layer's `weights` W and `offsets` b are given, as in the paper; else the mean of the
training features, since features may come from another encoder than the classifier.

Reference:
    Wang et al. 2022, arXiv 2203.10807.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.detectors.protocol import Outputs, check_unnormalised, make_options, row_blocks
from diffident.errors import InputError, ShapeError
from diffident.options import check_whole

# Training samples nearer to the subspace than this part of their length leave nothing to measure.
_LEAST_PART = 1e-6


@dataclass(frozen=True)
class VimOptions:
    """Options of `vim`.

    Attributes:
        dimensions: Of the principal subspace; 0 takes 1,000 from 2,048 features on, 512 from 768 on, else half of them.
        weights: W (c, d) of the classifier's last layer, if the features are what it reads.
        offsets: b (c,) of that layer.
    """

    dimensions: int = 0
    weights: Any = None
    offsets: Any = None

    def __post_init__(self):
        check_whole("dimensions", self.dimensions, 0)
        if (self.weights is None) != (self.offsets is None):
            raise InputError("`weights` must be given with `offsets`; got one of them. Give both, or neither.")


@dataclass(frozen=True)
class Vim:
    """The rest of the principal subspace, and the scale of distances in it.

    Attributes:
        origin: Where distances start (d,), float64.
        rest: Orthonormal directions outside the subspace (d, d - dimensions), float64.
        scale: alpha; 0 where the training samples lie in the subspace.
    """

    origin: Float[Tensor, " d"]
    rest: Float[Tensor, "d r"]
    scale: float


def fit(outputs: Outputs, **options: Any) -> Vim:
    """The subspace of the training features and alpha; options: `VimOptions`."""
    chosen = make_options(VimOptions, "vim", options)
    features, logits = outputs.given("features"), outputs.given("logits")
    check_unnormalised(logits, "vim")
    width = features.shape[1]
    dimensions = chosen.dimensions or usual_dimensions(width)
    if dimensions >= width:
        raise InputError(f"`dimensions` must be below the {width} of the features; got {dimensions}. Choose fewer.")
    origin = _origin(features, chosen)
    moments = torch.zeros(width, width, dtype=torch.float64)
    for block in row_blocks(features, width):
        values = block.double() - origin
        moments += values.T @ values
    rest = torch.linalg.eigh(moments).eigenvectors[:, : width - dimensions].contiguous()
    distances = _distances(origin, rest, features)
    length = float(moments.trace() / len(features)) ** 0.5
    if float(distances.mean()) <= _LEAST_PART * length:
        return Vim(origin, rest, 0.0)
    largest = float(logits.amax(dim=1).mean())
    if largest <= 0:
        raise InputError(
            f"`logits` must have largest values above 0 on average for 'vim', as it scales by them; got {largest:.3g}. "
            "Add a constant to all logits, or take another detector."
        )
    return Vim(origin, rest, largest / float(distances.mean()))


def score(state: Vim, outputs: Outputs) -> Float[Tensor, " n"]:
    """Unbounded."""
    features, logits = outputs.given("features"), outputs.given("logits")
    if features.shape[1] != len(state.origin):
        raise ShapeError(
            f"`features` must be [n, {len(state.origin)}]; got {list(features.shape)}. "
            "Use features of the same encoder."
        )
    return state.scale * _distances(state.origin, state.rest, features) - torch.logsumexp(logits.double(), dim=1)


def describe(state: Vim) -> dict[str, Any]:
    """Dimensions of the subspace, and alpha."""
    return {"dimensions": state.rest.shape[0] - state.rest.shape[1], "scale": state.scale}


def usual_dimensions(num_features: int) -> int:
    """The dimensions that the paper takes for features of this width."""
    return 1000 if num_features >= 2048 else 512 if num_features >= 768 else num_features // 2


def _origin(features: Tensor, options: VimOptions) -> Tensor:
    if options.weights is None:
        return features.mean(dim=0, dtype=torch.float64)
    weights, offsets = (torch.as_tensor(value).double() for value in (options.weights, options.offsets))
    if weights.ndim != 2 or weights.shape[1] != features.shape[1] or offsets.shape != weights.shape[:1]:
        raise ShapeError(
            f"`weights` and `offsets` must be [c, {features.shape[1]}] and [c]; got {list(weights.shape)} and "
            f"{list(offsets.shape)}. Give those of the layer that reads the features."
        )
    return -torch.linalg.pinv(weights) @ offsets


def _distances(origin: Tensor, rest: Tensor, features: Tensor) -> Float[Tensor, " n"]:
    """Distance from the principal subspace through the origin."""
    return torch.cat(
        [((block.double() - origin) @ rest).norm(dim=1) for block in row_blocks(features, features.shape[1])]
    )
