"""A linear map of the log-probabilities: log softmax(W log p + b). See `affine`.

Unlike `matrix` it sees only the probabilities: those below 2.2e-16 count as that, as in the authors' code.

Reference:
    Kull et al. 2019, arXiv 1910.12656.
"""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.affine import AffineMap, apply_affine, describe_affine, fit_affine
from diffident.calibrators.protocol import LEAST_LOG_PROB, log_probs_of


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> AffineMap:
    """The map that makes the labels most likely; options: `AffineOptions`."""
    return fit_affine(logits, labels, _inputs, "dirichlet", options)


def calibrate(state: AffineMap, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of W log p + b."""
    return apply_affine(state, logits, _inputs)


def describe(state: AffineMap) -> dict[str, Any]:
    """lambda, and how far the map is from none."""
    return describe_affine(state)


def _inputs(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    return log_probs_of(logits).clamp_(min=LEAST_LOG_PROB)
