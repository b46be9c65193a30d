"""The smooth calibration error: no bins, but a kernel whose width the error itself decides."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.metrics.calibration import CalibrationSums, calibration_sums
from diffident.metrics.ranking import Ranking, one_or_all, rank_samples

NUM_CELLS = 2048
"""Cells of [0, 1] into which confidences are put before they are smoothed."""
_HALVINGS = 24


def cell_cuts(ranking: Ranking, num_cells: int = NUM_CELLS) -> Int[Tensor, " e"]:
    """Columns of `CalibrationSums` between which the cells lie, from the confidence 0 up."""
    ascending = ranking.scores[ranking.ends].flip(0)
    edges = torch.arange(1, num_cells, dtype=torch.float64, device=ascending.device) / num_cells
    above = len(ascending) - torch.searchsorted(ascending, edges, right=True)
    return torch.cat([above.new_full((1,), len(ascending)), above, above.new_zeros(1)])


def cell_gaps(sums: CalibrationSums, cuts: Int[Tensor, " e"]) -> Float[Tensor, "r m"]:
    """Confidences minus right predictions in every cell, divided by the number of samples."""
    return -sums.gaps.index_select(1, cuts).diff(dim=1) / sums.totals[:, -1:]


def smooth(gaps: Float[Tensor, "r m"], width: Float[Tensor, " r"]) -> Float[Tensor, "r m"]:
    """The gaps smoothed by a Gaussian that is reflected at 0 and 1, one width (standard deviation) a row.

    On the circle of twice the length, where the reflected cells follow the cells, that is a Fourier multiplier.
    """
    return _at_width(_spectrum(gaps), width, gaps.shape[1])


def _spectrum(gaps: Float[Tensor, "r m"]) -> Tensor:
    return torch.fft.rfft(torch.cat([gaps, gaps.flip(1)], dim=1), dim=1)


def _at_width(spectrum: Tensor, width: Float[Tensor, " r"], num_cells: int) -> Float[Tensor, "r m"]:
    frequency = math.pi * torch.arange(spectrum.shape[1], dtype=torch.float64, device=width.device)
    kernel = torch.exp(-(frequency * width[:, None]).square() / 2)
    return torch.fft.irfft(spectrum * kernel, n=2 * num_cells, dim=1)[:, :num_cells]


def smooth_width(gaps: Float[Tensor, "r m"]) -> Float[Tensor, " r"]:
    """The width at which the smoothed gaps' total equals the width: `ece_smooth` of every row."""
    spectrum, num_cells = _spectrum(gaps), gaps.shape[1]
    low, high = gaps.new_zeros(len(gaps)), gaps.new_ones(len(gaps))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        wider = _at_width(spectrum, middle, num_cells).abs().sum(dim=1) > middle  # the total falls with the width
        low, high = torch.where(wider, middle, low), torch.where(wider, high, middle)
    return torch.where(low > 0, (low + high) / 2, 0)


def ece_smooth(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], counts: Float[Tensor, "r n"] | None = None
) -> Float[Tensor, "..."]:
    """Smooth expected calibration error, without bins to choose.

    The gaps (confidence minus 1[right]) are smoothed over the confidence by a Gaussian of width s reflected at 0 and 1,
    and the integral of their absolute value is e(s); the error is the only s with e(s) = s. Confidences are put into
    2048 cells first.

    Args:
        confidence: Probability given to the prediction, in [0, 1].
        errors: Which predictions are wrong.
        counts: How often each sample occurs in each resample; None is once each.

    Returns:
        A scalar in [0, 1], or one per resample (r,); lower is better.

    Reference:
        Błasiok and Nakkiran 2023, arXiv 2309.12236, section 4.
    """
    ranking = rank_samples(confidence, errors)
    gaps = cell_gaps(calibration_sums(ranking, counts), cell_cuts(ranking))
    return one_or_all(smooth_width(gaps), counts)
