"""Entropy of the probabilities, in nats."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffident.confidence import TIE_DECIMALS, entropy
from diffident.detectors.protocol import Outputs, make_options


@dataclass(frozen=True)
class EntropyOptions:
    """`entropy` has no options."""


def fit(outputs: Outputs, **options: Any) -> EntropyOptions:
    """Nothing to fit."""
    return make_options(EntropyOptions, "entropy", options)


def score(state: EntropyOptions, outputs: Outputs) -> Float[Tensor, " n"]:
    """In [0, log c]; rounded to 12 decimals, so that the order of the classes breaks no tie."""
    return entropy(outputs.given("logits")).round(decimals=TIE_DECIMALS)


def describe(state: EntropyOptions) -> dict[str, Any]:
    """Nothing."""
    return {}
