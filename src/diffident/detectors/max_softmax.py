"""Minus the largest probability.

Reference:
    Hendrycks and Gimpel 2017, arXiv 1610.02136.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffident.confidence import max_softmax
from diffident.detectors.protocol import Outputs, make_options


@dataclass(frozen=True)
class MaxSoftmaxOptions:
    """`max-softmax` has no options."""


def fit(outputs: Outputs, **options: Any) -> MaxSoftmaxOptions:
    """Nothing to fit."""
    return make_options(MaxSoftmaxOptions, "max-softmax", options)


def score(state: MaxSoftmaxOptions, outputs: Outputs) -> Float[Tensor, " n"]:
    """In [-1, -1/c]."""
    return -max_softmax(outputs.given("logits"))


def describe(state: MaxSoftmaxOptions) -> dict[str, Any]:
    """Nothing."""
    return {}
