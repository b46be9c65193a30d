"""What `isotonic`, `histogram` and `beta` share: every class's probability is mapped on its own, then rows to sum 1."""

from jaxtyping import Float
from torch import Tensor

from diffident.calibrators.protocol import log_probs_of, normalised
from diffident.confidence import TIE_DECIMALS


def class_probs(logits: Float[Tensor, "n c"]) -> Float[Tensor, "c n"]:
    """Probabilities, a row a class; rounded to 12 decimals, as the last bits would break ties and cross bins' edges."""
    return log_probs_of(logits).exp_().round_(decimals=TIE_DECIMALS).T.contiguous()


def joined(probs: Float[Tensor, "c n"], num_fitted: int) -> Float[Tensor, "n c"]:
    """Log-probabilities of the mapped ones, brought to sum 1.

    Before rows are normalised none is below 1 / (n c), n the size of the calibration split: rarer things were not seen,
    but are not impossible. All of a row that lie there give equal probabilities.
    """
    least = 1 / (num_fitted * len(probs))
    return normalised(probs.clamp(min=least).log_().T.contiguous())
