"""Self-confidence of a cross-validated linear probe: minus the log-probability of the label, held out.

Softmax regression on standardised features, fitted without each of five folds in turn. For fitted rows
(`fitted=True`) the probabilities are those of the classifier that did not see the row; for others
(`fitted=False`) they are the mean over the five classifiers. difficulty = -log p_y in nats, margin = max over k of
log p_k - log p_y. From strong to weak, the ridge is the last one before the held-out cross-entropy of the given labels
rises.

Folds are stratified by label and follow from the content of a row and a seed: the order of the rows does not matter,
and rows with equal features and labels share a fold, so that no duplicate of a row is in what judges it. A class that
lies in one fold alone is known to its held-out classifier by its smoothed frequency, (0 + 1) / (n + K), only.

Cost: a pass for folds, a pass with one product of N x d x d, then about 50 to 150 passes with two products of
N x d x 5K. Features of up to 1 GiB in float32 are kept in memory meanwhile; larger ones are read in every pass.

Reference:
    Northcutt et al. 2021, arXiv 1911.00068; Kuan and Mueller 2022, Model-agnostic label quality scoring (p_y there).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from diffident.difficulties import rmd
from diffident.difficulties.probe import Probe, fit_probe
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_fitted,
    checked_blocks,
    choose_nearest,
    join_scores,
    make_options,
)
from diffident.folds import row_keys
from diffident.options import check_above_zero, check_choice, check_whole


@dataclass(frozen=True)
class SelfConfidenceOptions:
    """Options of `self-confidence`.

    Attributes:
        folds: Number of parts of the cross-validation.
        ridge: Penalty on weights and offsets, relative to the mean cross-entropy, or `auto`; 1 / (C n) in
            scikit-learn's words, which leaves offsets free.
        seed: Of the folds.
    """

    folds: int = 5
    ridge: float | str = "auto"
    seed: int = 0

    def __post_init__(self):
        check_whole("folds", self.folds, 2)
        check_whole("seed", self.seed, 0)
        if isinstance(self.ridge, str):
            check_choice("ridge", self.ridge, ("auto",))
        else:
            check_above_zero("ridge", self.ridge)


@dataclass(frozen=True)
class CrossValidatedProbe:
    """The classifiers and which of them did not see which row.

    Attributes:
        probe: One classifier a fold.
        folds: Fold of every fitted row, int64 (n,).
        options: As chosen.
        counts: Samples of each class (k,).
    """

    probe: Probe
    folds: Int[np.ndarray, " n"]
    options: SelfConfidenceOptions
    counts: Int[np.ndarray, " k"]


def fit(
    blocks: Blocks,
    labels: np.ndarray,
    num_classes: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> CrossValidatedProbe:
    """Folds, geometry, then all classifiers at once; options: `SelfConfidenceOptions`.

    `progress` gets (done, total) in every pass over features that are kept in memory.
    """
    chosen = make_options(SelfConfidenceOptions, "self-confidence", options)
    folds = content_folds(blocks, labels, num_classes, chosen.folds, chosen.seed)
    everything = rmd.gaussians_of(blocks, np.zeros_like(labels), 1, 0.0)
    probe = fit_probe(
        blocks,
        labels,
        folds,
        num_folds=chosen.folds,
        mean=everything.overall_mean,
        covariance=everything.within,
        num_classes=num_classes,
        ridge=None if isinstance(chosen.ridge, str) else float(chosen.ridge),
        progress=progress,
    )
    return CrossValidatedProbe(probe, folds, chosen, np.bincount(labels, minlength=num_classes))


def score(state: CrossValidatedProbe, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Held-out log-probabilities; see the module for what `fitted` changes."""
    if fitted:
        check_fitted(labels, len(state.folds))

    def parts():
        num_features, _, num_classes = state.probe.weights.shape
        for start, block, chosen in checked_blocks(blocks, labels, num_classes, num_features):
            for part, label in zip(state.probe.split(block), state.probe.split(chosen), strict=True):
                log_probs = state.probe.log_probs(part)
                label = label.to(log_probs.device)
                if fitted:
                    rows = torch.from_numpy(state.folds[start : start + len(part)]).to(log_probs.device)
                    log_probs = log_probs[torch.arange(len(part), device=log_probs.device), rows]
                else:
                    log_probs = log_probs.logsumexp(dim=1) - np.log(log_probs.shape[1])
                start += len(part)
                yield choose_nearest(-log_probs, label)

    return join_scores(parts())


def describe(state: CrossValidatedProbe) -> dict[str, Any]:
    """Folds, the ridge and how it was chosen, held-out loss and classes that no classifier knows well."""
    return {
        "num_features": len(state.probe.mean),
        "folds": state.options.folds,
        "seed": state.options.seed,
        "ridge": state.probe.ridge,
        "ridge_choice": "auto" if isinstance(state.options.ridge, str) else "given",
        "held_out_loss": state.probe.held_out_loss,
        "passes": state.probe.iterations,
        "singleton_classes": int((state.counts == 1).sum()),
        "absent_classes": int((state.counts == 0).sum()),
    }


def content_folds(
    blocks: Blocks, labels: Int[np.ndarray, " n"], num_classes: int, num_folds: int, seed: int
) -> Int[np.ndarray, " n"]:
    """Stratified folds in [0, num_folds) that depend on what is in a row, not on its place; duplicates share one."""
    keys = np.concatenate([row_keys(block, seed) for _, block, _ in checked_blocks(blocks, labels, num_classes)])
    order = np.lexsort((keys, labels))
    ordered_labels, ordered_keys = labels[order], keys[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = ordered_labels[1:] != ordered_labels[:-1]
    new = first.copy()
    new[1:] |= ordered_keys[1:] != ordered_keys[:-1]
    place = np.cumsum(new)
    within = place - np.maximum.accumulate(np.where(first, place, 0))
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = (within + ordered_labels) % num_folds  # classes start at different folds: singletons spread
    return folds
