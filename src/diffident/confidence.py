"""How sure softmax(logits) is, as one number a sample; halves are computed in float32 at least."""

import torch
from jaxtyping import Float
from torch import Tensor

TIE_DECIMALS = 12
"""Decimals of a probability that count when confidences are compared with each other and with the edges of bins."""


def max_softmax(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Largest probability, in [1/c, 1]; higher is surer.

    Float64, rounded to 12 decimals: softmax gives the last bits by the order of the classes, which would break ties and
    carry probabilities such as 0.6 across the edge of a bin.

    Reference:
        Hendrycks and Gimpel 2017, arXiv 1610.02136.
    """
    return torch.softmax(logits.double(), dim=1).amax(dim=1).round(decimals=TIE_DECIMALS)


def entropy(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Entropy of softmax(logits) in nats, in [0, log c]; higher is less sure. A probability of 0 adds 0."""
    probs = torch.softmax(_at_least_float32(logits), dim=1)
    return -torch.xlogy(probs, probs).sum(dim=1)


def margin(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Largest probability minus the second largest, in [0, 1]; higher is surer. One class gives 1."""
    probs = torch.softmax(_at_least_float32(logits), dim=1)
    if probs.shape[1] == 1:
        return probs[:, 0]
    top = probs.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def max_logit(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Largest logit, unbounded; higher is surer.

    Reference:
        Hendrycks et al. 2022, arXiv 1911.11132.
    """
    return _at_least_float32(logits).amax(dim=1)


def negative_energy(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Log of the sum of exp(logits), unbounded; higher is surer.

    Reference:
        Liu et al. 2020, arXiv 2010.03759, at temperature 1.
    """
    return torch.logsumexp(_at_least_float32(logits), dim=1)


def _at_least_float32(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
