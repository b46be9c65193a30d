"""Whether data, settings and difficulty fit each other, and the targets joined by id."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffident.data.classes import in_classes_of
from diffident.data.dataset import Dataset
from diffident.difficulties.targets import SoftTargets, Targets, candidates_of
from diffident.errors import InputError, UnreadableSampleError
from diffident.losses import LOSSES
from diffident.records import DifficultyTable, Predictions
from diffident.settings import TrainingSettings
from diffident.storage.difficulty_table import read_difficulty_table
from diffident.training.by_id import check_unique, targets_by_id
from diffident.training.logs import check_loggers
from diffident.training.restart import SOFT_TARGETS

_LOOKED_AT = 5
# What keeps settings that training heeds from looking at validation data; others are given.
_OFF = {"curriculum": " to 0", "restart": " to false"}


def checked_parts(
    dataset: Dataset, validation: Dataset | None, test: Dataset | None
) -> tuple[Dataset | None, Dataset | None]:
    """The validation and test data, with the classes of the training data.

    Raises:
        InputError: training data that cannot be learnt, or other parts with other classes.
    """
    if dataset.labels is None:
        raise InputError(
            f"`data` must have labels to train on; got none at {dataset.name}. Name them: --label-column NAME, "
            "or put each class's images in a folder."
        )
    if len(dataset) < 2:
        raise InputError(f"`data` must hold at least 2 samples; got {len(dataset)} at {dataset.name}. Give more.")
    if dataset.num_classes < 2:
        raise InputError(
            f"`data` must have at least 2 classes; got {dataset.num_classes} at {dataset.name}. Check labels."
        )
    if validation is not None and validation.labels is None:
        raise InputError(f"`validation` must have labels; got none at {validation.name}. Leave it out, or name them.")
    classes = dataset.num_classes, dataset.label_names, "the training data"
    in_classes_of(dataset, *classes)
    validation = None if validation is None else in_classes_of(validation, *classes)
    return validation, None if test is None else in_classes_of(test, *classes)


def check_apart(dataset: Dataset, validation: Dataset | None, learns: str | None) -> None:
    """Raise `InputError` where a setting, `learns`, would be learnt from validation data that are trained on.

    Samples are the same if their ids are, and what a few of these ids stand for.
    """
    if validation is None or learns is None:
        return
    ids = dataset.ids.astype(str), validation.ids.astype(str)
    both, rows, places = np.intersect1d(*ids, return_indices=True)
    looked_at = np.unique(np.linspace(0, len(both) - 1, _LOOKED_AT).astype(int)) if len(both) else []
    if len(both) and all(_same(dataset, int(rows[row]), validation, int(places[row])) for row in looked_at):
        raise InputError(
            f"`validation` must not be trained on, as {learns} is learnt from it; {len(both):,} samples of "
            f"{validation.name} are. Leave them out, or set {learns}{_OFF.get(learns, '')}."
        )


def _same(one: Dataset, row: int, other: Dataset, place: int) -> bool:
    """Whether the samples at these positions are equal; what cannot be read is not."""
    try:
        return one.modality == other.modality and np.array_equal(np.asarray(one[row]), np.asarray(other[place]))
    except UnreadableSampleError:
        return False


def check_settings(settings: TrainingSettings, dataset: Dataset, validation: Dataset | None) -> None:
    """Raise unless the settings can be followed: with this data, and with what is installed.

    Raises:
        InputError: mixtures of texts, early stopping or a restart without validation data, or batches too small for
            the processes.
        MissingDependencyError: a log's library is missing.
    """
    if settings.patience and validation is None:
        raise InputError(
            f"`validation` must be given with patience={settings.patience}; got None. Add --validation DATA."
        )
    if settings.restart and validation is None:
        raise InputError("`validation` must be given with restart=true; got None. Add --validation DATA.")
    mixes = LOSSES[settings.loss].mixes
    if dataset.modality == "text" and (mixes or settings.mixup or settings.restart):
        what = f"`loss` must not mix inputs where these are texts; got {settings.loss!r}. Take another loss."
        mixup = f"`mixup` must be 0 where inputs are texts; got {settings.mixup}. Leave it out."
        restart = "`restart` must be false where inputs are texts, which cannot be mixed; got true. Leave it out."
        raise InputError(what if mixes else mixup if settings.mixup else restart)
    least, count = 2 * settings.devices, len(dataset)
    if settings.devices > 1 and min(settings.batch_size, count) < least:
        raise InputError(
            f"`batch_size` must be at least {least} for {settings.devices} devices, as must the data; got "
            f"{settings.batch_size} and {count} samples. Set fewer devices."
        )
    check_loggers(settings.loggers)


def _of_classes(soft: SoftTargets, dataset: Dataset, settings: TrainingSettings) -> SoftTargets | None:
    """The soft targets; None where a class has a probability that the data do not have, and nobody asked for them.

    Raises:
        InputError: somebody did.
    """
    beyond = soft.beyond(dataset.num_classes)
    if not bool(beyond.any()):
        return soft
    if not (settings.soft_targets or settings.restart):
        return None
    row, place = map(int, beyond.nonzero()[0])
    raise InputError(
        f"`difficulty` must be of the classes of {dataset.name}, which are {dataset.num_classes}; got a probability of "
        f"class {int(soft.classes[row, place])} for {str(dataset.ids[row])!r}. Score these data, or set "
        f"{'soft_targets to 0' if settings.soft_targets else 'restart to false'}."
    )


def check_same(predictions: Predictions, dataset: Dataset, split: str, run: Path) -> None:
    """Raise `InputError` unless a run's predictions of a split are of this data: its ids and labels, in its order."""
    kept, ids = predictions.labels, dataset.ids.astype(str)
    if len(predictions) != len(dataset):
        how = f"{len(dataset):,} samples instead of {len(predictions):,}"
    elif (differ := ids != predictions.ids.astype(str)).any():
        row = int(differ.argmax())
        how = f"{str(ids[row])!r} instead of {str(predictions.ids[row])!r} at row {row}"
    elif (kept is None) != (dataset.labels is None):
        how = "no labels" if dataset.labels is None else "labels instead of none"
    elif kept is not None and (differ := np.asarray(dataset.labels) != kept.numpy()).any():
        row = int(differ.argmax())
        how = f"label {int(np.asarray(dataset.labels)[row])} instead of {int(kept[row])} at {str(ids[row])!r}"
    else:
        return
    raise InputError(
        f"`{split}` must be the data that {run} has predicted already; got {how} in {dataset.name}. For other data: "
        f"diffident predict {run} DATA."
    )


