"""Samples of a batch mixed in pairs, for training on mixtures with any loss.

A training loop asks the loss which samples to mix, and lets them through the model:

    mixing = draw_mixing(criterion, len(labels), generator, alpha=0.4)
    loss, logits, labels = mixed_loss(model, criterion, mixing, inputs, labels, weights)

`mixup` and `regmixup` have an alpha of their own. Where nothing is mixed, `mixing` is None and the loss is
`criterion(model(inputs), labels, weights)`.

A mixture's loss is the mixture of its two samples' losses at the mixture's logits, each with its own label and weight:
of cross-entropy that is the loss of the mixed label; and a sample that is left out, as its label is not believed, is
left out of its mixtures too, which no mean of two weights can say.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from diffident.errors import InputError
from diffident.losses.base import check_number


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
        alpha = check_number("alpha", alpha, 0, hint="Take 0.4, or 0 to mix nothing.")
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
            raise InputError(f"`inputs` must be pixels or features to be mixed; got {own.dtype}. Train without mixup.")
        return self._joined(own, partner)

    def loss(
        self,
        criterion: nn.Module,
        logits: Float[Tensor, "m c"],
        labels: Shaped[Tensor, "n ..."],
        weights: Float[Tensor, " n"] | None,
    ) -> Float[Tensor, "..."]:
        """The share of each row's own loss and the rest of its partner's, in the criterion's reduction.

        Args:
            criterion: Called as `Loss`; where the samples go first, its weights are what each row counts.
            logits: Of `inputs`.
            labels: Of the samples, classes or probabilities of them, on the device of the partners.
            weights: Of the samples, or None.
        """
        other = labels[self.partners]
        if self.eta is not None:
            counts = torch.ones(2, len(labels), device=logits.device)
            counts[1] = self.eta
            both = [(torch.cat([labels, second]), counts.flatten()) for second in (labels, other)]
        else:
            both = [(labels, weights), (other, None if weights is None else weights[self.partners])]
        if self.share in (0, 1):  # not none of the other: that may be infinite, where classes are masked
            return criterion(logits, *both[0 if self.share else 1])
        own, partner = (criterion(logits, *one) for one in both)
        return torch.lerp(partner, own, self.share)

    def labels(self, own: Shaped[Tensor, " n"], partner: Shaped[Tensor, " n"]) -> Shaped[Tensor, " n"]:
        """The labels that the first n rows of logits are right about: a mixture's is that of its larger share.

        Of their weights the same.
        """
        return own if self.eta is not None or self.share >= 0.5 else partner

    def _joined(self, own: Tensor, partner: Tensor) -> Tensor:
        mixed = torch.lerp(partner, own, self.share)
        return mixed if self.eta is None else torch.cat([own, mixed])


def draw_mixing(criterion: nn.Module, count: int, generator: torch.Generator, alpha: float = 0.0) -> Mixing | None:
    """How a batch of `count` is mixed: as the loss wants it, else by Beta(alpha, alpha), which is None with 0.

    An alpha suits losses that look at each sample by itself, and so not `crl`, `mmce` and `soft-ece`.

    Raises:
        InputError: alpha is negative or not finite.
    """
    draw = getattr(criterion, "draw_mixing", None)
    if draw is not None:
        return draw(count, generator)
    return Mixing.draw(count, alpha, generator) if alpha else None


def mixed_loss(
    model: Callable[[Tensor], Tensor],
    criterion: nn.Module,
    mixing: Mixing | None,
    inputs: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    weights: Float[Tensor, " n"] | None,
    soft: Float[Tensor, "n c"] | None = None,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "n c"], Int[Tensor, " n"]]:
    """The loss of a batch through the model, mixed as `mixing` says.

    Args:
        model: From inputs to logits.
        criterion: Called as `Loss`.
        mixing: How samples are mixed, or None.
        inputs: Of the samples.
        labels: Their classes.
        weights: One a sample, or None.
        soft: Probabilities of the classes, which are learnt in the place of the labels, or None.

    Returns:
        The loss; logits of n samples, or mixtures where these take the samples' place; the labels to compare them with.
    """
    learnt = labels if soft is None else soft
    if mixing is None:
        logits = model(inputs)
        return criterion(logits, learnt, weights), logits, labels
    mixing = replace(mixing, partners=mixing.partners.to(labels.device))
    logits = model(mixing.inputs(inputs, inputs[mixing.partners]))
    loss = mixing.loss(criterion, logits, learnt, weights)
    return loss, logits[: len(labels)], mixing.labels(labels, labels[mixing.partners])
