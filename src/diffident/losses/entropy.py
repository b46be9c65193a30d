"""Cross-entropy minus an entropy bonus: the shared function with its analytic gradient, and the constant bonus."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffident.errors import InputError
from diffident.losses.cross_entropy import check_batch, check_reduction, reduce_losses


class _EntropyRegularized(torch.autograd.Function):
    """CE(logits, labels) - strength * H(softmax(logits)) per sample; keeps only the probabilities for backward.

    Gradient for the logits: p - onehot(y) + strength * p * (log p + H). `xlogy` makes p log p exactly 0 at p = 0.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, strength: Tensor) -> Tensor:
        log_probs = torch.log_softmax(logits, dim=1)
        losses = -log_probs.gather(1, labels[:, None]).squeeze(1)
        probs = log_probs.exp_()
        entropy = -torch.xlogy(probs, probs).sum(dim=1)
        ctx.save_for_backward(probs, labels, strength, entropy)
        return losses - strength * entropy

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        # `once_differentiable` hands on a constant, silently, where the outer gradient is one: so refuse any graph.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "A loss with an entropy bonus can be differentiated once; got backward with create_graph=True. "
                "Leave create_graph out, or write the loss with torch.log_softmax."
            )
        probs, labels, strength, entropy = ctx.saved_tensors
        gradient = torch.xlogy(probs, probs).addcmul_(probs, entropy[:, None])
        gradient.mul_(strength[:, None]).add_(probs)
        gradient.scatter_add_(1, labels[:, None], gradient.new_full((len(labels), 1), -1.0))
        return gradient.mul_(grad_outputs[0][:, None]), None, None


def entropy_regularized_losses(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], strength: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """CE(logits, labels) - strength * H(softmax(logits)) of every sample.

    Differentiable once, for the logits alone; `create_graph=True` is refused with a RuntimeError.

    Args:
        logits: float32 or float64 (`check_batch` sees to it).
        labels: Classes in [0, c).
        strength: What multiplies the entropy, >= 0; a constant for the gradient.
    """
    return _EntropyRegularized.apply(logits, labels.long(), strength.detach().to(logits))  # type: ignore[return-value]


def check_alpha(alpha: float) -> float:
    """Alpha as a float, if it is finite and not negative.

    Raises:
        InputError: it is not.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise InputError(f"`alpha` must be finite and at least 0; got {alpha}. Take 0.1 to 0.3; 0 is cross-entropy.")
    return float(alpha)


class EntropyBonus(nn.Module):
    """Cross-entropy minus alpha times the entropy of softmax(logits): the same bonus for every sample.

    Args:
        alpha: Strength of the bonus, >= 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Reference:
        Pereyra et al. 2017, arXiv 1701.06548 (the confidence penalty).
    """

    def __init__(self, alpha: float = 0.1, *, reduction: str = "mean"):
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        logits: Float[Tensor, "..."],
        labels: Int[Tensor, "..."],
        weights: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The loss; it can be differentiated once.

        Args:
            logits: Unnormalised log-probabilities [n, c].
            labels: Classes [n] in [0, c).
            weights: Ignored; here so that every loss is called alike.

        Returns:
            A scalar, or [n] for `none`; float32 where the logits are float16 or bfloat16.

        Raises:
            InputError: wrong shapes, an empty batch or a label out of range.
        """
        logits = check_batch(logits, labels)
        strength = logits.new_full((len(logits),), self.alpha)
        return reduce_losses(entropy_regularized_losses(logits, labels, strength), self.reduction)

    def extra_repr(self) -> str:
        """The options."""
        return f"alpha={self.alpha}, reduction={self.reduction!r}"
