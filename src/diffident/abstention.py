"""A threshold on confidence below which to abstain, with a finite-sample guarantee for the error rate above it.

Learn-then-Test: over the draw of the calibration split, with probability at least 1 - delta the error rate among the
samples that the threshold accepts is at most the target, for new samples from the same distribution. For every
threshold of a grid the hypothesis that its error rate is above the target is tested by an exact binomial tail: given
how many samples it accepts, the number of errors among them is binomial. The grid is fixed before any data is seen, in
the log of 1 - confidence. Tests go from strict thresholds to lax ones and stop at the first that fails, from twenty
places of the grid, each with a twentieth of delta; so all that pass are certified together, and the laxest is taken.

A threshold taken from the calibration samples themselves, or the laxest whose measured error rate is below the target,
has no such guarantee: it breaks the target about half of the time.

Reference:
    Angelopoulos et al. 2021, arXiv 2110.01052, section 2.2 and appendix (fixed-sequence testing with several starts);
    Geifman and El-Yaniv 2017, arXiv 1705.08500 (the same aim by a union bound).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binom
from torch import Tensor

from diffident.errors import InputError, ShapeError

_NUM_THRESHOLDS = 200
_NUM_STARTS = 20
# The strictest threshold of the grid is a confidence of 1 - 1e-6.
_STRICTEST = 1e-6


@dataclass(frozen=True)
class AbstentionThreshold:
    """The confidence from which on predictions are accepted.

    Attributes:
        threshold: Accept where confidence >= threshold; infinite, so that nothing is accepted, if none was certified.
        target: Error rate among accepted samples that is to be kept.
        delta: Probability with which the guarantee may fail.
        coverage: Share of the calibration samples that are accepted.
        selective_risk: Their measured error rate; NaN where none is accepted.
        p_value: Of the hypothesis that the threshold's error rate is above the target; 1 where none was certified.
        num_samples: Size of the calibration split.
        least_accepted: Accepted samples without an error that would be needed for any certificate.
    """

    threshold: float
    target: float
    delta: float
    coverage: float
    selective_risk: float
    p_value: float
    num_samples: int
    least_accepted: int

    @property
    def certified(self) -> bool:
        """Whether there is a threshold with the guarantee."""
        return math.isfinite(self.threshold)

    def __str__(self) -> str:
        """One sentence for people."""
        aim = f"an error rate of at most {self.target:g} with probability {1 - self.delta:g}"
        if not self.certified:
            return (
                f"No threshold can be certified for {aim} on {self.num_samples:,} calibration samples. "
                f"Raise the target, or calibrate on more: at least {self.least_accepted:,} without an error are needed."
            )
        return (
            f"Accept from confidence {self.threshold:.4f} on for {aim}: {self.coverage:.1%} of the calibration "
            f"samples, of which {self.selective_risk:.2%} are wrong."
        )


def fit_abstention(
    confidence: Float[Tensor, " n"], errors: Bool[Tensor, " n"], *, target: float, delta: float = 0.1
) -> AbstentionThreshold:
    """The laxest certified threshold.

    Args:
        confidence: Probability given to the prediction, in [0, 1], of calibration samples that the model did not see.
        errors: Which of their predictions are wrong.
        target: Error rate among accepted samples, in (0, 1).
        delta: Probability with which the guarantee may fail, in (0, 1).

    Raises:
        InputError: no samples, or a value out of range.

    Example:
        >>> print(fit_abstention(max_softmax(logits), errors, target=0.05))
        Accept from confidence 0.6931 on for an error rate of at most 0.05 with probability 0.9: 82.4% of ...
    """
    for name, value in (("target", target), ("delta", delta)):
        if not 0 < value < 1:
            raise InputError(f"`{name}` must be in (0, 1); got {value!r}. For example 0.05.")
    if not len(confidence) or confidence.shape != errors.shape:
        raise ShapeError(f"`confidence` must be one per sample, at least one; got {len(confidence)} for {len(errors)}.")
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise InputError("`confidence` must be in [0, 1]; got another value. Give the largest probability.")
    thresholds = _grid()
    accepted, wrong = _counts(confidence.double().cpu().numpy(), errors.cpu().numpy(), thresholds)
    p_values = np.where(accepted > 0, binom.cdf(wrong, accepted, target), 1.0)
    level = delta / _NUM_STARTS
    least = math.ceil(math.log(level) / math.log1p(-target))
    certified = _certified(p_values, level)
    if not certified.any():
        return AbstentionThreshold(math.inf, target, delta, 0.0, math.nan, 1.0, len(errors), least)
    chosen = int(np.flatnonzero(certified)[-1])
    count, missed = int(accepted[chosen]), int(wrong[chosen])
    return AbstentionThreshold(
        float(thresholds[chosen]),
        target,
        delta,
        count / len(errors),
        missed / count,
        float(p_values[chosen]),
        len(errors),
        least,
    )


def _grid() -> np.ndarray:
    """Thresholds from strict to lax, the last accepts everything; the same for every data set."""
    return np.append(1 - np.geomspace(_STRICTEST, 1, _NUM_THRESHOLDS - 1, endpoint=False), 0.0)


def _counts(confidence: np.ndarray, errors: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accepted samples of every threshold, and the errors among them."""
    order = np.argsort(confidence)
    below = np.searchsorted(confidence[order], thresholds, side="left")
    errors_from = np.append(np.cumsum(errors[order][::-1])[::-1], 0)
    return len(confidence) - below, errors_from[below]


def _certified(p_values: np.ndarray, level: float) -> np.ndarray:
    """Which hypotheses fixed-sequence testing rejects, from several starts of the sequence."""
    certified = np.zeros(len(p_values), dtype=bool)
    for start in range(0, len(p_values), len(p_values) // _NUM_STARTS):
        failed = np.flatnonzero(p_values[start:] > level)
        certified[start : start + (failed[0] if len(failed) else len(p_values))] = True
    return certified
