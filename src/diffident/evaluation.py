"""From logits and labels to every metric with its interval."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffident.bootstrap import Draws, bootstrap, estimate_of, join_draws, resampled, resampling_blocks
from diffident.errors import InputError, ShapeError
from diffident.metrics import suite as suites
from diffident.metrics.calibration import equal_mass_cuts
from diffident.metrics.classwise import ClasswiseSums, classwise_sums, classwise_values
from diffident.metrics.detection import (
    aupr_from_counts,
    auroc_from_counts,
    errors_from_accepted,
    fpr95_from_counts,
)
from diffident.metrics.deviations import classwise_deviations
from diffident.metrics.inputs import (
    ClassScores,
    as_tensor,
    check_labels,
    check_logits,
    check_probs,
    check_scores,
    row_blocks,
)
from diffident.metrics.intervals import EXACT_ALONE, mean_estimate, measure
from diffident.metrics.ranking import CumulativeCounts, rank_samples
from diffident.metrics.terms import SampleTerms, confidence_of, sample_terms
from diffident.progress import reporting
from diffident.records import ClassGroup, DifficultyGroup, Estimate, Evaluation

OOD_METRICS = ("auroc", "fpr95", "aupr", "aupr_in")
NUM_RESAMPLES = 1000
NUM_GROUPS = 10
_MAX_CLASSWISE = 20_000_000
"""Entries of one array of resampled classwise sums: bounds the memory, 160 MB an array."""
_MAX_BLOCK_COUNTS = 2_000_000

_Drew = Callable[[int], None]
"""Is told how many samples were drawn, when they have been worked on."""


def evaluate(
    logits: Tensor | np.ndarray | None = None,
    labels: Tensor | np.ndarray | None = None,
    *,
    probs: Tensor | np.ndarray | None = None,
    ood: Mapping[str, Tensor | np.ndarray] | None = None,
    difficulty: Tensor | np.ndarray | None = None,
    by_class: bool = False,
    label_names: Sequence[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Every metric of one set of predictions, with 95 % intervals, bootstrapped or exact.

    Everything is computed in float64 on the CPU, in blocks of rows. The prediction is the largest logit, the lowest
    class among tied ones; the confidence is the largest probability.

    Args:
        logits: Unnormalised log-probabilities [n, c]. Rows that all look like probabilities are refused.
        labels: Classes [n], integers in [0, c).
        probs: Probabilities [n, c] in the place of logits.
        ood: Logits [m, c] of out-of-distribution sets by name, or probabilities if `probs` was given; scored by one
            minus the largest probability.
        difficulty: Difficulty of every sample [n], in the rows' order: the metrics of its tenths are in
            `by_difficulty`.
        by_class: Whether to give the metrics of every class's samples too.
        label_names: Name of each class, for `by_class`.
        num_resamples: Bootstrap resamples; 0 gives NaN for low and high. The sets of `ood` are resampled on their own.
        seed: Seed of the resamples.
        progress: Called with (done, total), in resamples of all samples: those of a group count as parts of one.

    Returns:
        Metrics by lower-case name (docs/metrics.md says what each is), and for every set those of `OOD_METRICS`; NaN
        where undefined. Groups leave out the metrics that are about all classes at once (`CLASSWISE_METRICS`).

    Raises:
        InputError: no samples, a NaN or infinite value, logits that are probabilities or the reverse, a label out of
            range, wrong shapes or types.

    Example:
        >>> evaluate(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])).metrics["accuracy"].value
        1.0
    """
    if num_resamples < 0:
        raise InputError(f"`num_resamples` must be at least 0; got {num_resamples}. 0 skips the intervals.")
    scores = check_scores(logits, probs, labels, called="evaluate")
    assert labels is not None  # seen to by `check_scores`
    labels = check_labels(labels, len(scores), scores.num_classes)
    if label_names is not None and len(label_names) != scores.num_classes:
        raise InputError(
            f"`label_names` must have {scores.num_classes} entries, one per class; got {len(label_names)}. Name all."
        )
    values = None if difficulty is None else _check_difficulty(difficulty, len(scores))
    outside = {name: _check_ood(values, name, scores) for name, values in (ood or {}).items()}
    sets = 2 + (values is not None) + by_class  # as often are all samples resampled
    num_drawn = num_resamples * (sets * len(scores) + sum(len(scores) + len(one) for one in outside.values()))
    drew = reporting(progress, num_drawn, unit=len(scores))
    terms, sums = sample_terms(scores, labels)
    metrics = _sample_metrics(terms, num_resamples, seed, drew)
    metrics |= _classwise_metrics(scores, terms, sums, num_resamples, seed, drew)
    return Evaluation(
        metrics={name: metrics[name] for name in suites.metric_order(binary=scores.num_classes == 2)},
        num_samples=len(scores),
        num_classes=scores.num_classes,
        ood={
            name: _ood_metrics(terms.confidence, confidence_of(one), num_resamples, seed, drew)
            for name, one in outside.items()
        },
        by_difficulty=() if values is None else _by_difficulty(terms, values, num_resamples, seed, drew),
        by_class=_by_class(terms, label_names, num_resamples, seed, drew) if by_class else (),
    )


