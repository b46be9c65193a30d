"""Negative log-posterior of the label under the class Gaussians, re-estimated without the labels that it convicts.

With the shared covariance, log p(label | z) = -D2_label / 2 - log sum_k exp(-D2_k / 2): where `rmd` compares the label
with the background, this compares it with the other classes, which is what makes a label wrong. Every sample is judged
by Gaussians that were estimated without it, or classes of few samples would agree with any label. Wrong labels pull
class means towards each other; so a noise model (`label_noise`) is fitted to the scores, labels that are more likely
wrong than right are left out, and the Gaussians are fitted again, until the set is stable. On clean data next to
nothing is left out.

What training should not learn from is a smaller set (`distrust`): where labels are clean, the Gaussians are sure of up
to two in a hundred that they are wrong, and of more where classes are small. So many are allowed for: the distrust is
P(wrong) times the part of what seems wrong that is more than that.

Cost: that of `rmd` and of the distances to the background (half of N x d x d), which are needed in every round (at most
4); the statistics of a later round come from those of the first and of the few labels that changed sides.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from diffident.difficulties import rmd
from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    check_fitted,
    check_present,
    checked_blocks,
    choose_nearest,
    join_scores,
    labelled_blocks,
    make_options,
    rows_from,
)
from diffident.difficulties.weights import MOST_DISTRUST
from diffident.errors import InputError
from diffident.folds import places_in_classes
from diffident.gaussian import Gaussians, GaussianStatistics, leave_one_out_distances, solve_gaussians
from diffident.label_noise import (
    Candidates,
    NoiseModel,
    choose_candidates,
    class_probabilities,
    fit_noise_model,
    join_candidates,
    probability_wrong,
)

_MOST_ROUNDS = 4
# Rounds end where fewer than this share of the labels change sides.
_STABLE_SHARE = 0.001
# A class keeps at least this share of its samples, the least suspicious.
_LEAST_KEPT = 0.3
# Share that seems wrong where labels are clean: with many samples a class, and what is added, divided by their number.
# CLINC150, 5, 10, 20, 50, 100 a class: 0.053, 0.038, 0.023, 0.013, 0.015; CIFAR-10, 20 to 5000: 0.006 to 0.04.
_FALSE_SHARE, _FALSE_OF_FEW = 0.02, 0.2
# All labels are believed unless the surest tenth disagrees with its labels at least half as often as all labels seem
# wrong, and as the surer half disagrees. Where labels are wrong that is 0.6 to 1.4 times (17 and 40 % of people's, and
# flipped ones), and 0.02 to 0.48 where they are clean and features weak (words of CLINC150 in 32 and 128 dimensions).
_SUREST, _LEAST_OF_SUREST = 0.1, 0.5
# Where features and labels mostly agree, wrong labels that people gave are rarer among the surest tenth, and few: 0.32
# to 0.70 times with 9 %, by chance. There it is enough if the surest three tenths do so 0.45 times as often: with 9 %
# they do 0.47 to 0.69 times (CIFAR-10, 2,000 to 10,000 samples), with 5 % flipped 0.49 to 0.89 (CLINC150), and 0 to
# 0.39 where labels are clean (both, 300 samples and more, and words of CLINC150 in 256 dimensions).
_MOSTLY_AGREEING, _SURE, _LEAST_OF_SURE = 0.7, 0.3, 0.45
# All labels are believed, too, where the best class is the label of fewer than this share: whether labels are wrong or
# features mistaken cannot be told then. With 40 % flipped it is the label of 0.47 to 0.58 of all (CLINC150, digits,
# CIFAR-10 with 500 samples and more); with features that know nothing of the classes, of 0.40 to 0.44 where labels are
# right (CIFAR-10 by an encoder of glyphs), and of 0.36 with 20 % flipped (words of CLINC150 in 32 dimensions).
_LEAST_AGREEING = 0.45
# Nor are labels doubted where the best class is the label of less than this share of those that do not seem wrong:
# that is how often the features are right. Where they were of use it is 0.79 and more (CIFAR-10, people's and flipped
# labels, 20 a class and more); where right labels were left out, 0.71 (CLINC150 in 64 hashed words), and 0.5 to 0.67
# (classes that overlap and have heavy tails).
_LEAST_RIGHT = 0.75


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
        scores: What `score` says of the fitted samples.
        part_believed: What P(wrong) is multiplied with for the distrust, in [0, 1].
        convicted: Labels that were left out of the fit (n,).
        rounds: Fits that it took.
        robust: `yes` where labels may be left out of the fit.
    """

    gaussians: Gaussians
    noise: NoiseModel
    candidates: Candidates
    scores: Scores
    part_believed: float
    convicted: Bool[Tensor, " n"]
    rounds: int
    robust: str


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> Posterior:
    """Fit, convict, and fit again until the convicted stay the same; options: `PosteriorOptions`."""
    chosen = make_options(PosteriorOptions, "posterior", options)
    targets = torch.from_numpy(labels)
    convicted = torch.zeros(len(labels), dtype=torch.bool)
    statistics = rmd.statistics_of(blocks, labels, num_classes)
    priors = _log_priors(targets, num_classes)
    for rounds in range(1, _MOST_ROUNDS + 1):
        judged = rmd.judged_of(blocks, labels, num_classes, ~convicted)
        gaussians = solve_gaussians(statistics, chosen.shrinkage, judged)
        candidates, scores = _judge(gaussians, blocks, labels, ~convicted, priors)
        noise = fit_noise_model(candidates)
        if chosen.robust == "no" or rounds == _MOST_ROUNDS:
            break
        before, convicted = convicted, _convict(probability_wrong(noise, candidates), targets)
        if int((convicted != before).sum()) <= _STABLE_SHARE * len(labels):
            convicted = before
            break
        statistics = _after(statistics, blocks, labels, convicted & ~before, before & ~convicted)
    wrong = probability_wrong(noise, candidates)
    part = _part_believed(wrong, candidates)
    scores = _with_belief(scores, keep_classes(part * wrong, targets), candidates, noise)
    return Posterior(gaussians, noise, candidates, scores, part, convicted, rounds, chosen.robust)


