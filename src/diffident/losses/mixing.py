"""Samples of a batch mixed in pairs, for the losses that train on mixtures.

A training loop asks the loss which samples to mix, and lets them through the model:

    mixing = draw_mixing(criterion, len(labels), generator)
    loss, logits = mixed_loss(model, criterion, mixing, inputs, labels, weights)

For a loss that does not mix, `mixing` is None and the second line is `criterion(model(inputs), labels, weights)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from diffident.errors import InputError


@dataclass(frozen=True)
class Mixing:
    """Which samples of a batch are mixed, and how much of each.

    It is drawn for a whole batch; where parts of that go through the model one after another, or on several devices,
    `rows` gives each part its own.

    Attributes:
        partners: Sample i is mixed with sample partners[i] of the batch (n,).
        share: Of sample i in its mixture, in [0, 1]; the rest is the partner's.
        eta: None where mixtures take the samples' place. Else the samples go first and the mixtures after them, and eta
            is what a mixture counts in the loss beside a sample.
    """

    partners: Int[Tensor, " n"]
    share: float
    eta: float | None = None

    @classmethod
    def draw(cls, count: int, alpha: float, generator: torch.Generator, eta: float | None = None) -> "Mixing":
        """A random permutation, and one share for the batch from Beta(alpha, alpha); with alpha 0 the share is 1."""
        partners = torch.randperm(count, generator=generator)
        seed = int(torch.randint(2**62, (), generator=generator))  # torch draws no Beta from a generator
        share = float(np.random.default_rng(seed).beta(alpha, alpha)) if alpha > 0 else 1.0
        return cls(partners, share, eta)

    def rows(self, positions: Int[Tensor, " m"]) -> "Mixing":
        """The mixing of a part of the batch, whose samples are partners of each other; the share is the batch's."""
        return replace(self, partners=self.partners[positions].argsort())

    def inputs(self, own: Shaped[Tensor, "n ..."], partner: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
        """What goes through the model; pixels of 8 bits become numbers in [0, 1], as the models take them.

        Raises:
            InputError: whole numbers of more than 8 bits: numbers of words cannot be mixed.
        """
        if own.dtype == torch.uint8:
            own, partner = own.float() / 255, partner.float() / 255
        if not own.is_floating_point():
            raise InputError(f"`inputs` must be pixels or features to be mixed; got {own.dtype}. Take another loss.")
        return self._joined(own, partner)

    def targets(
        self, own: Int[Tensor, " n"], partner: Int[Tensor, " n"], num_classes: int
    ) -> Float[Tensor, "m {num_classes}"]:
        """The probabilities that the model should give to `inputs`."""
        both = (functional.one_hot(labels, num_classes).to(torch.get_default_dtype()) for labels in (own, partner))
        return self._joined(*both)

    def weights(
        self, own: Float[Tensor, " n"] | None, partner: Float[Tensor, " n"] | None, count: int
    ) -> Float[Tensor, " m"] | None:
        """The mixtures' weights, mixed as the labels are; where the samples go first, what each row counts."""
        if self.eta is not None:
            return torch.cat([torch.ones(count), torch.full((count,), self.eta)])
        return None if own is None or partner is None else self._joined(own, partner)

    def labels(self, own: Int[Tensor, " n"], partner: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The labels that the first n rows of logits are right about: a mixture's is that of its larger share."""
        return own if self.eta is not None or self.share >= 0.5 else partner

    def _joined(self, own: Tensor, partner: Tensor) -> Tensor:
        mixed = torch.lerp(partner, own, self.share)
        return mixed if self.eta is None else torch.cat([own, mixed])


def draw_mixing(criterion: nn.Module, count: int, generator: torch.Generator) -> Mixing | None:
    """How this loss wants a batch mixed; None where it does not mix."""
    draw = getattr(criterion, "draw_mixing", None)
    return None if draw is None else draw(count, generator)


def mixed_loss(
    model: Callable[[Tensor], Tensor],
    criterion: nn.Module,
    mixing: Mixing | None,
    inputs: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    weights: Float[Tensor, " n"] | None,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "n c"], Int[Tensor, " n"]]:
    """The loss of a batch through the model, mixed where the loss wants it.

    Returns:
        The loss; logits of n samples, or mixtures where these take the samples' place; the labels to compare them with.
    """
    if mixing is None:
        logits = model(inputs)
        return criterion(logits, labels, weights), logits, labels
    partners = mixing.partners.to(labels.device)
    count = len(labels)
    logits = model(mixing.inputs(inputs, inputs[partners]))
    targets = mixing.targets(labels, labels[partners], logits.shape[1])
    mixed_weights = mixing.weights(weights, None if weights is None else weights[partners], count)
    loss = criterion(logits, targets, None if mixed_weights is None else mixed_weights.to(logits.device))
    return loss, logits[:count], mixing.labels(labels, labels[partners])
