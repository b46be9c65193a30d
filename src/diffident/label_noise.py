"""How likely each given label is wrong, from class scores and the labels alone.

The model: the true class of a sample follows softmax(score / temperature) over its candidate classes, and a true class
k is given as j with probability T[k, j]. Temperature and T are those under which the given labels are most likely (T by
expectation-maximisation, the temperature by climbing a grid), so that nothing has to be known about the errors.
Disagreement is explained by unsure scores where they are unsure, and by wrong labels where they are sure. A sample's
candidates are its label and the 15 best other classes: where more than that overlap, the rest is taken for nothing.

Errors that people make where a sample is ambiguous look like ambiguity to this model: so the probabilities are
conservative, and the estimated number of wrong labels is rather a lower bound (docs/method.md has the measurements).

Reference:
    Dawid and Skene 1979 (transition matrix by EM); Patrini et al. 2017, arXiv 1609.03683; Northcutt et al. 2021,
    arXiv 1911.00068 (the same quantity by thresholds).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.errors import InputError
from diffident.folds import drawn_rows
from diffident.records import Estimate

MOST_CANDIDATES = 16
_TEMPERATURES = tuple(2 ** (step / 2) for step in range(13))
_START_ERROR = 0.1
# Samples' worth of the pattern that all classes share, in each row of T: steadies classes with few samples.
_PRIOR_SAMPLES = 10.0
# At the least: where no error is seen, as in a resample, a label that the scores exclude could not be explained.
_LEAST_ERROR = 1e-9
_MOST_EM_STEPS = 30
_WARM_STEPS = 4
_LEAST_GAIN = 1e-6
# Samples, drawn at random, that the model is fitted to: more would hardly move it.
_MOST_FITTED = 20_000
_NUM_RESAMPLES = 50
# Rows that are worked on at once: what they need stays in the processor's cache, and is less than torch divides among
# threads, whose waiting for each other costs more than it gains where other work uses the cores too.
_BLOCK = 2_000


@dataclass(frozen=True)
class Candidates:
    """The most likely classes of every sample; the given label comes first.

    Attributes:
        classes: Class numbers (n, m), int64.
        scores: Log-density or logit of each, up to a constant per sample (n, m), float32.
        num_classes: K.
    """

    classes: Int[Tensor, "n m"]
    scores: Float[Tensor, "n m"]
    num_classes: int

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class NoiseModel:
    """What was estimated.

    Attributes:
        temperature: Divides the scores; above 1 where they are too sure of themselves.
        transition: T, probability that true class k (row) is given as class j (K, K), float64.
        log_likelihood: Mean log-probability of the given labels, in nats.
    """

    temperature: float
    transition: Float[Tensor, "k k"]
    log_likelihood: float


def flip_labels(
    labels: Int[np.ndarray, " n"], num_classes: int, share: float, generator: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """The labels, so large a share of them replaced by another class at random: wrong ones that are known."""
    rows = generator.choice(len(labels), round(share * len(labels)), replace=False)
    flipped = labels.copy()
    flipped[rows] = (labels[rows] + generator.integers(1, num_classes, len(rows))) % num_classes
    return flipped


def choose_candidates(
    scores: Float[Tensor, "n k"], labels: Int[Tensor, " n"], most: int = MOST_CANDIDATES
) -> Candidates:
    """The label and the best other classes of each sample, at most `most` in all; -inf keeps a class out of play."""
    num_classes = scores.shape[1]
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -torch.inf)
    best = others.topk(min(most, num_classes) - 1, dim=1)
    classes = torch.cat([labels[:, None], best.indices], dim=1)
    return Candidates(classes, torch.cat([own, best.values], dim=1).float(), num_classes)


def join_candidates(parts: list[Candidates]) -> Candidates:
    """Candidates of several blocks of samples as one."""
    classes, scores = (torch.cat([getattr(part, name) for part in parts]) for name in ("classes", "scores"))
    return Candidates(classes, scores, parts[0].num_classes)


def fit_noise_model(candidates: Candidates) -> NoiseModel:
    """Temperature and transition matrix under which the given labels are most likely.

    Raises:
        InputError: no samples, or a label whose own score is not finite.
    """
    if not len(candidates):
        raise InputError("`candidates` must hold at least one sample; got none. Score features first.")
    if not bool(candidates.scores[:, 0].isfinite().all()):
        row = int((~candidates.scores[:, 0].isfinite()).nonzero()[0])
        raise InputError(f"`scores` must be finite for the given label; they are not at row {row}. Leave the row out.")
    rows = torch.from_numpy(drawn_rows(len(candidates), _MOST_FITTED)).to(candidates.scores.device)
    part = Candidates(candidates.classes[rows], candidates.scores[rows], candidates.num_classes)
    weights = torch.ones(len(part), dtype=torch.float64, device=part.scores.device)
    start = _pattern(_START_ERROR, part.num_classes, weights)
    tried: dict[int, tuple[float, Tensor]] = {}
    step = _TEMPERATURES.index(2.0)
    while True:
        for near in (step - 1, step, step + 1):
            if 0 <= near < len(_TEMPERATURES) and near not in tried:
                tried[near] = _fit_transition(part, _TEMPERATURES[near], start, weights, _WARM_STEPS)
                start = tried[near][1]
        best = max(tried, key=lambda one: tried[one][0])
        if best == step:
            break
        step = best
    likelihood, transition = _fit_transition(part, _TEMPERATURES[step], tried[step][1], weights, _MOST_EM_STEPS)
    return NoiseModel(_TEMPERATURES[step], transition, likelihood)


def _fit_transition(
    candidates: Candidates, temperature: float, transition: Tensor, weights: Tensor, most_steps: int
) -> tuple[float, Tensor]:
    """Log-likelihood and transition matrix after so many steps of expectation-maximisation, or none that help."""
    probs = torch.softmax(candidates.scores / temperature, dim=1)
    before = -torch.inf
    for _ in range(most_steps):
        transition, total = _em_step(candidates, probs, transition, weights)
        likelihood = float((weights * total.log()).sum() / weights.sum())
        if likelihood - before < _LEAST_GAIN:
            break
        before = likelihood
    return likelihood, transition


def class_probabilities(model: NoiseModel, candidates: Candidates) -> Float[Tensor, "n m"]:
    """Probability of each candidate by its score alone, whatever the given label says; rows sum to 1, float32."""
    return torch.softmax(candidates.scores / model.temperature, dim=1)


def probability_wrong(model: NoiseModel, candidates: Candidates) -> Float[Tensor, " n"]:
    """Probability that the given label is not the true class, float64 in [0, 1] (n,)."""
    probs = class_probabilities(model, candidates)
    wrong = model.transition.new_empty(len(candidates))
    for rows, _, joint in _joint_blocks(candidates, probs, model.transition):
        wrong[rows] = joint[:, 1:].sum(dim=1) / joint.sum(dim=1)
    return wrong.clamp(0, 1)


def estimate_wrong_share(model: NoiseModel, candidates: Candidates, generator: torch.Generator) -> Estimate:
    """Share of labels that are wrong.

    Returns:
        value: Mean probability of being wrong. low: 2.5 % quantile of it over bootstrap resamples, each with a
        transition matrix of its own. high: Share of labels that are not the best-scored class, or not the only one:
        what it would be were every disagreement a wrong label.
    """
    size = len(candidates)
    probs = class_probabilities(model, candidates)
    values = []
    for _ in range(_NUM_RESAMPLES):
        drawn = torch.randint(size, (size,), generator=generator)
        weights = torch.bincount(drawn, minlength=size).double().to(probs.device)
        transition = model.transition
        for _ in range(_WARM_STEPS):
            transition, _ = _em_step(candidates, probs, transition, weights)
        wrong = torch.empty_like(weights)
        for rows, _, joint in _joint_blocks(candidates, probs, transition):
            wrong[rows] = 1 - joint[:, 0] / joint.sum(dim=1)
        values.append(float((weights * wrong).sum() / size))
    value = float(probability_wrong(model, candidates).mean())
    low = float(torch.tensor(values).quantile(0.025))
    disagree = candidates.scores[:, 1:] >= candidates.scores[:, :1]
    return Estimate(value, min(low, value), max(value, float(disagree.any(dim=1).double().mean())))


def _joint_blocks(
    candidates: Candidates, probs: Float[Tensor, "n m"], transition: Float[Tensor, "k k"]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, cells of the flat T of each candidate as the given label, and the probability of both together (b, m)."""
    flat = transition.flatten()
    for start in range(0, len(candidates), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cells = candidates.classes[rows] * candidates.num_classes + candidates.classes[rows, :1]
        yield rows, cells, flat.index_select(0, cells.flatten()).view_as(cells).mul_(probs[rows])


def _em_step(candidates: Candidates, probs: Tensor, transition: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The next transition matrix, and the probability of each given label (n,) under the present one."""
    num_classes = candidates.num_classes
    counts, total = transition.new_zeros(num_classes * num_classes), torch.empty_like(weights)
    for rows, cells, joint in _joint_blocks(candidates, probs, transition):
        total[rows] = joint.sum(dim=1)
        shares = joint.div_(total[rows, None]).mul_(weights[rows, None])
        counts.index_add_(0, cells.flatten(), shares.flatten())  # one row after the other, whatever the block
    counts = counts.view(num_classes, num_classes)
    error = max(1 - float(counts.diagonal().sum() / counts.sum()), _LEAST_ERROR)
    counts = counts + _PRIOR_SAMPLES * _pattern(error, num_classes, counts)
    return counts / counts.sum(dim=1, keepdim=True), total


def _pattern(error: float, num_classes: int, like: Tensor) -> Tensor:
    """Every class right but for the error, which goes evenly to all others (K, K)."""
    pattern = like.new_full((num_classes, num_classes), error / max(num_classes - 1, 1))
    return pattern.fill_diagonal_(1 - error if num_classes > 1 else 1.0)
