"""The few numbers of every sample that all metrics but the classwise ones are made of."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.confidence import TIE_DECIMALS
from diffident.metrics.accuracy import brier_terms
from diffident.metrics.classwise import ClasswiseSums, classwise_sums
from diffident.metrics.inputs import ClassScores, ScoreBlock


@dataclass(frozen=True)
class SampleTerms:
    """One number a sample each (n,).

    Attributes:
        confidence: Largest probability, rounded like `max_softmax`.
        errors: Which predictions are wrong.
        nll: Minus the log-probability of the label; None where it was not asked for.
        brier: Brier score; likewise.
        labels: Classes.
        positive: Probability of class 1 of a binary task, rounded too; None for others.
    """

    confidence: Float[Tensor, " n"]
    errors: Bool[Tensor, " n"]
    nll: Float[Tensor, " n"] | None
    brier: Float[Tensor, " n"] | None
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
    """The terms of all samples in float64 and the classwise sums, block by block: no second [n, c] array is made."""
    pieces, sums = [], None
    for rows in scores.blocks():
        block, of_rows = scores.block(rows), labels[rows]
        pieces.append(_block_terms(block, of_rows, block.nll(of_rows), brier_terms(block.probs, of_rows)))
        of_block = classwise_sums(block.probs, of_rows)
        sums = of_block if sums is None else sums + of_block
    assert sums is not None  # there is at least one row
    return concatenate_terms(pieces), sums


def light_terms(scores: ClassScores, labels: Int[Tensor, " n"], *, nll: bool, brier: bool) -> SampleTerms:
    """The terms alone, which is faster: but for the Brier score they need no more than two probabilities a sample.

    Args:
        scores: The predictions.
        labels: Classes.
        nll: Whether the log-probability is needed.
        brier: Whether the Brier score is needed.
    """
    pieces = []
    for rows in scores.blocks():
        block, of_rows = scores.block(rows), labels[rows]
        of_nll = block.nll(of_rows) if nll else None
        pieces.append(_block_terms(block, of_rows, of_nll, brier_terms(block.probs, of_rows) if brier else None))
    return concatenate_terms(pieces)


def _block_terms(
    block: ScoreBlock, labels: Int[Tensor, " n"], nll: Float[Tensor, " n"] | None, brier: Float[Tensor, " n"] | None
) -> SampleTerms:
    confidence = block.probability(block.predictions).round(decimals=TIE_DECIMALS)
    positive = None
    if block.values.shape[1] == 2:
        positive = block.probability(torch.ones_like(labels)).round(decimals=TIE_DECIMALS)
    return SampleTerms(confidence, block.predictions != labels, nll, brier, labels, positive)


def confidence_of(scores: ClassScores) -> Float[Tensor, " n"]:
    """Largest probability of every row, block by block, rounded like `max_softmax`."""
    blocks = (scores.block(rows) for rows in scores.blocks())
    return torch.cat([block.probability(block.predictions) for block in blocks]).round(decimals=TIE_DECIMALS)
