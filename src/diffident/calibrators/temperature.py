"""One temperature: log-probabilities are log softmax(logits / T).

The mean negative log-likelihood is convex in 1 / T, so its slope has one root at most; Newton's method finds it,
bisection where a step leaves the bracket. T stays 1 where nothing is better, so that the fit is never worse than none.
Where every label has the largest logit, T would go to 0, and where labels are no better than chance to infinity: it is
held between a hundredth and a hundred times what the spread of the logits allows, and `at_bound` says so.

Cost: about ten passes over the logits.

Reference:
    Guo et al. 2017, arXiv 1706.04599, section 4.2.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators.protocol import centred, make_options, row_blocks
from diffident.errors import InputError

_MAX_STEPS = 100
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class TemperatureOptions:
    """`temperature` has no options."""


@dataclass(frozen=True)
class Temperature:
    """What all logits are divided by.

    Attributes:
        temperature: T, above 0; above 1 makes the model less sure.
        at_bound: Whether the likelihood was still rising where the search was stopped.
    """

    temperature: float
    at_bound: bool

    def __post_init__(self):
        if not self.temperature > 0:
            raise InputError(f"`temperature` must be above 0; got {self.temperature:g}. Fit it again.")


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> Temperature:
    """The temperature that makes the labels most likely."""
    make_options(TemperatureOptions, "temperature", options)
    spread = max(-float(centred(logits[rows]).min()) for rows in row_blocks(*logits.shape))
    if not spread:
        return Temperature(1.0, False)
    inverse, at_bound = _inverse_temperature(logits, labels, spread)
    # Also where the two are equal but for rounding.
    if not _nll(logits, labels, inverse)[0] < _nll(logits, labels, 1.0)[0]:
        return Temperature(1.0, False)
    return Temperature(1 / inverse, at_bound)


def calibrate(state: Temperature, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of logits / T."""
    return torch.log_softmax(centred(logits) / state.temperature, dim=1)


def describe(state: Temperature) -> dict[str, Any]:
    """The temperature."""
    return {"temperature": state.temperature, "at_bound": state.at_bound}


def _inverse_temperature(logits: Tensor, labels: Tensor, spread: float) -> tuple[float, bool]:
    """1 / T where the slope is 0, and whether that lies beyond the bounds."""
    low, high = math.log(0.01 / max(1.0, spread)), math.log(100 / min(1.0, spread))
    if _nll(logits, labels, math.exp(low))[1] >= 0:
        return math.exp(low), True
    if _nll(logits, labels, math.exp(high))[1] <= 0:
        return math.exp(high), True
    place = 0.0
    for _ in range(_MAX_STEPS):
        inverse = math.exp(place)
        _, slope, curvature = _nll(logits, labels, inverse)
        if slope < 0:
            low = place
        else:
            high = place
        step = slope / (curvature * inverse) if curvature > 0 else math.inf
        following = place - step if low < place - step < high else (low + high) / 2
        if abs(following - place) < _TOLERANCE or slope == 0:
            break
        place = following
    return math.exp(place), False


def _nll(logits: Tensor, labels: Tensor, inverse: float) -> tuple[float, float, float]:
    """Mean negative log-likelihood at 1 / T, its slope there and its curvature."""
    sums = [0.0, 0.0, 0.0]
    for rows in row_blocks(*logits.shape):
        values = centred(logits[rows])
        own = values.gather(1, labels[rows, None])[:, 0]
        weights = torch.exp(values * inverse)
        total = weights.sum(dim=1)
        mean = torch.linalg.vecdot(weights, values) / total
        square = torch.linalg.vecdot(weights, values.square()) / total
        sums[0] += float((total.log() - inverse * own).sum())
        sums[1] += float((mean - own).sum())
        sums[2] += float((square - mean.square()).sum())
    return sums[0] / len(labels), sums[1] / len(labels), sums[2] / len(labels)
