"""A temperature that depends on the predicted difficulty: log softmax(logits * v(u)), u the difficulty's rank.

u in [0, 1] is the rank of a sample's difficulty among the calibration samples, and v = 1 / T is linear between values
at `knots` equally spaced ranks (two by default: at the easiest and the hardest). In these values the negative
log-likelihood is convex, which it is not in T or log T; equal values are one temperature for all, so the fit starts
from that of `temperature` and is never worse on its own split.

The difficulty must be one that needs no label, since the samples to be calibrated have none: for example the least
relative squared distance over classes, min_k D2_k - D2_0, of the features of an encoder.

Cost: that of `temperature` and some 20 more passes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators import temperature
from diffident.calibrators.protocol import centred, make_options, minimised, row_blocks
from diffident.errors import InputError
from diffident.options import check_whole

_MAX_POINTS = 1_001
# Part of the one inverse temperature that every knot keeps at least.
_LEAST = 0.01


@dataclass(frozen=True)
class DifficultyTemperatureOptions:
    """Options of `difficulty-temperature`.

    Attributes:
        knots: Number of ranks at which 1 / T is free.
    """

    knots: int = 2

    def __post_init__(self):
        check_whole("knots", self.knots, 2)


@dataclass(frozen=True)
class DifficultyTemperature:
    """1 / T as a function of difficulty.

    Attributes:
        difficulties: Rising, at most 1,001 of those fitted (q,), float64.
        ranks: Their ranks in [0, 1]; ties share their mean rank (q,), float64.
        inverses: 1 / T at equally spaced ranks (k,), float64, above 0.
    """

    difficulties: Float[Tensor, " q"]
    ranks: Float[Tensor, " q"]
    inverses: Float[Tensor, " k"]

    def __post_init__(self):
        if len(self.ranks) != len(self.difficulties):
            raise InputError(
                f"`ranks` must have {len(self.difficulties)} entries like `difficulties`; got {len(self.ranks)}. "
                "Fit it again."
            )
        if len(self.inverses) < 2 or not bool((self.inverses > 0).all()):
            raise InputError(f"`inverses` must be 2 or more above 0; got {self.inverses.tolist()}. Fit it again.")


def fit(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], *, difficulty: Float[Tensor, " n"], **options: Any
) -> DifficultyTemperature:
    """The values of 1 / T that make the labels most likely; options: `DifficultyTemperatureOptions`."""
    knots = make_options(DifficultyTemperatureOptions, "difficulty-temperature", options).knots
    points, ranks = _rank_points(difficulty.double())
    one = 1 / temperature.fit(logits, labels).temperature
    shares = _shares(torch.from_numpy(np.interp(difficulty.double().numpy(), points, ranks)), knots)

    def objective(relative: np.ndarray) -> tuple[float, np.ndarray]:
        inverses = one * torch.from_numpy(relative)
        value, slopes = 0.0, torch.zeros(knots, dtype=torch.float64)
        for rows in row_blocks(*logits.shape):
            values = centred(logits[rows])
            own = values.gather(1, labels[rows, None])[:, 0]
            log_probs = torch.log_softmax(values * (shares[rows] @ inverses)[:, None], dim=1)
            value -= float(log_probs.gather(1, labels[rows, None]).sum())
            slopes += (torch.linalg.vecdot(log_probs.exp_(), values) - own) @ shares[rows]
        return value / len(labels), (one * slopes / len(labels)).numpy()

    found = minimised(objective, np.ones(knots), least=_LEAST)
    return DifficultyTemperature(torch.from_numpy(points), torch.from_numpy(ranks), one * torch.from_numpy(found))


def calibrate(
    state: DifficultyTemperature, logits: Float[Tensor, "n c"], *, difficulty: Float[Tensor, " n"]
) -> Float[Tensor, "n c"]:
    """Log-probabilities of logits / T(difficulty); beyond the fitted difficulties the nearest one's."""
    ranks = np.interp(difficulty.double().numpy(), state.difficulties.numpy(), state.ranks.numpy())
    shares = _shares(torch.from_numpy(ranks), len(state.inverses))
    return torch.log_softmax(centred(logits) * (shares @ state.inverses)[:, None], dim=1)


def describe(state: DifficultyTemperature) -> dict[str, Any]:
    """The temperatures at the knots, from the easiest to the hardest."""
    return {"temperatures": (1 / state.inverses).tolist()}


def _rank_points(difficulty: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Different difficulties, rising, and their mean ranks in [0, 1]; thinned to at most 1,001."""
    values, counts = np.unique(difficulty.numpy(), return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2) / max(1, len(difficulty) - 1)
    kept = np.unique(np.linspace(0, len(values) - 1, _MAX_POINTS).round().astype(np.int64))
    return values[kept], ranks[kept] if len(values) > 1 else np.array([0.5])


def _shares(ranks: Float[Tensor, " n"], knots: int) -> Float[Tensor, "n k"]:
    """How much of every knot's value counts at a rank; rows sum to 1."""
    places = torch.arange(knots, dtype=torch.float64)
    return (1 - (ranks[:, None] * (knots - 1) - places).abs()).clamp(min=0)