def targets_for(
    dataset: Dataset,
    settings: TrainingSettings,
    difficulty: DifficultyTable | str | Path | None,
    validation: Dataset | None = None,
) -> tuple[Targets | None, str | None]:
    """Weights and labels in the data's order and their digest; None where the loss takes no weights.

    There are soft targets where the settings ask for them, and where training may begin anew with them, which takes
    validation data.

    Raises:
        InputError: the loss needs difficulty and there is none, or it was scored on other labels, or without
            probabilities of the classes that the settings need.
        IdMismatchError: ids are missing from the table, or occur twice in the data.
    """
    if not LOSSES[settings.loss].needs_weights:
        return None, None
    if difficulty is None:
        raise InputError(
            f"`difficulty` must be given for the loss {settings.loss!r}; got None. Make it with "
            "`diffident score FEATURES --method posterior --out difficulty.parquet`, then add --difficulty "
            "difficulty.parquet."
        )
    check_unique(dataset.ids, dataset.name)
    if not isinstance(difficulty, DifficultyTable):
        difficulty = read_difficulty_table(difficulty)
    assert settings.temperature is not None  # settings fill in the loss's default
    targets = targets_by_id(
        difficulty,
        dataset.ids,
        dataset.labels,
        name=dataset.name,
        normalizer=settings.normalizer,
        temperature=settings.temperature,
        distrust=bool(settings.distrust),
        relabel=bool(settings.relabel),
        soft_targets=settings.soft_targets or _share_after_restart(settings, difficulty, validation),
    )
    digest = hashlib.sha256(targets.weights.numpy().tobytes())
    if targets.changed.any():
        digest.update(targets.labels.tobytes())
    if targets.soft is not None:
        targets = replace(targets, soft=_of_classes(targets.soft, dataset, settings))
    if targets.soft is not None:
        digest.update(targets.soft.classes.numpy().tobytes() + targets.soft.probs.numpy().tobytes())
    return targets, digest.hexdigest()[:16]


def _share_after_restart(settings: TrainingSettings, table: DifficultyTable, validation: Dataset | None) -> float:
    """The soft targets' share of what is learnt if training begins anew; 0 where it cannot."""
    if not settings.may_restart or validation is None:
        return 0.0
    if settings.restart:
        candidates_of(table, "with restart=true")
    return 0.0 if table.candidates is None else SOFT_TARGETS
