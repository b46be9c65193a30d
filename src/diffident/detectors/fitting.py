"""Fit a detector by name, and score samples with it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.detectors import PEER_PREFIX, find_detector, open_detector
from diffident.detectors.protocol import Outputs
from diffident.errors import InputError, ShapeError
from diffident.metrics.inputs import check_labels, check_logits
from diffident.records import tensor_of

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Detector:
    """A fitted detector.

    Attributes:
        name: A key of `DETECTORS`, or `pytorch-ood:NAME`.
        state: The method's frozen record.
    """

    name: str
    state: Any


def fit_detector(
    name: str,
    *,
    logits: Array | None = None,
    features: Array | None = None,
    labels: Array | None = None,
    **options: Any,
) -> Detector:
    """Fit a detector on training samples; those that read logits alone need none.

    Args:
        name: A key of `DETECTORS`, or `pytorch-ood:NAME`.
        logits: Of the training samples [n, c].
        features: Of the same samples, in the same order [n, d].
        labels: Of the same samples [n].
        options: Settings of the detector.

    Raises:
        InputError: a wrong name, option or value, or something that the detector needs is not given.
        MissingDependencyError: an optional library is needed and not installed.

    Example:
        >>> energy = fit_detector("energy")
        >>> ood_score(energy, logits=torch.tensor([[9.0, 0.0], [0.1, 0.0]])).argmax().item()
        1
    """
    kind = find_detector(name)
    given = {"logits": logits, "features": features, "labels": labels}
    outputs = _outputs(name, kind.fits_on, given)
    peer = {"name": name.removeprefix(PEER_PREFIX)} if name.startswith(PEER_PREFIX) else {}
    return Detector(name, open_detector(name).fit(outputs, **peer, **options))


def ood_score(detector: Detector, *, logits: Array | None = None, features: Array | None = None) -> Float[Tensor, " n"]:
    """Out-of-distribution score of every sample, float64; higher is more out-of-distribution.

    Raises:
        InputError: what the detector needs is not given, not finite, or of another width than fitted.
    """
    kind = find_detector(detector.name)
    outputs = _outputs(detector.name, kind.scores, {"logits": logits, "features": features})
    return open_detector(detector.name).score(detector.state, outputs)


def _outputs(name: str, needed: tuple[str, ...], given: dict[str, Array | None]) -> Outputs:
    """What is needed, checked; the rest is left out."""
    missing = [key for key in needed if given[key] is None]
    if missing:
        raise InputError(
            f"`{missing[0]}` must be given for the detector {name!r}; got none. Give those of the samples."
        )
    values: dict[str, Tensor] = {}
    for key in needed:
        value = given[key]
        assert value is not None
        if key == "logits":
            values[key] = check_logits(value, key, probs_as="Give their logarithm.").values.double()
        elif key == "features":
            values[key] = _checked_features(value)
        else:
            first = next(iter(values.values()))
            width = first.shape[1] if "logits" in values else _most(value) + 1
            values[key] = check_labels(value, len(first), width)
    sizes = {key: len(value) for key, value in values.items()}
    if len(set(sizes.values())) > 1:
        raise ShapeError(
            f"`features` must have a row for every row of logits; got {sizes['features']} for {sizes['logits']}. "
            "Match them by id."
        )
    return Outputs(**values)


def _most(labels: Array) -> int:
    """The largest label; 0 where there is none that counts, which `check_labels` names."""
    values = tensor_of(labels, "labels")
    return int(values.max()) if values.numel() and bool(values.isfinite().all()) else 0


def _checked_features(features: Array) -> Tensor:
    """The features on the CPU, in their own precision or float32 for halves.

    Raises:
        InputError: not floats [n, d] with n and d at least 1, or NaN or infinity, named by its row.
    """
    values = tensor_of(features, "features").detach().cpu()
    if values.ndim != 2 or not values.numel() or not values.is_floating_point():
        raise ShapeError(
            f"`features` must be floats [n, d] with n and d at least 1; got {values.dtype} {list(values.shape)}. "
            "Give one row per sample."
        )
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    wrong = (~values.isfinite().all(dim=1)).nonzero()
    if len(wrong):
        raise InputError(
            f"`features` must be finite; got NaN or infinity at row {int(wrong[0])}. Mend or leave out that sample."
        )
    return values
