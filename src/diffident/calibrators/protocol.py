"""What every calibrator shares: its verbs, its options, and passes over the logits in float64.

A calibrator is a module with

- `fit(logits, labels, **options)`: a frozen state, from the logits [n, c] and labels [n] of a calibration split;
- `calibrate(state, logits)`: log-probabilities [n, c], float64, finite, rows of probabilities that sum to 1;
- `describe(state)`: plain JSON values.

A calibrator that needs more than logits takes it by name in both `fit` and `calibrate`.

Logits are defined up to a number added to a whole row; no calibrator sees that number.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from diffident.errors import ShapeError
from diffident.options import options_of

Options = TypeVar("Options")

# Numbers of a block: few enough that it stays in the cache between the operations on it.
_BLOCK_NUMBERS = 2**16
# Logits farther below the largest say nothing more, and products of them must not overflow.
_FARTHEST = 1e30
# Log of the float64 epsilon: what is less probable counts as this where a calibrator takes the logarithm.
LEAST_LOG_PROB = float(np.log(np.finfo(np.float64).eps))


def make_options(kind: type[Options], calibrator: str, values: dict[str, Any]) -> Options:
    """The options record of a calibrator; raises like `diffident.options.options_of`."""
    return options_of(kind, f"calibrator {calibrator!r}", values)


def centred(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Logits minus the largest of their row, float64, at least -1e30."""
    values = logits.double()
    return (values - values.amax(dim=1, keepdim=True)).clamp_(min=-_FARTHEST)


def zero_sum(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Logits minus the mean of their row, float64."""
    values = centred(logits)
    return values - values.mean(dim=1, keepdim=True)


def log_probs_of(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log softmax, float64, at least -1e30: finite whatever the logits."""
    return torch.log_softmax(centred(logits), dim=1)


def mean_nll(log_probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """Mean of minus the log-probability of the label, in nats."""
    return 0.0 - float(log_probs.gather(1, labels[:, None]).mean())  # not -0.0


def row_blocks(num_samples: int, num_classes: int) -> Iterator[slice]:
    """Rows in blocks of a size that the cache holds."""
    rows = max(1, _BLOCK_NUMBERS // num_classes)
    for start in range(0, num_samples, rows):
        yield slice(start, start + rows)


def normalised(log_values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Log-probabilities from the logarithms of positive values: every class's own map, brought to sum 1."""
    return torch.log_softmax(log_values, dim=1)


def minimised(
    objective: Callable[[Float[np.ndarray, " p"]], tuple[float, Float[np.ndarray, " p"]]],
    start: Float[np.ndarray, " p"],
    *,
    least: float | None = None,
    iterations: int = 500,
) -> Float[np.ndarray, " p"]:
    """Where a convex function is least, by L-BFGS; the start itself where nothing better is found.

    Args:
        objective: Value and gradient.
        start: Where to start.
        least: Lower bound of every parameter.
        iterations: At most so many.
    """
    bounds = None if least is None else [(least, None)] * len(start)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": iterations, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-7},
    )
    return found.x if found.fun < objective(start)[0] else start


def check_width(logits: Float[Tensor, "n c"], num_classes: int) -> None:
    """Refuse logits of another number of classes than were fitted."""
    if logits.shape[1] != num_classes:
        raise ShapeError(
            f"`logits` must have {num_classes} columns, as fitted; got {logits.shape[1]}. Use the same model."
        )
