"""Post-hoc calibrators, one file each, all with the verbs `fit`, `calibrate` and `describe` of `protocol`.

The registry loads a calibrator on first use, so that help and error messages import no tensor library.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffident.options import check_choice

if TYPE_CHECKING:
    from diffident.calibrators.fitting import (
        Calibrator,
        calibrate,
        calibrator_from_dict,
        calibrator_to_dict,
        check_disjoint,
        fit_calibrator,
    )

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "CalibratorKind",
    "calibrate",
    "calibrator_from_dict",
    "calibrator_to_dict",
    "check_disjoint",
    "find_calibrator",
    "fit_calibrator",
    "open_calibrator",
]


@dataclass(frozen=True)
class CalibratorKind:
    """What can be asked of a calibrator by name.

    Attributes:
        module: Its file, without the ending.
        state: Name of the frozen record that its `fit` gives.
        options: Names of its settings.
        summary: One line for lists of calibrators.
        needs: Name of what both verbs must be given beside the logits, if anything.
    """

    module: str
    state: str
    options: tuple[str, ...]
    summary: str
    needs: str | None = None


CALIBRATORS: dict[str, CalibratorKind] = {
    "temperature": CalibratorKind("temperature", "Temperature", (), "one temperature for all logits"),
    "vector": CalibratorKind("vector", "VectorScaling", ("ridge",), "a factor and an offset for every class"),
    "matrix": CalibratorKind(
        "matrix",
        "AffineMap",
        ("off_diagonal", "ridge"),
        "a linear map of the logits, off-diagonal and offsets regularised (ODIR)",
    ),
    "dirichlet": CalibratorKind(
        "dirichlet",
        "AffineMap",
        ("off_diagonal", "ridge"),
        "a linear map of the log-probabilities, off-diagonal and offsets regularised (ODIR)",
    ),
    "isotonic": CalibratorKind("isotonic", "IsotonicMaps", (), "a rising step function for every class"),
    "histogram": CalibratorKind(
        "histogram", "HistogramMaps", ("bins", "binning"), "the frequency in every bin of every class's probability"
    ),
    "beta": CalibratorKind("beta", "BetaMaps", ("ridge",), "a beta curve for every class"),
    "difficulty-temperature": CalibratorKind(
        "difficulty_temperature",
        "DifficultyTemperature",
        ("knots",),
        "a temperature that depends on the predicted difficulty of the sample",
        "difficulty",
    ),
}


def find_calibrator(name: str) -> CalibratorKind:
    """What is known of a calibrator without loading it.

    Raises:
        InputError: no such calibrator; names near ones.
    """
    check_choice("calibrator", name, CALIBRATORS)
    return CALIBRATORS[name]


def open_calibrator(name: str) -> Any:
    """The module of a calibrator: `fit`, `calibrate` and `describe`."""
    return importlib.import_module(f"diffident.calibrators.{find_calibrator(name).module}")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'diffident.calibrators' has no attribute {name!r}")
    return getattr(importlib.import_module("diffident.calibrators.fitting"), name)
