"""The few numbers of every sample that all metrics but the classwise ones are made of."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.confidence import TIE_DECIMALS
from diffident.metrics.accuracy import brier_terms
from diffident.metrics.classwise import ClasswiseSums, classwise_sums
from diffident.metrics.inputs import ClassScores, at


@dataclass(frozen=True)
class SampleTerms:
    """One number a sample each (n,).

    Attributes:
        confidence: Largest probability, rounded like `max_softmax`.
        errors: Which predictions are wrong.
        nll: Minus the log-probability of the label.
        brier: Brier score.
        labels: Classes.
        positive: Probability of class 1 of a binary task, rounded too; None for others.
    """

    confidence: Float[Tensor, " n"]
    errors: Bool[Tensor, " n"]
    nll: Float[Tensor, " n"]
    brier: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    positive: Float[Tensor, " n"] | None

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, rows: Tensor) -> "SampleTerms":
        """The terms of some rows, by their numbers or a mask."""
        parts = (getattr(self, field.name) for field in fields(self))
        return SampleTerms(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]


def concatenate_terms(pieces: list[SampleTerms]) -> SampleTerms:
    """The terms of several sets of samples of one task, one after the other."""
    columns = ([getattr(piece, field.name) for piece in pieces] for field in fields(SampleTerms))
    return SampleTerms(*(None if parts[0] is None else torch.cat(parts) for parts in columns))  # type: ignore[arg-type]


def sample_terms(scores: ClassScores, labels: Int[Tensor, " n"]) -> tuple[SampleTerms, ClasswiseSums]:
    """The terms of all samples in float64 and the classwise sums, block by block: no second [n, c] array is made.

    The prediction is the largest value, the lowest class among tied ones.
    """
    pieces, sums = [], None
    for rows in scores.blocks():
        probs, of_rows = scores.probs(rows), labels[rows]
        predictions = scores.values[rows].argmax(dim=1)
        errors, confidence = predictions != of_rows, at(probs, predictions).round(decimals=TIE_DECIMALS)
        positive = probs[:, 1].round(decimals=TIE_DECIMALS) if scores.num_classes == 2 else None
        nll = scores.nll(rows, of_rows, predictions, probs)
        pieces.append(SampleTerms(confidence, errors, nll, brier_terms(probs, of_rows), of_rows, positive))
        block = classwise_sums(probs, of_rows)
        sums = block if sums is None else sums + block
    assert sums is not None  # there is at least one row
    return concatenate_terms(pieces), sums


def confidence_of(scores: ClassScores) -> Float[Tensor, " n"]:
    """Largest probability of every row, block by block, rounded like `max_softmax`."""
    blocks = [scores.probs(rows).amax(dim=1) for rows in scores.blocks()]
    return torch.cat(blocks).round(decimals=TIE_DECIMALS)
