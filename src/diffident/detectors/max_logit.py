"""Minus the largest logit.

Reference:
    Hendrycks et al. 2022, arXiv 1911.11132.
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffident.confidence import max_logit
from diffident.detectors.protocol import Outputs, make_options


@dataclass(frozen=True)
class MaxLogitOptions:
    """`max-logit` has no options."""


def fit(outputs: Outputs, **options: Any) -> MaxLogitOptions:
    """Nothing to fit."""
    return make_options(MaxLogitOptions, "max-logit", options)


def score(state: MaxLogitOptions, outputs: Outputs) -> Float[Tensor, " n"]:
    """Unbounded."""
    return -max_logit(outputs.given("logits"))


def describe(state: MaxLogitOptions) -> dict[str, Any]:
    """Nothing."""
    return {}
