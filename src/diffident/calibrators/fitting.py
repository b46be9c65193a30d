"""Fit a calibrator by name, use it, and keep it as plain values."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.calibrators import find_calibrator, open_calibrator
from diffident.calibrators.protocol import check_width, log_probs_of, mean_nll
from diffident.errors import IdMismatchError, InputError, ShapeError
from diffident.metrics.inputs import check_labels, check_logits
from diffident.records import tensor_of

_MOST_TRIED = 256
"""Classes up to which each is tried when a calibrator is read."""


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibrator.

    Attributes:
        name: A key of `CALIBRATORS`.
        state: The method's frozen record.
        num_samples: Size of the calibration split.
        num_classes: Number of logits.
        nll_before: Mean negative log-likelihood of the calibration split before, in nats.
        nll_after: After; never larger for `temperature`, `vector`, `matrix`, `dirichlet`, `difficulty-temperature`.
    """

    name: str
    state: Any
    num_samples: int
    num_classes: int
    nll_before: float
    nll_after: float


def fit_calibrator(
    name: str,
    logits: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    difficulty: Tensor | np.ndarray | None = None,
    **options: Any,
) -> Calibrator:
    """Fit a calibrator on a calibration split: neither on training nor on test samples.

    Args:
        name: A key of `CALIBRATORS`.
        logits: Unnormalised log-probabilities [n, c].
        labels: Classes [n], integers in [0, c).
        difficulty: Predicted difficulty [n], for `difficulty-temperature`.
        options: Settings of the calibrator.

    Raises:
        InputError: a wrong name, option or value; names the row.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
        >>> temperature = fit_calibrator("temperature", logits, torch.tensor([0, 0, 1]))
        >>> round(float(calibrate(temperature, logits).exp()[0, 0]), 6)     # two of three
        0.666667
    """
    kind = find_calibrator(name)
    values = _checked(logits)
    chosen = check_labels(labels, *values.shape)
    needed = _needed(name, difficulty, len(values))
    method = open_calibrator(name)
    state = method.fit(values, chosen, **needed, **options)
    assert type(state).__name__ == kind.state
    after = mean_nll(method.calibrate(state, values, **needed), chosen)
    before = mean_nll(log_probs_of(values), chosen)
    return Calibrator(name, state, values.shape[0], values.shape[1], before, after)


def calibrate(
    calibrator: Calibrator, logits: Tensor | np.ndarray, *, difficulty: Tensor | np.ndarray | None = None
) -> Float[Tensor, "n c"]:
    """Calibrated log-probabilities, float64: they can stand wherever logits can.

    Raises:
        InputError: logits of another number of classes, not finite, or without the difficulty that is needed.
    """
    values = _checked(logits)
    check_width(values, calibrator.num_classes)
    return open_calibrator(calibrator.name).calibrate(
        calibrator.state, values, **_needed(calibrator.name, difficulty, len(values))
    )


def check_disjoint(calibration_ids: Iterable[str], test_ids: Iterable[str], *, where: str = "the test split") -> None:
    """Refuse a calibration split that shares samples with what will be evaluated.

    Raises:
        IdMismatchError: names the number and the first of the shared ids.
    """
    calibration = list(map(str, calibration_ids))
    shared = sorted(set(calibration) & set(map(str, test_ids)))
    if shared:
        shown = ", ".join(repr(sample) for sample in shared[:3])
        raise IdMismatchError(
            f"`calibration` must share no sample with {where}; got {len(shared)} of {len(calibration)} in both: first "
            f"{shown}. Calibrate on a split of its own, for example the validation split; if these are different "
            "samples, give them other ids (of images in folders these are the files' names)."
        )


def calibrator_to_dict(calibrator: Calibrator) -> dict[str, Any]:
    """Plain JSON values, exact to the last bit."""
    values = {field.name: getattr(calibrator, field.name) for field in dataclasses.fields(calibrator)}
    state = {
        field.name: _plain(getattr(calibrator.state, field.name)) for field in dataclasses.fields(calibrator.state)
    }
    return {**values, "state": state}


def calibrator_from_dict(values: dict[str, Any]) -> Calibrator:
    """The calibrator that `calibrator_to_dict` made plain.

    Raises:
        InputError: an unknown calibrator, or values that are not its state.
    """
    kind = find_calibrator(str(values.get("name")))
    record = getattr(open_calibrator(kind_name := str(values["name"])), kind.state)
    try:
        given = values["state"]
        for name, value in given.items():
            if not np.isfinite(np.asarray(value, dtype=float)).all():
                raise ValueError(f"{name} is not finite")
        state = record(**{field.name: _array(given[field.name], field.type) for field in dataclasses.fields(record)})
        rest = {
            field.name: values[field.name]
            for field in dataclasses.fields(Calibrator)
            if field.name not in ("name", "state")
        }
        calibrator = Calibrator(kind_name, state, **rest)
        _try_out(calibrator)
        return calibrator
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
        said = " ".join(str(error).split()).removesuffix(" Fit it again.").rstrip(".")
        raise InputError(
            f"`calibrator` must hold the state of {kind_name!r}; {type(error).__name__}: {said}. Fit it again."
        ) from None


def _try_out(calibrator: Calibrator) -> None:
    """Calibrate one sample surely of each class, and one of none: what no fit gives fails or is not finite."""
    count = calibrator.num_classes
    logits = torch.cat([torch.zeros(1, count), 4 * torch.eye(count)]) if count < _MOST_TRIED else torch.zeros(1, count)
    needs = find_calibrator(calibrator.name).needs
    found = calibrate(calibrator, logits, difficulty=None if needs is None else np.zeros(len(logits)))
    if found.shape != logits.shape or not bool(found.isfinite().all()):
        raise ValueError(f"it does not give finite log-probabilities of {count} classes")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _array(value: Any, kind: Any) -> Any:
    """A number, or a tensor where the record holds one: of whole numbers as int64, else float64."""
    if kind in (int, float, bool, str):
        if not isinstance(value, kind | int):
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return kind(value)
    whole = "int" in str(getattr(kind, "dtypes", ""))
    return torch.tensor(value, dtype=torch.int64 if whole else torch.float64)


def _checked(logits: Tensor | np.ndarray) -> Float[Tensor, "n c"]:
    return check_logits(logits, "logits", probs_as="Give their logarithm.").values.double()


def _needed(name: str, difficulty: Tensor | np.ndarray | None, num_samples: int) -> dict[str, Tensor]:
    """What the method takes beside the logits."""
    needs = find_calibrator(name).needs
    if needs is None:
        if difficulty is not None:
            raise InputError(f"`difficulty` must be given for `difficulty-temperature` alone; got it for {name!r}.")
        return {}
    if difficulty is None:
        raise InputError(f"`difficulty` must be given for {name!r}; got none. Score the features of the samples.")
    values = tensor_of(difficulty, "difficulty").detach().cpu().double()
    if values.shape != (num_samples,):
        raise ShapeError(
            f"`difficulty` must be one per row of logits, [{num_samples}]; got {list(values.shape)}. Match them by id."
        )
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"`difficulty` must be finite; got {float(values[row]):g} at row {row}. Score the sample again."
        )
    return {needs: values}
