"""What every encoder offers, whoever made the weights."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """Turns samples into features.

    Attributes:
        name: As given on the command line, for example `timm:resnet18`.
        fingerprint: Hex digest of the weights, the preprocessing and every option that changes a feature.
        parts: What the fingerprint is made of, by name (weights, preprocessing, precision, ...), so that a mismatch can
            say what differs.
        modality: `image`, `text`, `vector` or `any`: what a sample must be.
    """

    name: str
    fingerprint: str
    parts: dict[str, str]
    modality: str

    def prepare(self, sample: Any) -> Any:
        """Preprocess one sample (PIL image, string or vector); runs in a worker, while the model computes."""
        ...

    def encode(self, batch: Sequence[Any]) -> Float[Tensor, "n d"]:
        """Features of prepared samples, float32 on the CPU."""
        ...
