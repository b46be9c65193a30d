"""What every detector shares: its verbs, its options, and what it looks at.

A detector is a module with

- `fit(outputs, **options)`: a frozen state, from what the model gave for training samples;
- `score(state, outputs)`: ood_score (n,), float64; higher is more out-of-distribution;
- `describe(state)`: plain JSON values.

Detectors that read logits alone have nothing to fit: their state is their options.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError
from diffident.metrics.inputs import SUM_TOLERANCE
from diffident.options import options_of

Options = TypeVar("Options")

# Rows whose distances to every class are in memory at once.
_BLOCK_NUMBERS = 2**22


@dataclass(frozen=True)
class Outputs:
    """What a model gave for some samples, in one order; what a detector does not need is None.

    Attributes:
        logits: Unnormalised log-probabilities (n, c), float64.
        features: Encoder outputs (n, d).
        labels: Classes (n,), int64.
    """

    logits: Float[Tensor, "n c"] | None = None
    features: Float[Tensor, "n d"] | None = None
    labels: Int[Tensor, " n"] | None = None

    def given(self, name: str) -> Tensor:
        """The one of that name."""
        value = getattr(self, name)
        if value is None:
            raise InputError(f"`{name}` must be given for this detector; got none. Give the {name} of the samples.")
        return value


def make_options(kind: type[Options], detector: str, values: dict[str, Any]) -> Options:
    """The options record of a detector; raises like `diffident.options.options_of`."""
    return options_of(kind, f"detector {detector!r}", values)


def row_blocks(values: Tensor, numbers_per_row: int) -> Iterator[Tensor]:
    """The rows in blocks of which a matrix of so many numbers a row fits into memory."""
    yield from values.split(max(1, _BLOCK_NUMBERS // max(1, numbers_per_row)))


def are_normalised(logits: Float[Tensor, "n c"]) -> bool:
    """Whether these are log-probabilities, whose logsumexp is 0 for every sample, as nearly as their sum may be 1."""
    return bool((torch.logsumexp(logits.double(), dim=1).abs() <= SUM_TOLERANCE).all())


def check_unnormalised(logits: Float[Tensor, "n c"], detector: str) -> None:
    """Refuse log-probabilities."""
    if are_normalised(logits):
        raise InputError(
            f"`logits` must be unnormalised for {detector!r}; got log-probabilities: logsumexp is 0 in every row. "
            "Keep the model's logits, or take entropy or max-softmax."
        )
