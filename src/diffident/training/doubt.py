"""What training finds out about the bonus of `difficulty-aware` where the settings leave it open.

How unsure hard samples should be depends on how far a network overfits, which training data do not show. So after each
epoch the temperature is fitted that makes the validation labels most likely: above 1 the network is too sure, and doubt
rises by a share of the logarithm; below 1 it falls. Early epochs are left alone, where a network is unsure because it
has learnt little; models of features and of words begin with the highest. What is kept is in the epochs' lines of
metrics, so that a resumed run goes on as it would have.

Doubt falls to 0 where no bonus is needed. That of a small one is still strong, an alpha of 0.16 at 0.02 with ten
classes, so one below that gives none. Soft targets are unsure themselves: with them doubt begins at 0.

A doubt above 0.9 leaves the hardest sample at 0.9, and makes the samples below it as unsure: at 1.8 all whose weight is
at least a half.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.calibrators import temperature
from diffident.losses.difficulty_aware import DOUBT, DOUBT_ON_FEATURES
from diffident.settings import TrainingSettings
from diffident.training.curriculum import accuracy_gap, epochs_held_back

_FIRST, _LEAST, _HIGHEST = 0.4, 0.02, 4.0
# A network whose inputs are features or words need not find any, and ranks better if it may not get sure at once: it
# begins with the highest doubt. That ends after this share of the epochs,
_FULL_SHARE = 0.45
# before this number of steps is left, in which it must get sure,
_STEPS_TO_GET_SURE = 900
# and when training accuracy is above validation accuracy by more than this, as it begins to learn by heart.
_FULL_UNTIL_GAP = 0.05
# Of a network that is fine-tuned: in its few epochs a strong bonus at first slows it, and stays noticeable at the end.
_FIRST_FINE_TUNED = 0.1
# Of the hardest sample.
_MOST = 0.9
# Share of the epochs in which doubt stays as it is at first; longer, while a curriculum holds samples back: how sure a
# network is of samples that are harder than those it has seen says little.
_UNTOUCHED = 0.3
# What a logarithm of the temperature changes in all epochs together, and in one at most. With more, doubt swings.
_GAIN, _LARGEST_STEP = 12.0, 0.6
# After long with the highest doubt it first falls, as the network gets sure, and must rise faster in the epochs left.
_FASTER_RISE = 3.0
# A network that still finds its features gains from the whole entropy, for most samples. One that needs more doubt than
# at first learns its labels by heart: there it would forget which wrong classes are the likelier ones, and easy samples
# need none.
_OTHERS, _OTHERS_BY_HEART, _DOUBT_BY_HEART = 1.0, 0.2, 0.6
_TEMPERATURE_BY_HEART = 0.3


@dataclass(frozen=True)
class Bonus:
    """What the settings leave open, in one epoch.

    Attributes:
        options: Of the loss.
        stretch: What the weights of samples below the hardest are multiplied with, up to 1.
        power: That these weights are raised to before; it divides their temperature.
    """

    options: dict[str, float]
    stretch: float = 1.0
    power: float = 1.0

    def weights_seen(self, weights: Float[Tensor, " n"] | None) -> Float[Tensor, " n"] | None:
        """The weights that the loss sees; those above 1, of samples that count less, stay."""
        if weights is None or (self.stretch == 1 and self.power == 1):
            return weights
        return torch.where(weights <= 1, (self.stretch * weights**self.power).clamp(max=1), weights)


def bonus_of_epoch(settings: TrainingSettings, doubt: float | None) -> Bonus:
    """The bonus of an epoch.

    Args:
        settings: Of the run.
        doubt: From `next_doubt`; None where nothing is learnt.
    """
    if not settings.learns:
        return Bonus({"others": _OTHERS} if settings.leaves_others_open else {})
    if doubt is None:
        doubt = DOUBT_ON_FEATURES if settings.sees_features else DOUBT
    elif doubt < _LEAST:
        doubt = 0.0
    of_hardest, power = min(doubt, _MOST), 1.0
    options = {"doubt": of_hardest}
    if settings.leaves_others_open:
        assert settings.temperature is not None  # settings fill in the loss's default
        by_heart = min(max((doubt - _FIRST) / (_DOUBT_BY_HEART - _FIRST), 0), 1)
        options["others"] = _OTHERS + by_heart * (_OTHERS_BY_HEART - _OTHERS)
        power += by_heart * max(settings.temperature / _TEMPERATURE_BY_HEART - 1, 0)
    return Bonus(options, doubt / of_hardest if of_hardest else 1.0, power)


def next_doubt(settings: TrainingSettings, lines: list[dict[str, Any]], steps: int) -> float:
    """Doubt in the epoch to come: of the hardest sample, or above 0.9.

    Args:
        settings: Of the run.
        lines: Metrics of the epochs before, with `doubt`, `validation_temperature` and the accuracies.
        steps: Of an epoch.
    """
    full = next((number for number, line in enumerate(lines) if line["doubt"] < _HIGHEST), len(lines))
    if full == len(lines):
        if settings.soft_targets:
            return 0.0
        if settings.may_begin_unsure and _still_full(settings, lines, steps):
            return _HIGHEST
        return _FIRST_FINE_TUNED if settings.fine_tunes else _FIRST
    doubt = lines[-1]["doubt"]
    held_back = epochs_held_back(settings.curriculum or 0.0, settings.epochs, lines)
    if len(lines) < max(_UNTOUCHED * settings.epochs, held_back):
        return doubt
    step = min(_LARGEST_STEP, _GAIN / settings.epochs) * math.log(lines[-1]["validation_temperature"])
    if full >= _UNTOUCHED * settings.epochs and step > 0:
        step *= _FASTER_RISE
    return min(max(doubt + step, 0.0), _HIGHEST)


def _still_full(settings: TrainingSettings, lines: list[dict[str, Any]], steps: int) -> bool:
    epochs = settings.epochs
    # Training accuracy on easy samples alone is above validation accuracy whatever the network has learnt.
    all_shown = len(lines) > epochs_held_back(settings.curriculum or 0.0, epochs, lines)
    gap = accuracy_gap(lines[-1]) if all_shown else 0.0
    steps_after = (epochs - len(lines) - 1) * steps
    return len(lines) < int(_FULL_SHARE * epochs) and steps_after >= _STEPS_TO_GET_SURE and gap <= _FULL_UNTIL_GAP


def temperature_of(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """The temperature at which the labels are most likely; above 1 the logits are too sure."""
    return temperature.fit(logits, labels).temperature
