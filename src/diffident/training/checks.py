"""Whether data, settings and difficulty fit each other, and the targets joined by id."""

import hashlib
from pathlib import Path

import numpy as np

from diffident.data.dataset import Dataset
from diffident.difficulties.targets import Targets
from diffident.errors import InputError
from diffident.losses import LOSSES
from diffident.records import DifficultyTable, Predictions
from diffident.settings import TrainingSettings
from diffident.training.by_id import check_unique, targets_by_id
from diffident.training.logs import check_loggers


def check_data(dataset: Dataset, validation: Dataset | None, test: Dataset | None) -> None:
    """Raise `InputError` unless the training data can be learnt and the other parts have its classes."""
    if dataset.labels is None:
        raise InputError(
            f"`data` must have labels to train on; got none at {dataset.name}. Name them: --label-column NAME."
        )
    if len(dataset) < 2:
        raise InputError(f"`data` must hold at least 2 samples; got {len(dataset)} at {dataset.name}. Give more.")
    if dataset.num_classes < 2:
        raise InputError(
            f"`data` must have at least 2 classes; got {dataset.num_classes} at {dataset.name}. Check labels."
        )
    if validation is not None and validation.labels is None:
        raise InputError(f"`validation` must have labels; got none at {validation.name}. Leave it out, or name them.")
    for part in (dataset, validation, test):
        if part is not None:
            check_labels(part, dataset.num_classes, dataset.label_names, "the training data")


def check_apart(dataset: Dataset, settings: TrainingSettings, validation: Dataset | None) -> None:
    """Raise `InputError` where something would be learnt from validation data that are trained on."""
    if validation is None or settings.learns is None or validation.fingerprint != dataset.fingerprint:
        return
    both = len(np.intersect1d(dataset.ids.astype(str), validation.ids.astype(str)))
    if both:
        raise InputError(
            f"`validation` must not be trained on, as {settings.learns} is learnt from it; {both:,} samples of "
            f"{validation.name} are. Leave them out, or set {settings.learns}."
        )


def check_settings(settings: TrainingSettings, count: int, validation: Dataset | None) -> None:
    """Raise unless the settings can be followed: with this data, and with what is installed.

    Raises:
        InputError: early stopping without validation data, or batches too small for the processes.
        MissingDependencyError: a log's library is missing.
    """
    if settings.patience and validation is None:
        raise InputError(
            f"`validation` must be given with patience={settings.patience}; got None. Add --validation DATA."
        )
    least = 2 * settings.devices
    if settings.devices > 1 and min(settings.batch_size, count) < least:
        raise InputError(
            f"`batch_size` must be at least {least} for {settings.devices} devices, as must the data; got "
            f"{settings.batch_size} and {count} samples. Set fewer devices."
        )
    check_loggers(settings.loggers)


def check_labels(dataset: Dataset, num_classes: int, names: tuple[str, ...] | None, where: str) -> None:
    """Raise `InputError` unless the labels, where there are any, are among the classes of `where`, in the same way."""
    if dataset.labels is None:
        return
    if (dataset.label_names is None) != (names is None):  # which is which nobody said
        own, others = ("numbers", "names") if dataset.label_names is None else ("names", "numbers")
        raise InputError(
            f"`labels` of {dataset.name} must be {others} of classes, as those of {where} are; got {own}. Write all "
            "labels in one way."
        )
    if dataset.label_names is not None and names is not None and tuple(dataset.label_names) != tuple(names):
        extra, lacking = sorted(set(dataset.label_names) - set(names)), sorted(set(names) - set(dataset.label_names))
        how = f"extra {extra[:3]}, lacking {lacking[:3]}" if extra or lacking else "the same names in another order"
        raise InputError(f"`label_names` of {dataset.name} must be those of {where}; got {how}. Use one list of names.")
    outside = (dataset.labels < 0) | (dataset.labels >= num_classes)
    if outside.any():
        row = int(outside.nonzero()[0][0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}), the classes of {where}; got {int(dataset.labels[row])} at "
            f"{str(dataset.ids[row])!r} of {dataset.name}. Re-index them, or drop the labels."
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
    dataset: Dataset, settings: TrainingSettings, difficulty: DifficultyTable | str | Path | None
) -> tuple[Targets | None, str | None]:
    """Weights and labels in the data's order and their digest; None where the loss takes no weights.

    Raises:
        InputError: the loss needs difficulty and there is none, or it was scored on other labels.
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
    )
    digest = hashlib.sha256(targets.weights.numpy().tobytes())
    if targets.changed.any():
        digest.update(targets.labels.tobytes())
    return targets, digest.hexdigest()[:16]
