"""A rising function for every class, least squares of 1[label = k] on p_k, then rows brought to sum 1.

Between the steps it is linear, as in scikit-learn. It can change which class is largest, and makes ties. Steps at 0 are
raised to 1 / (n c), see `one_vs_rest`, where scikit-learn keeps 0.

Cost: a sort of every class's probabilities.

Reference:
    Zadrozny and Elkan 2002; the pool-adjacent-violators algorithm is scipy's.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression
from torch import Tensor

from diffident.calibrators.one_vs_rest import class_probs, joined
from diffident.calibrators.protocol import check_width, make_options
from diffident.errors import InputError


@dataclass(frozen=True)
class IsotonicOptions:
    """`isotonic` has no options."""


@dataclass(frozen=True)
class IsotonicMaps:
    """A piecewise linear function for every class, their points one after the other.

    Attributes:
        inputs: Probabilities before, rising within a class (m,), float64.
        outputs: Frequencies at them (m,), float64.
        starts: Where every class begins, and m (c + 1,), int64.
        num_fitted: Size of the calibration split.
    """

    inputs: Float[Tensor, " m"]
    outputs: Float[Tensor, " m"]
    starts: Int[Tensor, " s"]
    num_fitted: int

    def __post_init__(self):
        ends = (int(self.starts[0]), int(self.starts[-1])) if len(self.starts) else None
        if ends != (0, len(self.inputs)) or bool((self.starts.diff() < 1).any()):
            raise InputError(
                f"`starts` must rise from 0 to {len(self.inputs)}, the number of points; got {self.starts.tolist()}. "
                "Fit it again."
            )
        if len(self.outputs) != len(self.inputs):
            raise InputError(
                f"`outputs` must have {len(self.inputs)} entries like `inputs`; got {len(self.outputs)}. Fit it again."
            )
        if self.num_fitted < 1:
            raise InputError(f"`num_fitted` must be at least 1; got {self.num_fitted}. Fit it again.")


def fit(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], **options: Any) -> IsotonicMaps:
    """One regression a class."""
    make_options(IsotonicOptions, "isotonic", options)
    maps = [
        _steps(probs, (labels == number).double().numpy()) for number, probs in enumerate(class_probs(logits).numpy())
    ]
    return IsotonicMaps(
        torch.from_numpy(np.concatenate([inputs for inputs, _ in maps])),
        torch.from_numpy(np.concatenate([outputs for _, outputs in maps])),
        torch.from_numpy(np.cumsum([0, *(len(inputs) for inputs, _ in maps)])),
        len(labels),
    )


def calibrate(state: IsotonicMaps, logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities of the mapped and normalised probabilities; beyond the ends of a map its end."""
    check_width(logits, len(state.starts) - 1)
    inputs, outputs, starts = (values.numpy() for values in (state.inputs, state.outputs, state.starts))
    probs = class_probs(logits).numpy()
    for number, (start, stop) in enumerate(pairwise(starts)):
        probs[number] = np.interp(probs[number], inputs[start:stop], outputs[start:stop])
    return joined(torch.from_numpy(probs), state.num_fitted)


def describe(state: IsotonicMaps) -> dict[str, Any]:
    """How many points the functions have in all."""
    return {"points": len(state.inputs)}


def _steps(probs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of one class's map: of every constant stretch the first and the last."""
    values, place, counts = np.unique(probs, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=targets) / counts
    fitted = isotonic_regression(means, weights=counts.astype(np.float64)).x.clip(0, 1)
    kept = np.ones(len(values), dtype=bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return values[kept], fitted[kept]