def _sample_metrics(terms: SampleTerms, num_resamples: int, seed: int, drew: _Drew) -> dict[str, Estimate]:
    """Every metric but the classwise ones, with intervals."""
    if num_resamples == 0:
        return bootstrap(
            suites.sample_values(terms), lambda counts: {}, [len(terms)], num_resamples=0, generator=_seeded(0)
        )
    terms = terms.take(torch.argsort(terms.confidence, descending=True, stable=True))  # resamples need no gathering
    suite = suites.in_place_order(suites.prepare(terms))
    names = suites.metric_names(binary=suite.positive is not None)
    of_samples = measure(suite, names, seed)
    plain = [
        name for name in names if name not in EXACT_ALONE and name.removesuffix("_positive") not in suites.CALIBRATION
    ]

    def resample(counts: Float[Tensor, "r n"]) -> dict[str, Draws]:
        drawn = suites.Drawn(suite, counts)
        draws: dict[str, Draws] = {**suites.drawn_metrics(drawn, plain), **of_samples.deviations(drawn)}
        drew(counts.numel())
        return draws

    draws = resampled(resample, [len(terms)], num_resamples, _seeded(seed))
    return {name: mean_estimate(name, [of_samples], [draws[name]] if name in draws else []) for name in names}


def _classwise_metrics(
    scores: ClassScores, terms: SampleTerms, sums: ClasswiseSums, num_resamples: int, seed: int, drew: _Drew
) -> dict[str, Estimate]:
    """The metrics of `CLASSWISE_METRICS` with intervals; the probabilities are made anew, block by block."""
    values = classwise_values(sums, float(_brier(terms).mean()))
    chunks, generator, left = [], _seeded(seed), num_resamples
    while left:
        rows = min(left, max(1, _MAX_CLASSWISE // sums.gaps.numel()))
        chunks.append(_classwise_draws(scores, terms, sums, rows, generator, drew))
        left -= rows
    if not chunks:
        return bootstrap(values, lambda counts: {}, [len(terms)], num_resamples=0, generator=generator)
    return {name: estimate_of(value, join_draws([chunk[name] for chunk in chunks])) for name, value in values.items()}


def _classwise_draws(
    scores: ClassScores,
    terms: SampleTerms,
    sums: ClasswiseSums,
    num_resamples: int,
    generator: torch.Generator,
    drew: _Drew,
) -> dict[str, Draws]:
    size = max(scores.num_classes, num_resamples)
    blocks = list(row_blocks(len(scores), size, _MAX_BLOCK_COUNTS))
    resampled, brier = None, torch.zeros(num_resamples, dtype=torch.float64)
    drawn = resampling_blocks([rows.stop - rows.start for rows in blocks], num_resamples, generator)
    for rows, counts in zip(blocks, drawn, strict=True):
        block = classwise_sums(scores.block(rows).probs, terms.labels[rows], counts=counts)
        resampled = block if resampled is None else resampled + block
        brier += counts @ _brier(terms)[rows]
        drew(counts.numel())
    assert resampled is not None  # there is at least one row
    return classwise_deviations(resampled, sums, brier / len(scores), generator)


def _by_difficulty(
    terms: SampleTerms, difficulty: Float[Tensor, " n"], num_resamples: int, seed: int, drew: _Drew
) -> tuple[DifficultyGroup, ...]:
    """Tenths by difficulty, easiest first; tied samples are in one group, so there may be fewer than ten."""
    groups = []
    for rows in difficulty_groups(difficulty):
        low, high = (float(end) for end in difficulty[rows].aminmax())
        metrics = _sample_metrics(terms.take(rows), num_resamples, seed, drew)
        groups.append(DifficultyGroup(low, high, len(rows), metrics))
    return tuple(groups)


def difficulty_groups(difficulty: Float[Tensor, " n"], num_groups: int = NUM_GROUPS) -> list[Int[Tensor, " m"]]:
    """Rows of every group of about as many samples, easiest first; ties go to one group, as bins of equal mass do."""
    ranking = rank_samples(difficulty, torch.zeros(len(difficulty), dtype=torch.bool))
    assert ranking.order is not None  # it has just been made
    places = torch.nn.functional.pad(ranking.ends + 1, (1, 0))[equal_mass_cuts(ranking, num_groups)].tolist()
    groups = [ranking.order[start:stop] for start, stop in itertools.pairwise(places) if stop > start]
    return groups[::-1]


def _by_class(
    terms: SampleTerms, label_names: Sequence[str] | None, num_resamples: int, seed: int, drew: _Drew
) -> tuple[ClassGroup, ...]:
    groups = []
    for index in terms.labels.unique().tolist():
        chosen: Bool[Tensor, " n"] = terms.labels == index
        name = None if label_names is None else str(label_names[index])
        metrics = _sample_metrics(terms.take(chosen), num_resamples, seed, drew)
        groups.append(ClassGroup(index, name, int(chosen.sum()), metrics))
    return tuple(groups)


def ood_metrics(
    inside: Float[Tensor, " n"], outside: Float[Tensor, " m"], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """How well a confidence tells samples from out-of-distribution ones, by the keys of `OOD_METRICS`.

    Args:
        inside: Confidence of the samples, higher is surer; minus the ood_score of a detector.
        outside: That of the out-of-distribution samples, which are the positive class, except for `aupr_in`.
        num_resamples: Bootstrap resamples of each set on its own; 0 gives NaN for low and high.
        seed: Seed of the resamples.
    """
    return _ood_metrics(inside, outside, num_resamples, seed, lambda drawn: None)


def _ood_metrics(
    inside: Float[Tensor, " n"], outside: Float[Tensor, " m"], num_resamples: int, seed: int, drew: _Drew
) -> dict[str, Estimate]:
    positive = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).bool()
    ranking = rank_samples(-torch.cat([inside, outside]), positive)

    def metrics(counts: Float[Tensor, "r n"] | None) -> dict[str, Tensor]:
        cumulative = ranking.cumulate(counts)
        backwards = errors_from_accepted(cumulative)
        inside_found = CumulativeCounts(backwards.totals, backwards.totals - backwards.positives)
        found = (auroc_from_counts, fpr95_from_counts, aupr_from_counts)
        areas = [metric(cumulative) for metric in found] + [aupr_from_counts(inside_found)]
        return dict(zip(OOD_METRICS, areas, strict=True))

    def resample(counts: Float[Tensor, "r n"]) -> dict[str, Tensor]:
        draws = metrics(counts)
        drew(counts.numel())
        return draws

    values = {name: float(value) for name, value in metrics(None).items()}
    sizes = [len(inside), len(outside)]
    return bootstrap(values, resample, sizes, num_resamples=num_resamples, generator=_seeded(seed))


def _brier(terms: SampleTerms) -> Float[Tensor, " n"]:
    assert terms.brier is not None  # `sample_terms` computes it
    return terms.brier


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _check_ood(values: Tensor | np.ndarray, name: str, inside: ClassScores) -> ClassScores:
    called = f"ood[{name!r}]"
    if inside.are_probs:
        scores = check_probs(values, called)
    else:
        scores = check_logits(values, called, probs_as="Give it as logits like those of the labelled samples.")
    if scores.num_classes != inside.num_classes:
        raise ShapeError(
            f"`{called}` must have {inside.num_classes} columns like `{'probs' if inside.are_probs else 'logits'}`; "
            f"got {scores.num_classes}. Predict both with the same model."
        )
    return scores


def _check_difficulty(difficulty: Tensor | np.ndarray, num_samples: int) -> Float[Tensor, " n"]:
    values = as_tensor(difficulty, "difficulty").to(torch.float64)
    if values.shape != (num_samples,):
        raise ShapeError(
            f"`difficulty` must have shape [{num_samples}], one per row of logits; got {list(values.shape)}."
        )
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite()).nonzero()[0])
        raise InputError(f"`difficulty` must be finite; got {float(values[row]):g} at row {row}. Score the data again.")
    return values