def score(state: Posterior, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """-log p(label | z) in nats, >= 0; the margin is the log-odds of the best class against the label.

    Fitted rows are judged without themselves.
    """
    if fitted:
        check_fitted(labels, len(state.convicted))
        for _ in checked_blocks(blocks, labels, len(state.gaussians.counts), len(state.gaussians.overall_mean)):
            pass  # the features must still be fit to use, although these rows were judged while fitting
        return state.scores
    priors = _log_priors(state.candidates.classes[:, 0], state.candidates.num_classes)
    none = torch.zeros(len(labels), dtype=torch.bool)
    candidates, scores = _judge(state.gaussians, blocks, labels, none, priors)
    distrust = state.part_believed * probability_wrong(state.noise, candidates)
    return _with_belief(scores, distrust, candidates, state.noise)


def describe(state: Posterior) -> dict[str, Any]:
    """What `rmd` reports, and what was found of wrong labels."""
    distrust = state.scores.distrust
    assert distrust is not None  # `fit` sees to it
    return {
        **rmd.describe(state.gaussians),
        "robust": state.robust,
        "rounds": state.rounds,
        "num_left_out": int(state.convicted.sum()),
        "noise_temperature": state.noise.temperature,
        "num_distrusted": int((distrust > MOST_DISTRUST).sum()),
        "num_estimated_wrong": float(probability_wrong(state.noise, state.candidates).sum()),
    }


def _after(
    statistics: GaussianStatistics, blocks: Blocks, labels: np.ndarray, leaving: Tensor, returning: Tensor
) -> GaussianStatistics:
    """The statistics when some samples leave and others return; one pass, which multiplies no others."""
    gone = back = None
    for start, block, chosen in labelled_blocks(blocks, labels):
        if gone is None or back is None:
            gone = back = GaussianStatistics.start(block, len(statistics.counts))
        rows = slice(start, start + len(block))
        out, into = leaving[rows].to(block.device), returning[rows].to(block.device)
        gone, back = gone.updated(block[out], chosen[out]), back.updated(block[into], chosen[into])
    assert gone is not None
    assert back is not None
    return statistics.without(gone).merge(back)


def _log_priors(labels: Tensor, num_classes: int) -> Tensor:
    """Logarithms of the classes' shares of the labels, up to a constant that makes them 0 where all are alike."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    return torch.log(counts / counts.max())


def _judge(
    gaussians: Gaussians, blocks: Blocks, labels: np.ndarray, fitted: Tensor, priors: Tensor
) -> tuple[Candidates, Scores]:
    """What the Gaussians say of every sample, without itself where it is `fitted`; everything on the CPU.

    Difficulty and margin compare classes as if all were as common; whether a label is wrong depends on how common they
    are: few samples of a large class beyond a small class's mean are more than that class has.
    """
    device = gaussians.overall_mean.device
    candidates, parts = [], []
    for start, block, chosen in labelled_blocks(blocks, labels):
        check_present(gaussians.counts, chosen, start)
        rows = slice(start, start + len(block))
        known = chosen.to(device), fitted[rows].to(device)
        with rows_from(start, block, len(gaussians.overall_mean)):
            distances = leave_one_out_distances(gaussians, block.to(device), *known).cpu()
        chosen = chosen.cpu()
        scores = distances / -2  # log p(z | class) up to a constant of the sample
        of_label, nearest, margin = choose_nearest(-scores, chosen)
        candidates.append(choose_candidates(scores + priors, chosen))
        parts.append(((torch.logsumexp(scores, dim=1) + of_label).clamp(min=0), nearest, margin))
    return join_candidates(candidates), join_scores(parts)


def _with_belief(scores: Scores, distrust: Tensor, candidates: Candidates, noise: NoiseModel) -> Scores:
    """The scores, with what is to be believed of the labels."""
    probs = class_probabilities(noise, candidates)
    return replace(
        scores,
        distrust=distrust.numpy(),
        likely=_likely(candidates),
        candidates=candidates.classes.numpy(),
        candidate_probs=probs.numpy(),
    )


def _likely(candidates: Candidates) -> Int[np.ndarray, " n"]:
    """The most probable class of every sample, where `nearest` takes all classes for as common.

    What the noise model says of errors is left out of it: where classes differ in size its transition matrix is too far
    off (of changed labels a third were right, with priors alone nine tenths).
    """
    best = candidates.scores.argmax(dim=1, keepdim=True)
    return candidates.classes.gather(1, best).flatten().numpy()


def _convict(wrong: Tensor, labels: Tensor) -> Tensor:
    """Labels more likely wrong than right; but a class never loses more than its most suspicious part."""
    return keep_classes(wrong, labels) > 0.5


def keep_classes(wrong: Tensor, labels: Tensor) -> Tensor:
    """The probabilities, but 0 for the least suspicious samples of each class, so that no class can be lost."""
    places = places_in_classes(wrong.argsort(descending=True, stable=True), labels)
    most = ((1 - _LEAST_KEPT) * torch.bincount(labels)).long()
    return wrong.masked_fill(places >= most[labels], 0.0)


def _part_believed(wrong: Tensor, candidates: Candidates) -> float:
    """Part of the labels that seem wrong which is more than clean labels would show, in [0, 1].

    It is 0 where the surest samples (a tenth; three tenths, too, where most agree) disagree with their labels much less
    often than others, where most samples disagree, or where the Gaussians are too seldom right: then features are too
    weak to tell, and what disagrees may be right labels of samples that the Gaussians mistake.
    """
    classes = len(candidates.classes[:, 0].unique())
    expected = _FALSE_SHARE + _FALSE_OF_FEW * classes / len(wrong)
    part = max(0.0, 1 - expected / max(float(wrong.mean()), 1e-12))
    best = candidates.scores.topk(min(2, candidates.scores.shape[1]), dim=1)
    order = (best.values[:, 0] - best.values[:, -1]).argsort(descending=True, stable=True)
    disagrees = (best.indices[order, 0] != 0).double()
    surest, sure, half = (
        float(disagrees[: max(1, round(share * len(wrong)))].mean()) for share in (_SUREST, _SURE, 0.5)
    )
    share_wrong, agreeing = float(wrong.mean()), 1 - float(disagrees.mean())
    often = max(share_wrong, half)
    tells = surest >= _LEAST_OF_SUREST * often or (agreeing >= _MOSTLY_AGREEING and sure >= _LEAST_OF_SURE * often)
    return part if tells and agreeing >= max(_LEAST_AGREEING, _LEAST_RIGHT * (1 - share_wrong)) else 0.0
