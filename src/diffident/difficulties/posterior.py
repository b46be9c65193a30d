"""Negative log-posterior of the label under the class Gaussians, re-estimated without the labels that it convicts.

With the shared covariance, log p(label | z) = -D2_label / 2 - log sum_k exp(-D2_k / 2): where `rmd` compares the label
with the background, this compares it with the other classes, which is what makes a label wrong. Every sample is judged
by Gaussians that were estimated without it, or classes of few samples would agree with any label. Wrong labels pull
class means towards each other; so a noise model (`label_noise`) is fitted to the scores, labels that are more likely
wrong than right are left out, and the Gaussians are fitted again, until the set is stable. On clean data next to
nothing is left out.

Cost: that of `rmd` and of the distances to the background (N x d x d), once for every round (at most 4).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from diffident.difficulties import rmd
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_present,
    choose_nearest,
    join_scores,
    labelled_blocks,
    make_options,
    rows_from,
)
from diffident.errors import InputError
from diffident.gaussian import Gaussians, leave_one_out_distances
from diffident.label_noise import (
    Candidates,
    NoiseModel,
    choose_candidates,
    fit_noise_model,
    join_candidates,
    probability_wrong,
)

_MOST_ROUNDS = 4
# Rounds end where fewer than this share of the labels change sides.
_STABLE_SHARE = 0.001
# A class keeps at least this share of its samples, the least suspicious.
_LEAST_KEPT = 0.3


@dataclass(frozen=True)
class PosteriorOptions:
    """Options of `posterior`.

    Attributes:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.
        robust: `yes` re-estimates without the labels that are more likely wrong than right, `no` fits once.
    """

    shrinkage: float | str = "auto"
    robust: str = "yes"

    def __post_init__(self):
        if self.robust not in ("yes", "no"):
            raise InputError(f"`robust` must be `yes` or `no`; got {self.robust!r}. Leave it out for `yes`.")


@dataclass(frozen=True)
class Posterior:
    """Gaussians, and what the given labels say of their own errors.

    Attributes:
        gaussians: Fitted without the convicted labels.
        noise: Fitted to all labels under these Gaussians.
        candidates: Scores of the fitted samples, in nats, the label first.
        convicted: Labels that were left out of the fit (n,).
        rounds: Fits that it took.
    """

    gaussians: Gaussians
    noise: NoiseModel
    candidates: Candidates
    convicted: Bool[Tensor, " n"]
    rounds: int


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Posterior:
    """Fit, convict, and fit again until the convicted stay the same; options: `PosteriorOptions`."""
    chosen = make_options(PosteriorOptions, "posterior", options)
    targets = torch.from_numpy(labels)
    convicted = torch.zeros(len(labels), dtype=torch.bool)
    for rounds in range(1, _MOST_ROUNDS + 1):
        kept = ~convicted if rounds > 1 else None
        gaussians = rmd.gaussians_of(blocks, labels, num_classes, chosen.shrinkage, kept=kept)
        scored = _scored(gaussians, blocks, labels, ~convicted)
        candidates = join_candidates([choose_candidates(*part) for part in scored])
        noise = fit_noise_model(candidates)
        if chosen.robust == "no" or rounds == _MOST_ROUNDS:
            break
        before, convicted = convicted, _convict(probability_wrong(noise, candidates), targets, num_classes)
        if int((convicted != before).sum()) <= _STABLE_SHARE * len(labels):
            convicted = before
            break
    return Posterior(gaussians, noise, candidates, convicted, rounds)


def score(state: Posterior, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """-log p(label | z) in nats, >= 0; the margin is the log-odds of the best class against the label.

    Fitted rows are judged without themselves.
    """
    part_of_fit = ~state.convicted if fitted else torch.zeros(len(labels), dtype=torch.bool)

    def parts() -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        for scores, chosen in _scored(state.gaussians, blocks, labels, part_of_fit):
            of_label, nearest, margin = choose_nearest(-scores, chosen)
            yield (torch.logsumexp(scores, dim=1) + of_label).clamp(min=0), nearest, margin

    return join_scores(parts())


def describe(state: Posterior) -> dict[str, Any]:
    """What `rmd` reports, and what was found of wrong labels."""
    return {
        **rmd.describe(state.gaussians),
        "rounds": state.rounds,
        "num_left_out": int(state.convicted.sum()),
        "noise_temperature": state.noise.temperature,
        "num_estimated_wrong": float(probability_wrong(state.noise, state.candidates).sum()),
    }


def _scored(
    gaussians: Gaussians, blocks: Blocks, labels: np.ndarray, fitted: Tensor
) -> Iterable[tuple[Tensor, Tensor]]:
    """-D2_k / 2 up to a constant a sample (b, K), float64, and labels of every block, on the CPU."""
    device = gaussians.overall_mean.device
    for start, block, chosen in labelled_blocks(blocks, labels):
        check_present(gaussians.counts, chosen, start)
        rows = slice(start, start + len(block))
        known = chosen.to(device), fitted[rows].to(device)
        with rows_from(start, block, len(gaussians.overall_mean)):
            scores = leave_one_out_distances(gaussians, block.to(device), *known) / -2
        yield scores.cpu(), chosen.cpu()


def _convict(wrong: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Labels more likely wrong than right; but a class never loses more than its most suspicious part."""
    convicted = wrong > 0.5
    lost = torch.bincount(labels[convicted], minlength=num_classes).double()
    sizes = torch.bincount(labels, minlength=num_classes)
    for label in (lost > (1 - _LEAST_KEPT) * sizes).nonzero().flatten().tolist():
        rows = (labels == label).nonzero().flatten()
        most = int((1 - _LEAST_KEPT) * len(rows))
        convicted[rows] = False
        convicted[rows[wrong[rows].argsort(descending=True, stable=True)[:most]]] = True
    return convicted & (sizes[labels] > 1)
