"""Generalised entropy (GEN): the sum of (p (1 - p))^gamma over the largest probabilities.

Reference:
    Liu, Lochman and Zach 2023, CVPR, eq. 5; gamma 0.1 and the 100 largest are theirs. pytorch-ood takes the mean
    instead of the sum, which changes no order.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.confidence import TIE_DECIMALS
from diffident.detectors.protocol import Outputs, make_options
from diffident.errors import InputError
from diffident.options import check_above_zero, check_whole


@dataclass(frozen=True)
class GeneralizedEntropyOptions:
    """Options of `generalized-entropy`.

    Attributes:
        gamma: Power, in (0, 1].
        largest: How many of the largest probabilities count.
    """

    gamma: float = 0.1
    largest: int = 100

    def __post_init__(self):
        check_above_zero("gamma", self.gamma)
        if self.gamma > 1:
            raise InputError(f"`gamma` must be in (0, 1]; got {self.gamma!r}. Leave it out for the default.")
        check_whole("largest", self.largest, 1)


def fit(outputs: Outputs, **options: Any) -> GeneralizedEntropyOptions:
    """Nothing to fit; options: `GeneralizedEntropyOptions`."""
    return make_options(GeneralizedEntropyOptions, "generalized-entropy", options)


def score(state: GeneralizedEntropyOptions, outputs: Outputs) -> Float[Tensor, " n"]:
    """At least 0; rounded to 12 decimals, so that the order of the classes breaks no tie."""
    log_probs = torch.log_softmax(outputs.given("logits"), dim=1)
    largest, order = log_probs.topk(min(state.largest, log_probs.shape[1]), dim=1)
    # In logarithms, as p may be too small for a float, but not p^gamma; 1 - p of the largest is the sum of the others.
    rest = torch.log1p(-largest.exp())
    rest[:, 0] = log_probs.scatter(1, order[:, :1], -torch.inf).logsumexp(dim=1)
    return torch.exp(state.gamma * (largest + rest)).sum(dim=1).round(decimals=TIE_DECIMALS)


def describe(state: GeneralizedEntropyOptions) -> dict[str, Any]:
    """Gamma and the number of probabilities."""
    return asdict(state)
