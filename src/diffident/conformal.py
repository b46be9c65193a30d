"""Sets of classes that hold the true one with a chosen probability: split conformal prediction.

With n calibration samples and a sample to predict that are exchangeable, a set holds the true class with probability
at least 1 - error_rate, over the draw of both, and at most 1 - error_rate + 1 / (n + 1) where scores do not tie. That
is an average over classes and difficulties, not a promise for any one of them.

- `lac`: classes of probability at least 1 - threshold; the smallest sets on average; may be empty.
- `aps`: classes from the most probable on, until their sum reaches the threshold; larger where the model is unsure.
- `raps`: the same with a penalty for every class beyond the first few: smaller sets with many classes.

`aps` and `raps` are randomised: with u uniform in [0, 1] a class counts the part u of its own probability, without
which coverage would be too high. Among equal probabilities the lower class comes first.

Reference:
    Sadinle et al. 2019, arXiv 1609.00451 (lac); Romano et al. 2020, arXiv 2006.02544 (aps); Angelopoulos et al. 2021,
    arXiv 2009.14193 (raps).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.confidence import TIE_DECIMALS
from diffident.errors import InputError, ShapeError
from diffident.metrics.inputs import check_labels, check_logits
from diffident.options import check_choice

METHODS = ("lac", "aps", "raps")


@dataclass(frozen=True)
class ConformalThreshold:
    """What decides which classes are in a set.

    Attributes:
        method: `lac`, `aps` or `raps`.
        error_rate: Probability with which a set may miss the true class.
        threshold: Largest score of a class in a set; infinite where there are too few calibration samples, so that
            every set holds every class.
        num_samples: Size of the calibration split.
        num_classes: Number of classes.
        randomized: Whether `aps` and `raps` draw u; without it u is 1.
        penalty: Of `raps`, for every class beyond the free ones.
        free_classes: Of `raps`.
    """

    method: str
    error_rate: float
    threshold: float
    num_samples: int
    num_classes: int
    randomized: bool
    penalty: float
    free_classes: int


@dataclass(frozen=True)
class SetMetrics:
    """What sets of classes are worth.

    Attributes:
        coverage: Share of sets that hold the true class.
        mean_size: Mean number of classes in a set.
        empty: Share of sets without a class.
        singletons: Share of sets with one class.
    """

    coverage: float
    mean_size: float
    empty: float
    singletons: float


def fit_conformal(
    logits: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    method: str = "lac",
    error_rate: float = 0.1,
    generator: torch.Generator | None = None,
    randomized: bool = True,
    penalty: float = 0.01,
    free_classes: int = 5,
) -> ConformalThreshold:
    """The threshold from a calibration split, which shares no sample with training or test.

    Args:
        logits: Unnormalised log-probabilities [n, c].
        labels: Classes [n], integers in [0, c).
        method: `lac`, `aps` or `raps`.
        error_rate: In (0, 1).
        generator: Source of u, for `aps` and `raps` unless `randomized` is off.
        randomized: Off gives larger sets that cover more than was asked for.
        penalty: Of `raps`.
        free_classes: Of `raps`.

    Raises:
        InputError: a wrong value; names the row.

    Example:
        >>> sets = prediction_sets(fit_conformal(logits, labels, error_rate=0.1), test_logits)
        >>> sets.shape, sets.dtype
        (torch.Size([1000, 10]), torch.bool)
    """
    check_choice("method", method, METHODS)
    if not 0 < error_rate < 1:
        raise InputError(f"`error_rate` must be in (0, 1); got {error_rate!r}. 0.1 misses one in ten.")
    if not (math.isfinite(penalty) and penalty >= 0 and free_classes >= 0):
        raise InputError(f"`penalty` and `free_classes` must be at least 0; got {penalty!r} and {free_classes!r}.")
    values = check_logits(logits, "logits", probs_as="Give their logarithm.").values.double()
    chosen = check_labels(labels, *values.shape)
    size, width = values.shape
    drawn = randomized and method != "lac"
    state = ConformalThreshold(method, error_rate, math.inf, size, width, drawn, penalty, free_classes)
    own = _scores(state, values, generator).gather(1, chosen[:, None])[:, 0]
    return ConformalThreshold(**{**vars(state), "threshold": conformal_quantile(own, error_rate)})


def prediction_sets(
    state: ConformalThreshold,
    logits: Tensor | np.ndarray,
    *,
    generator: torch.Generator | None = None,
    allow_empty: bool = True,
) -> Bool[Tensor, "n c"]:
    """Which classes are in the set of every sample.

    Args:
        state: From `fit_conformal`.
        logits: Of the samples [n, c].
        generator: Source of u; another than that of the calibration, or its continuation.
        allow_empty: Off puts the most probable class into empty sets; they then cover a little more than asked for.

    Raises:
        InputError: logits of another number of classes, or not finite.
    """
    values = check_logits(logits, "logits", probs_as="Give their logarithm.").values.double()
    if values.shape[1] != state.num_classes:
        raise ShapeError(
            f"`logits` must have {state.num_classes} columns, as fitted; got {values.shape[1]}. Use the same model."
        )
    sets = _scores(state, values, generator) <= state.threshold
    if not allow_empty:
        empty = (~sets.any(dim=1)).nonzero()[:, 0]
        sets[empty, values[empty].argmax(dim=1)] = True
    return sets


def conformal_quantile(scores: Float[Tensor, " n"], error_rate: float) -> float:
    """The ceil((n + 1) (1 - error_rate))-th smallest score; infinite where that is beyond the n-th."""
    # Without the rounding (9 + 1) * (1 - 0.1) would be above 9.
    rank = math.ceil(round((len(scores) + 1) * (1 - error_rate), 9))
    return math.inf if rank > len(scores) else float(scores.kthvalue(max(rank, 1)).values)


def set_terms(sets: Bool[Tensor, "n c"], labels: Int[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
    """What every sample adds to each metric of `SetMetrics`, by name; the metric is their mean."""
    sizes = sets.sum(dim=1)
    terms = {
        "coverage": sets.gather(1, labels[:, None])[:, 0],
        "mean_size": sizes,
        "empty": sizes == 0,
        "singletons": sizes == 1,
    }
    return {name: term.double() for name, term in terms.items()}


def set_metrics(sets: Bool[Tensor, "n c"], labels: Int[Tensor, " n"]) -> SetMetrics:
    """Coverage and sizes of prediction sets."""
    return SetMetrics(**{name: float(term.mean()) for name, term in set_terms(sets, labels).items()})


def _scores(
    state: ConformalThreshold, logits: Float[Tensor, "n c"], generator: torch.Generator | None
) -> Float[Tensor, "n c"]:
    """Score of every class; lower fits better. One u a sample."""
    # Rounded as confidence is: the last bits depend on the order of the classes.
    probs = torch.softmax(logits, dim=1).round(decimals=TIE_DECIMALS)
    if state.method == "lac":
        return 1 - probs
    if state.randomized and generator is None:
        raise InputError("`generator` must be given for randomised sets; got none. Give one, or set randomized=False.")
    ordered, order = probs.sort(dim=1, descending=True, stable=True)
    parts = probs.new_ones(len(probs), 1)
    if state.randomized:
        parts = torch.rand(len(probs), 1, dtype=torch.float64, generator=generator)
    scores = ordered.cumsum(dim=1) - ordered + parts * ordered
    if state.method == "raps":
        ranks = torch.arange(1, probs.shape[1] + 1)
        scores = scores + state.penalty * (ranks - state.free_classes).clamp(min=0)
    return torch.empty_like(scores).scatter_(1, order, scores)
