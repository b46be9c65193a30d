"""Energy: -T log sum exp(logits / T). Log-probabilities are refused: their energy is 0.

Reference:
    Liu et al. 2020, arXiv 2010.03759.
"""

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffident.confidence import negative_energy
from diffident.detectors.protocol import Outputs, check_unnormalised, make_options
from diffident.options import check_above_zero


@dataclass(frozen=True)
class EnergyOptions:
    """Options of `energy`.

    Attributes:
        temperature: T.
    """

    temperature: float = 1.0

    def __post_init__(self):
        check_above_zero("temperature", self.temperature)


def fit(outputs: Outputs, **options: Any) -> EnergyOptions:
    """Nothing to fit; options: `EnergyOptions`."""
    return make_options(EnergyOptions, "energy", options)


def score(state: EnergyOptions, outputs: Outputs) -> Float[Tensor, " n"]:
    """Unbounded."""
    logits = outputs.given("logits")
    check_unnormalised(logits, "energy")
    return -state.temperature * negative_energy(logits / state.temperature)


def describe(state: EnergyOptions) -> dict[str, Any]:
    """The temperature."""
    return asdict(state)
