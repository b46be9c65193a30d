"""Beginning anew, on mixtures of soft targets, with a network that learns its labels by heart.

Such a network gains far more from mixtures than from a bonus, and one that does not fit its labels loses by them
(docs/method.md, "Soft targets"), so training begins without. As soon as it has learnt labels by heart, it goes back to
its first weights, as mixtures that come later come after the harm (Ash and Adams 2020, arXiv 1910.08475), and the
epochs that are left are a training of their own, with its own learning rates. Which they are is in the epochs' lines of
metrics, so that a resumed run goes on as it would have.
"""

from dataclasses import dataclass, replace
from typing import Any

from diffident.settings import TrainingSettings
from diffident.storage.runs import epoch_before_restart

SOFT_TARGETS = 0.5
_MIXUP, _MIXUP_UNTIL = 1.0, 0.8
# Of training above the best validation accuracy so far: what a network that does not fit its labels does not reach.
_MOST_GAP = 0.1
# In the first epochs accuracies say little; after the last of these shares too few are left for a training, and with
# fewer than this none of them would show samples as they are.
_FIRST_EPOCHS, _FIRST, _LAST, _LEAST_LEFT = 3, 0.1, 0.5, 5


@dataclass(frozen=True)
class Stage:
    """The training that an epoch belongs to: the whole run, or what comes before or after beginning anew.

    Attributes:
        settings: Of the training, with as many epochs as it has.
        lines: Metrics of its epochs so far.
    """

    settings: TrainingSettings
    lines: list[dict[str, Any]]


def stage_of(settings: TrainingSettings, lines: list[dict[str, Any]]) -> Stage:
    """The training that the next epoch belongs to.

    Args:
        settings: Of the run.
        lines: Metrics of the epochs before.
    """
    before = epoch_before_restart(lines)
    if before is None:
        return Stage(settings, lines)
    mixing = {"mixup": _MIXUP, "mixup_until": _MIXUP_UNTIL, "soft_targets": SOFT_TARGETS, "curriculum": 0.0}
    return Stage(replace(settings, epochs=settings.epochs - before, restart=False, **mixing), lines[before:])


def must_restart(settings: TrainingSettings, lines: list[dict[str, Any]], believed: float) -> bool:
    """Whether training begins anew after the last epoch.

    Args:
        settings: Of the run.
        lines: Metrics of its epochs so far, with training and validation accuracies.
        believed: Share of the samples that learn the given label. Of the others training accuracy does not count the
            given one, but validation accuracy does, so it stays behind even of a network that learns nothing by heart.
    """
    first = max(_FIRST_EPOCHS, _FIRST * settings.epochs)
    last = min(_LAST * settings.epochs, settings.epochs - _LEAST_LEFT)
    if epoch_before_restart(lines) is not None or not first <= len(lines) <= last:
        return False
    if lines[-1].get("share_shown", 1) < 1:  # training accuracy on easy samples alone says little
        return False
    best = max(line["validation_accuracy"] for line in lines)
    return believed * lines[-1]["train_accuracy"] - best > _MOST_GAP
