"""A linear map of the logits: log softmax(W logits + b), on logits minus the mean of their row. See `affine`.

Reference:
    Guo et al. 2017, arXiv 1706.04599, section 4.2; Kull et al. 2019, arXiv 1910.12656 (the regulariser).
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.affine import AffineMap, apply_affine, describe_affine, fit_affine
from diffident.calibrators.protocol import zero_sum


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> AffineMap:
    """The map that makes the labels most likely; options: `AffineOptions`."""
    return fit_affine(logits, labels, zero_sum, "matrix", options)


def calibrate(state: AffineMap, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of W logits + b."""
    return apply_affine(state, logits, zero_sum)


def describe(state: AffineMap) -> dict[str, Any]:
    """lambda, and how far the map is from none."""
    return describe_affine(state)
