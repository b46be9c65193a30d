"""Doubt that is learnt while training: as much as the validation data bear out.

How unsure hard samples should be depends on how far a network overfits, which training data do not show. So after each
epoch the temperature is fitted that makes the validation labels most likely: above 1 the network is too sure, and doubt
rises by a share of the logarithm; below 1 it falls. Early epochs are left alone, where a network is unsure because it
has learnt little. What is kept is in the epochs' lines of metrics, so that a resumed run goes on as it would have.
"""

import math
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators import temperature
from diffident.losses.difficulty_aware import DOUBT
from diffident.settings import TrainingSettings

_FIRST, _LOWEST, _HIGHEST = 0.4, 0.02, 0.9
# Of a network that is fine-tuned: in its few epochs a strong bonus at first slows it, and stays noticeable at the end.
_FIRST_FINE_TUNED = 0.1
# Share of the epochs in which doubt stays as it is at first.
_UNTOUCHED = 0.3
# What a logarithm of the temperature changes in all epochs together, and in one at most. With more, doubt swings.
_GAIN, _MOST = 12.0, 0.6


def next_doubt(settings: TrainingSettings, lines: list[dict[str, Any]]) -> float:
    """Doubt of the hardest sample in the epoch to come.

    Args:
        settings: Of the run.
        lines: Metrics of the epochs before, with `doubt` and `validation_temperature`.
    """
    if not lines:
        return _FIRST_FINE_TUNED if settings.fine_tunes else _FIRST
    doubt = lines[-1]["doubt"]
    if len(lines) < _UNTOUCHED * settings.epochs:
        return doubt
    step = min(_MOST, _GAIN / settings.epochs) * math.log(lines[-1]["validation_temperature"])
    return min(max(doubt + step, _LOWEST), _HIGHEST)


def doubt_without_validation(settings: TrainingSettings) -> dict[str, float]:
    """The loss's option where nothing can be learnt, if its own default does not fit.

    That follows `others`, and would give a network that is fine-tuned the doubt of one on features.
    """
    return {settings.learns: DOUBT} if settings.learns and settings.fine_tunes else {}


def temperature_of(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """The temperature at which the labels are most likely; above 1 the logits are too sure."""
    return temperature.fit(logits, labels).temperature
