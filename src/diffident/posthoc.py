"""What can be done after training: calibrators, prediction sets and abstaining on a split of its own, and detectors."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffident.abstention import AbstentionThreshold, fit_abstention
from diffident.bootstrap import bootstrap
from diffident.calibrators import Calibrator, calibrate, check_disjoint, find_calibrator, fit_calibrator
from diffident.confidence import max_softmax
from diffident.conformal import METHODS, fit_conformal, prediction_sets, set_terms
from diffident.detectors import find_detector, fit_detector, ood_score
from diffident.errors import IdMismatchError, InputError
from diffident.evaluation import NUM_RESAMPLES, evaluate, ood_metrics
from diffident.metrics.accuracy import mean_of
from diffident.metrics.bounds import share_of
from diffident.progress import counted
from diffident.records import Estimate, Predictions

Metrics = dict[str, Estimate]
Array = Tensor | np.ndarray


@dataclass(frozen=True)
class ModelOutputs:
    """What a detector may look at, of the same samples in one order; what it does not need may be None.

    Attributes:
        logits: (n, c).
        features: (n, d).
        labels: (n,).
    """

    logits: Array | None = None
    features: Array | None = None
    labels: Array | None = None


def check_apart(calibration: Predictions, test: Predictions) -> None:
    """Refuse calibration samples that will also be evaluated.

    They are compared by id; where one has row numbers for ids, as an .npz without ids has, by their logits, those that
    each has once: of probabilities that take few values many are the same in any two sets.

    Raises:
        InputError: the calibration samples have no labels or other classes.
        IdMismatchError: names the number and the first of the shared samples.
    """
    if calibration.labels is None:
        raise InputError("`calibration` must have labels; got none. Calibrate on a labelled split.")
    if calibration.logits.shape[1] != test.logits.shape[1]:
        raise InputError(
            f"`calibration` must have {test.logits.shape[1]} classes, as the test split; got "
            f"{calibration.logits.shape[1]}. Predict both with the same model."
        )
    if not any(_are_row_numbers(one.ids) for one in (calibration, test)):
        check_disjoint(calibration.ids, test.ids)
        return
    rows, seen = ([row.tobytes() for row in one.logits.float().numpy()] for one in (calibration, test))
    once = {row for row, count in Counter(seen).items() if count == 1}
    once &= {row for row, count in Counter(rows).items() if count == 1}
    shared = [number for number, row in enumerate(rows) if row in once]
    if shared:
        raise IdMismatchError(
            f"`calibration` must share no sample with the test split; got the same logits in {len(shared)} of "
            f"{len(calibration)} rows: first row {shared[0]}. Calibrate on a split of its own; if these are different "
            "samples, give both files ids."
        )


def evaluate_calibrators(
    names: Sequence[str],
    calibration: Predictions,
    test: Predictions,
    *,
    difficulty: tuple[Array, Array] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Calibrator], dict[str, Metrics]]:
    """Fit calibrators on one split, and evaluate another after each of them.

    Args:
        names: Keys of `CALIBRATORS`.
        calibration: Labelled predictions, of neither training nor test samples.
        test: Labelled predictions to evaluate.
        difficulty: Predicted difficulty of the calibration and of the test samples, for `difficulty-temperature`.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        progress: Called with (calibrators done, calibrators).

    Returns:
        The calibrators, with the likelihood of the calibration split before and after; and the metrics, both by name.

    Raises:
        InputError: a wrong name, or no difficulty where it is needed.
        IdMismatchError: the splits share samples.
    """
    check_apart(calibration, test)
    assert calibration.labels is not None  # seen to by `check_apart`
    fitted: dict[str, Calibrator] = {}
    metrics: dict[str, Metrics] = {}
    for name in counted(names, len(names), progress):
        needs = find_calibrator(name).needs is not None
        known, unknown = difficulty if needs and difficulty is not None else (None, None)
        fitted[name] = fit_calibrator(name, calibration.logits, calibration.labels, difficulty=known)
        log_probs = calibrate(fitted[name], test.logits, difficulty=unknown)
        metrics[name] = evaluate(log_probs, test.labels, num_resamples=num_resamples, seed=seed).metrics
    return fitted, metrics


def evaluate_prediction_sets(
    calibration: Predictions,
    test: Predictions,
    *,
    error_rate: float,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Metrics]:
    """Coverage and sizes of the sets of every conformal method on the test samples, by method.

    Shares have exact binomial intervals; `num_resamples` are those of the mean size.
    """
    check_apart(calibration, test)
    assert calibration.labels is not None  # seen to by `check_apart`
    assert test.labels is not None
    metrics = {}
    for method in METHODS:
        drawing = torch.Generator().manual_seed(seed)
        state = fit_conformal(
            calibration.logits, calibration.labels, method=method, error_rate=error_rate, generator=drawing
        )
        sets = prediction_sets(state, test.logits, generator=drawing)
        terms = set_terms(sets, test.labels)
        metrics[method] = {
            name: _mean(term, num_resamples, seed)
            if name == "mean_size"
            else share_of(float(term.sum()), float(len(term)))
            for name, term in terms.items()
        }
    return metrics


def evaluate_abstention(
    calibration: Predictions,
    test: Predictions,
    *,
    target: float,
    delta: float = 0.1,
) -> tuple[AbstentionThreshold, Metrics]:
    """The certified threshold of the calibration split, and what it does to the test samples.

    Returns:
        The threshold; and threshold, coverage and selective_risk on the test samples, with exact binomial intervals;
        the last is NaN where the threshold accepts none of them.
    """
    check_apart(calibration, test)
    confidence, errors = _confidence_and_errors(calibration)
    state = fit_abstention(confidence, errors, target=target, delta=delta)
    confidence, errors = _confidence_and_errors(test)
    accepted = confidence >= state.threshold
    return state, {
        "threshold": Estimate(state.threshold, state.threshold, state.threshold),
        "coverage": share_of(float(accepted.sum()), float(len(accepted))),
        "selective_risk": share_of(float((accepted & errors).sum()), float(accepted.sum())),
    }


def predicted_difficulty(train: ModelOutputs, *others: Array) -> list[Float[Tensor, " n"]]:
    """A difficulty that needs no label: squared distance to the nearest class minus that to the background.

    Args:
        train: Labelled features of the training samples.
        others: Features of other samples.
    """
    detector = fit_detector("relative-mahalanobis", features=train.features, labels=train.labels)
    return [ood_score(detector, features=features) for features in others]


def evaluate_detectors(
    names: Sequence[str],
    inside: ModelOutputs,
    outside: Mapping[str, ModelOutputs],
    *,
    train: ModelOutputs | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Metrics]]:
    """Tell test samples from out-of-distribution ones with every detector.

    Args:
        names: Keys of `DETECTORS`, or `pytorch-ood:NAME`.
        inside: Of the test samples.
        outside: Of every out-of-distribution set, by name.
        train: Of the training samples, for detectors that are fitted.
        num_resamples: Bootstrap resamples.
        seed: Seed of the resamples.
        progress: Called with (detectors done, detectors).

    Returns:
        Metrics by set, then by detector.

    Raises:
        InputError: a wrong name, or something that a detector needs is not given.
    """
    found: dict[str, dict[str, Metrics]] = {name: {} for name in outside}
    for name in counted(names, len(names), progress):
        find_detector(name)
        known = vars(train or ModelOutputs())
        detector = fit_detector(name, **known)
        scores = ood_score(detector, logits=inside.logits, features=inside.features)
        for where, outputs in outside.items():
            others = ood_score(detector, logits=outputs.logits, features=outputs.features)
            found[where][name] = ood_metrics(-scores, -others, num_resamples=num_resamples, seed=seed)
    return found


def _confidence_and_errors(predictions: Predictions) -> tuple[Float[Tensor, " n"], Tensor]:
    assert predictions.labels is not None  # seen to by `check_apart`
    logits = predictions.logits.double()
    return max_softmax(logits), logits.argmax(dim=1) != predictions.labels


def _mean(term: Float[Tensor, " n"], num_resamples: int, seed: int) -> Estimate:
    """Mean of one term a sample, with its interval."""
    generator = torch.Generator().manual_seed(seed)
    found = bootstrap(
        {"mean": float(term.mean())},
        lambda counts: {"mean": mean_of(term, counts)},
        [len(term)],
        num_resamples=num_resamples,
        generator=generator,
    )
    return found["mean"]


def _are_row_numbers(ids: np.ndarray) -> bool:
    return list(map(str, ids)) == [str(row) for row in range(len(ids))]
