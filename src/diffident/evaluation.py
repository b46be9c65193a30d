"""From logits and labels to every metric with its interval."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.bootstrap import bootstrap
from diffident.confidence import TIE_DECIMALS, max_softmax
from diffident.errors import InputError, ShapeError
from diffident.metrics.accuracy import brier_terms, mean_of, nll_terms
from diffident.metrics.calibration import classwise_ece_from_gaps, classwise_gaps, ece
from diffident.metrics.detection import (
    aupr_from_counts,
    auroc_from_counts,
    errors_from_accepted,
    fpr95_from_counts,
)
from diffident.metrics.ranking import rank_samples
from diffident.metrics.selective import augrc_from_counts, aurc_from_counts, eaurc_from_counts
from diffident.records import Estimate, Evaluation

METRICS = (
    "accuracy",
    "nll",
    "brier",
    "ece",
    "classwise_ece",
    "aurc",
    "eaurc",
    "augrc",
    "auroc_errors",
    "fpr95_errors",
)
OOD_METRICS = ("auroc", "fpr95", "aupr")


def evaluate(
    logits: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    ood: Mapping[str, Tensor | np.ndarray] | None = None,
    num_resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Every metric of one set of predictions, with 95 % bootstrap intervals.

    Everything is computed in float64 on the CPU. The prediction is the largest logit, the lowest class among tied ones;
    the confidence is the largest probability.

    Args:
        logits: Unnormalised log-probabilities [n, c]. Probabilities are not recognised: give their logarithm.
        labels: Classes [n], integers in [0, c).
        ood: Logits [m, c] of out-of-distribution sets by name; scored by one minus the largest probability.
        num_resamples: Bootstrap resamples; 0 gives NaN for low and high. The sets of `ood` are resampled on their own.
        seed: Seed of the resamples.

    Returns:
        Metrics by the keys of `METRICS`, and for every set those of `OOD_METRICS`; NaN where undefined.

    Raises:
        InputError: no samples, a NaN or infinite logit, a label out of range, wrong shapes or types.

    Example:
        >>> evaluate(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])).metrics["accuracy"].value
        1.0
    """
    logits = check_logits(logits, "logits")
    labels = check_labels(labels, *logits.shape)
    if num_resamples < 0:
        raise InputError(f"`num_resamples` must be at least 0; got {num_resamples}. 0 skips the intervals.")
    outside = {name: check_logits(values, f"ood[{name!r}]") for name, values in (ood or {}).items()}
    for name, values in outside.items():
        if values.shape[1] != logits.shape[1]:
            raise ShapeError(
                f"`ood[{name!r}]` must have {logits.shape[1]} columns like `logits`; got {values.shape[1]}. "
                f"Predict both with the same model."
            )
    confidence = max_softmax(logits)
    return Evaluation(
        metrics=_labelled_metrics(logits, labels, confidence, num_resamples, seed),
        num_samples=logits.shape[0],
        num_classes=logits.shape[1],
        ood={
            name: _ood_metrics(confidence, max_softmax(values), num_resamples, seed) for name, values in outside.items()
        },
    )


def _labelled_metrics(
    logits: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    confidence: Float[Tensor, " n"],
    num_resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    log_probs = torch.log_softmax(logits, dim=1)
    nll = nll_terms(log_probs, labels)
    probs = log_probs.exp_()
    brier = brier_terms(probs, labels)
    gaps = classwise_gaps(probs.round(decimals=TIE_DECIMALS), labels)
    errors = logits.argmax(dim=1) != labels
    right = (~errors).to(torch.float64)
    ranking = rank_samples(confidence, errors)

    def metrics(counts: Float[Tensor, "r n"]) -> dict[str, Tensor]:
        accepted = ranking.cumulate(counts)
        flagged = errors_from_accepted(accepted)
        return {
            "accuracy": mean_of(right, counts),
            "nll": mean_of(nll, counts),
            "brier": mean_of(brier, counts),
            "ece": ece(confidence, errors, counts=counts),
            "classwise_ece": classwise_ece_from_gaps(gaps, counts),
            "aurc": aurc_from_counts(accepted),
            "eaurc": eaurc_from_counts(accepted),
            "augrc": augrc_from_counts(accepted),
            "auroc_errors": auroc_from_counts(flagged),
            "fpr95_errors": fpr95_from_counts(flagged),
        }

    generator = torch.Generator().manual_seed(seed)
    return bootstrap(metrics, [len(labels)], num_resamples=num_resamples, generator=generator)


def _ood_metrics(
    inside: Float[Tensor, " n"], outside: Float[Tensor, " m"], num_resamples: int, seed: int
) -> dict[str, Estimate]:
    positive = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).bool()
    ranking = rank_samples(-torch.cat([inside, outside]), positive)

    def metrics(counts: Float[Tensor, "r n"]) -> dict[str, Tensor]:
        cumulative = ranking.cumulate(counts)
        return {
            "auroc": auroc_from_counts(cumulative),
            "fpr95": fpr95_from_counts(cumulative),
            "aupr": aupr_from_counts(cumulative),
        }

    generator = torch.Generator().manual_seed(seed)
    return bootstrap(metrics, [len(inside), len(outside)], num_resamples=num_resamples, generator=generator)


def check_logits(logits: Tensor | np.ndarray, name: str) -> Float[Tensor, "n c"]:
    """The logits as float64 on the CPU.

    Raises:
        InputError: not a numeric array [n, c] with n and c at least 1, or a NaN or infinite entry, named by its row.
    """
    values = _as_tensor(logits, name)
    if values.ndim != 2:
        raise ShapeError(f"`{name}` must have shape [n, c]; got {list(values.shape)}. Give one row per sample.")
    if not values.numel():
        raise InputError(f"`{name}` must have at least one row and column; got {list(values.shape)}. Check the file.")
    values = values.to(torch.float64)
    finite = values.isfinite()
    if not bool(finite.all()):
        row, column = (~finite).nonzero()[0].tolist()
        bad = float(values[row, column])
        raise InputError(
            f"`{name}` must be finite; got {bad:g} at row {row}, column {column}. "
            f"{'Clamp log(0) to a large negative number.' if bad == -math.inf else 'Look for a diverged model.'}"
        )
    return values


def check_labels(labels: Tensor | np.ndarray, num_samples: int, num_classes: int) -> Int[Tensor, " n"]:
    """The labels as int64 on the CPU.

    Raises:
        InputError: not integers [n], or one outside [0, c), named by its row.
    """
    values = _as_tensor(labels, "labels")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"`labels` must be integers; got {values.dtype}. Convert them to int64.")
    if values.shape != (num_samples,):
        raise ShapeError(f"`labels` must have shape [{num_samples}], one per row of logits; got {list(values.shape)}.")
    values = values.long()
    outside = (values < 0) | (values >= num_classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"`labels` must be in [0, {num_classes}); got {int(values[row])} at row {row}. "
            f"Re-index the labels or predict with more classes."
        )
    return values


def _as_tensor(values: Tensor | np.ndarray, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise InputError(f"`{name}` must be an array of numbers; got dtype {array.dtype}. Convert it first.")
    if array.dtype.kind == "u":
        array = array.astype(np.int64)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
