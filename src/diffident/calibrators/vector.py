"""A factor and an offset for every class: log softmax(w * logits + b), on logits minus the mean of their row.

Convex; the penalty ridge / 2n sum((w - 1)^2 + b^2), a unit normal prior around no change, keeps it finite where classes
are separable or absent, and the fit from ever being worse than none.

Cost: L-BFGS, some 20 to 100 passes over the logits.

Reference:
    Guo et al. 2017, arXiv 1706.04599, section 4.2 (without the penalty, on the logits as they are).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.protocol import check_width, make_options, minimised, row_blocks, zero_sum
from diffident.options import check_above_zero


@dataclass(frozen=True)
class VectorOptions:
    """Options of `vector`.

    Attributes:
        ridge: Weight of the prior, in samples.
    """

    ridge: float = 1.0

    def __post_init__(self):
        check_above_zero("ridge", self.ridge)


@dataclass(frozen=True)
class VectorScaling:
    """What each class's logit is multiplied by, and what is added.

    Attributes:
        factors: w (c,), float64.
        offsets: b (c,), float64; they sum to 0.
    """

    factors: Float[Tensor, " c"]
    offsets: Float[Tensor, " c"]


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> VectorScaling:
    """The factors and offsets that make the labels most likely; options: `VectorOptions`."""
    ridge = make_options(VectorOptions, "vector", options).ridge
    size, width = logits.shape
    none = np.concatenate([np.ones(width), np.zeros(width)])

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        factors, offsets = torch.from_numpy(parameters).chunk(2)
        value, slopes = 0.0, torch.zeros(2, width, dtype=torch.float64)
        for rows in row_blocks(size, width):
            values = zero_sum(logits[rows])
            log_probs = torch.log_softmax(values * factors + offsets, dim=1)
            value -= float(log_probs.gather(1, labels[rows, None]).sum())
            residuals = log_probs.exp_()
            residuals.scatter_add_(1, labels[rows, None], residuals.new_full((len(residuals), 1), -1.0))
            slopes[1] += residuals.sum(dim=0)
            slopes[0] += residuals.mul_(values).sum(dim=0)
        moved = parameters - none
        value = (value + ridge / 2 * float(moved @ moved)) / size
        return value, (slopes.flatten().numpy() + ridge * moved) / size

    factors, offsets = torch.from_numpy(minimised(objective, none)).chunk(2)
    return VectorScaling(factors.clone(), offsets - offsets.mean())


def calibrate(state: VectorScaling, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of w * logits + b."""
    check_width(logits, len(state.factors))
    return torch.log_softmax(zero_sum(logits) * state.factors + state.offsets, dim=1)


def describe(state: VectorScaling) -> dict[str, Any]:
    """The ranges of factors and offsets."""
    return {
        "factors": [float(state.factors.min()), float(state.factors.max())],
        "offsets": [float(state.offsets.min()), float(state.offsets.max())],
    }
