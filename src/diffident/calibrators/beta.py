"""A beta curve for every class, logit q_k = a log p_k - b log(1 - p_k) + c with a, b >= 0, then rows brought to sum 1.

Each class is a logistic regression of 1[label = k]; all are solved together by Newton's method, and those in which a or
b came out negative again without it, as the authors do. The penalty ridge / 2 ((a - 1)^2 + (b - 1)^2 + c^2), a unit
normal prior around no change, keeps classes finite that are separable or absent; the authors have none. Probabilities
within 2.2e-16 of 0 or 1 count as that.

Cost: about ten passes over the logits, each with a dozen operations an entry.

Reference:
    Kull, Silva Filho and Flach 2017, AISTATS; one against the rest as in Kull et al. 2019, arXiv 1910.12656.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from diffident.calibrators.protocol import LEAST_LOG_PROB, check_width, log_probs_of, make_options, normalised
from diffident.options import check_above_zero

_MAX_STEPS = 100
_TOLERANCE = 1e-10
_CHUNK_NUMBERS = 2**22


@dataclass(frozen=True)
class BetaOptions:
    """Options of `beta`.

    Attributes:
        ridge: Weight of the prior, in samples.
    """

    ridge: float = 1.0

    def __post_init__(self):
        check_above_zero("ridge", self.ridge)


@dataclass(frozen=True)
class BetaMaps:
    """A curve for every class.

    Attributes:
        parameters: a, b and c (classes, 3), float64.
    """

    parameters: Float[Tensor, "c 3"]


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> BetaMaps:
    """All curves; options: `BetaOptions`."""
    ridge = make_options(BetaOptions, "beta", options).ridge
    log_probs = log_probs_of(logits)
    rows = max(1, _CHUNK_NUMBERS // len(labels))
    parts = []
    for start in range(0, log_probs.shape[1], rows):
        inputs = _inputs(log_probs[:, start : start + rows].T.contiguous())
        classes = torch.arange(start, start + len(inputs[0]))
        parts.append(_bounded(inputs, (labels == classes[:, None]).double(), ridge))
    return BetaMaps(torch.cat(parts))


def calibrate(state: BetaMaps, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of the mapped and normalised probabilities."""
    check_width(logits, len(state.parameters))
    a, b, c = state.parameters.T
    log_probs, rest = _inputs(log_probs_of(logits))
    return normalised(functional.logsigmoid(a * log_probs + b * rest + c))


def describe(state: BetaMaps) -> dict[str, Any]:
    """The ranges of a, b and c."""
    return {name: [float(v.min()), float(v.max())] for name, v in zip("abc", state.parameters.T, strict=True)}


def _inputs(log_probs: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Log p and -log(1 - p), each held to what float64 resolves."""
    rest = torch.log(-torch.expm1(log_probs))
    return log_probs.clamp(min=LEAST_LOG_PROB), -rest.clamp(min=LEAST_LOG_PROB)


def _bounded(inputs: tuple[Tensor, Tensor], targets: Float[Tensor, "c n"], ridge: float) -> Float[Tensor, "c 3"]:
    """Parameters with a, b >= 0: those of the free fit, or the best of those with a, b or both at 0."""
    free = torch.ones(len(targets), 3, dtype=torch.bool)
    parameters = _solved(inputs, targets, ridge, free)[0]
    wrong = (parameters[:, :2] < 0).any(dim=1).nonzero()[:, 0]
    if not len(wrong):
        return parameters
    inputs, targets = (inputs[0][wrong], inputs[1][wrong]), targets[wrong]
    best = torch.full((len(wrong),), torch.inf, dtype=torch.float64)
    for held in ([0], [1], [0, 1]):
        free = torch.ones(len(wrong), 3, dtype=torch.bool)
        free[:, held] = False
        found, losses = _solved(inputs, targets, ridge, free)
        better = (found[:, :2] >= 0).all(dim=1) & (losses < best)
        best = torch.where(better, losses, best)
        parameters[wrong[better]] = found[better]
    return parameters


def _solved(
    inputs: tuple[Tensor, Tensor], targets: Float[Tensor, "c n"], ridge: float, free: Bool[Tensor, "c 3"]
) -> tuple[Float[Tensor, "c 3"], Float[Tensor, " c"]]:
    """Newton's method with halved steps, every class at its own pace; what is not free is 0. Parameters and losses."""
    prior = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    parameters = torch.where(free, prior, 0.0)
    losses = _losses(inputs, targets, parameters, ridge, prior)
    for _ in range(_MAX_STEPS):
        slopes, curvatures = _derivatives(inputs, targets, parameters, ridge, prior)
        both = free[:, :, None] & free[:, None, :]
        curvatures = torch.where(both, curvatures, torch.eye(3, dtype=torch.float64))
        steps = torch.linalg.solve(curvatures, torch.where(free, slopes, 0.0))
        decrease = (steps * slopes).sum(dim=1)
        if not bool((decrease > _TOLERANCE * (1 + losses)).any()):
            break
        sizes = torch.ones_like(losses)
        for _ in range(30):
            candidates = parameters - sizes[:, None] * steps
            found = _losses(inputs, targets, candidates, ridge, prior)
            worse = found > losses
            if not bool(worse.any()):
                break
            sizes = torch.where(worse, sizes / 2, sizes)
        parameters = torch.where(worse[:, None], parameters, candidates)
        losses = torch.where(worse, losses, found)
    return parameters, losses


def _losses(
    inputs: tuple[Tensor, Tensor], targets: Tensor, parameters: Tensor, ridge: float, prior: Tensor
) -> Float[Tensor, " c"]:
    """Sum over samples of the negative log-likelihood, plus the penalty."""
    a, b, c = parameters.T[:, :, None]
    values = a * inputs[0] + b * inputs[1] + c
    losses = functional.softplus(values).sum(dim=1) - torch.linalg.vecdot(targets, values)
    return losses + ridge / 2 * (parameters - prior).square().sum(dim=1)


def _derivatives(
    inputs: tuple[Tensor, Tensor], targets: Tensor, parameters: Tensor, ridge: float, prior: Tensor
) -> tuple[Float[Tensor, "c 3"], Float[Tensor, "c 3 3"]]:
    """Slopes and curvatures of `_losses`."""
    a, b, c = parameters.T[:, :, None]
    probs = torch.sigmoid(a * inputs[0] + b * inputs[1] + c)
    residuals, weights = probs - targets, probs * (1 - probs)
    slopes = torch.stack([(residuals * one).sum(dim=1) for one in inputs] + [residuals.sum(dim=1)], dim=1)
    first, second = (weights * one for one in inputs)
    cells = [
        torch.linalg.vecdot(first, inputs[0]),
        torch.linalg.vecdot(first, inputs[1]),
        first.sum(dim=1),
        torch.linalg.vecdot(second, inputs[1]),
        second.sum(dim=1),
        weights.sum(dim=1),
    ]
    curvatures = torch.stack([cells[i] for i in (0, 1, 2, 1, 3, 4, 2, 4, 5)], dim=1).reshape(-1, 3, 3)
    return slopes + ridge * (parameters - prior), curvatures + ridge * torch.eye(3, dtype=torch.float64)
