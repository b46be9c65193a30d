import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from diffident import label_noise
from diffident.difficulties import posterior
from diffident.errors import InputError
from diffident.gaussian import leave_one_out_distances
from diffident.label_noise import (
    Candidates,
    NoiseModel,
    choose_candidates,
    estimate_wrong_share,
    fit_noise_model,
    probability_wrong,
)


def blobs(n: int = 2000, k: int = 5, d: int = 8, spread: float = 4.0, flipped: float = 0.0, seed: int = 0):
    """Features, given labels and which of them are wrong."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.arange(n) % k
    values = torch.randn(n, d, generator=generator) + spread * torch.eye(k, d)[true]
    wrong = torch.rand(n, generator=generator) < flipped
    shift = torch.randint(1, k, (n,), generator=generator)
    return values, torch.where(wrong, (true + shift) % k, true), wrong


def fitted(values, labels, k=5, **options):
    return posterior.fit(lambda: values.split(300), labels.numpy(), k, **options)


def test_candidates_put_the_label_first_then_the_best():
    scores = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    found = choose_candidates(scores, torch.tensor([2]), most=3)
    assert found.classes.tolist() == [[2, 1, 3]]
    assert found.scores.tolist() == [[1.0, 3.0, 2.0]]


def test_probability_by_hand():
    # Two classes, p = (0.8, 0.2) for class 0 and 1, given as 1; T says 0 is given as 1 in 10 %, 1 as 1 in 90 %:
    # wrong = 0.8 * 0.1 / (0.8 * 0.1 + 0.2 * 0.9) = 0.08 / 0.26.
    scores = torch.tensor([[0.8, 0.2]]).log()
    model = NoiseModel(1.0, torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64), 0.0)
    got = probability_wrong(model, choose_candidates(scores, torch.tensor([1])))
    assert got.tolist() == pytest.approx([0.08 / 0.26], abs=1e-6)


def test_temperature_divides_the_scores():
    model = NoiseModel(2.0, torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64), 0.0)
    scores = 2 * torch.tensor([[0.8, 0.2]]).log()
    assert probability_wrong(model, choose_candidates(scores, torch.tensor([1]))).tolist() == pytest.approx(
        [0.08 / 0.26]
    )


def test_a_known_transition_is_found_again():
    generator = torch.Generator().manual_seed(0)
    transition = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]])
    true = torch.arange(6000) % 3
    labels = torch.multinomial(transition[true], 1, generator=generator)[:, 0]
    scores = torch.where(torch.eye(3)[true] > 0, 8.0, 0.0)
    model = fit_noise_model(choose_candidates(scores, labels))
    torch.testing.assert_close(model.transition, transition.double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("flipped", [0.05, 0.2, 0.4])
def test_the_share_of_flipped_labels_is_estimated(flipped):
    values, labels, wrong = blobs(flipped=flipped)
    state = fitted(values, labels)
    share = estimate_wrong_share(state.noise, state.candidates, torch.Generator().manual_seed(0))
    assert share.value == pytest.approx(float(wrong.double().mean()), abs=0.03)
    assert share.low <= share.value <= share.high
    probability = probability_wrong(state.noise, state.candidates)
    assert roc_auc_score(wrong, probability) > 0.97
    for low, high in ((0.0, 0.1), (0.9, 1.0)):
        inside = (probability >= low) & (probability <= high)
        assert float(wrong[inside].double().mean()) == pytest.approx(float(probability[inside].mean()), abs=0.04)


def test_clean_data_is_left_alone():
    values, labels, _ = blobs(spread=3.0)
    once, robust = (fitted(values, labels, robust=choice) for choice in ("no", "yes"))
    assert int(robust.convicted.sum()) <= 0.01 * len(labels)
    torch.testing.assert_close(robust.gaussians.means, once.gaussians.means, atol=0.05, rtol=0)


def distrust_of(state, values, labels, **options):
    return posterior.score(state, lambda: values.split(77), labels.numpy(), **options).distrust


def test_clean_labels_are_believed():
    values, labels, _ = blobs(spread=3.0)
    assert (distrust_of(fitted(values, labels), values, labels) == 0).all()


def overlapping(sizes, spread, d):
    """Classes of these sizes around corners that are `spread` from the origin, all labels right."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    values = torch.randn(len(labels), d, generator=torch.Generator().manual_seed(0))
    return values + spread * torch.eye(max(d, len(sizes)))[labels, :d], labels


@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_clean_labels_are_believed_where_classes_differ_in_size(spread):
    # Much of the large class lies beyond the small one's mean.
    values, labels = overlapping([50, 950], spread, d=10)
    assert (distrust_of(fitted(values, labels), values, labels) < 0.2).all()


def test_clean_labels_are_believed_where_features_are_weak():
    values, labels = overlapping([50] * 20, 2.0, d=20)
    state = fitted(values, labels, 20)
    assert float(probability_wrong(state.noise, state.candidates).mean()) > 0.04  # more than is allowed for
    assert (distrust_of(state, values, labels) == 0).all()


@pytest.mark.parametrize(("sizes", "spread", "d"), [([20] * 10, 1.0, 96), ([50] * 20, 1.5, 60), ([100] * 10, 1.0, 10)])
def test_clean_labels_are_believed_where_most_disagree(sizes, spread, d):
    values, labels = overlapping(sizes, spread, d)
    state = fitted(values, labels, len(sizes))
    assert float((state.candidates.scores.argmax(dim=1) == 0).double().mean()) < 0.4
    assert float(probability_wrong(state.noise, state.candidates).mean()) > 0.1
    assert (distrust_of(state, values, labels) == 0).all()


@pytest.mark.parametrize("freedom", [2, 3])
@pytest.mark.parametrize(("sizes", "d"), [([100] * 10, 10), ([200] * 10, 40), ([100] * 20, 20)])
def test_clean_labels_are_believed_where_tails_are_heavy_and_classes_overlap(sizes, d, freedom):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(labels), d, generator=generator)
    values /= torch.randn(len(labels), freedom, generator=generator).square().mean(dim=1, keepdim=True).sqrt()
    values += 2.0 * torch.eye(max(d, len(sizes)))[labels, :d]
    state = fitted(values, labels, len(sizes))
    assert float(probability_wrong(state.noise, state.candidates).mean()) > 0.1
    assert (distrust_of(state, values, labels) == 0).all()


@pytest.mark.parametrize("flipped", [0.1, 0.4])
def test_labels_are_distrusted_as_far_as_more_seem_wrong_than_clean_ones_would(flipped):
    values, labels, wrong = blobs(flipped=flipped)
    state = fitted(values, labels)
    probability = probability_wrong(state.noise, state.candidates)
    # Five classes: 2 in a hundred, and a fifth of the inverse of a class's size.
    part = 1 - (0.02 + 0.2 * 5 / len(labels)) / float(probability.mean())
    found = distrust_of(state, values, labels)
    np.testing.assert_allclose(found, part * probability, atol=1e-5)
    assert wrong.numpy()[found > 0.5].mean() > 0.9
    assert posterior.describe(state)["num_distrusted"] == (found > 0.2).sum()
    np.testing.assert_allclose(distrust_of(state, values, labels, fitted=False).mean(), found.mean(), rtol=0.05)


def test_no_class_is_left_out():
    values, labels, _ = blobs()
    labels = torch.where(labels == 0, 1, labels)
    labels[:20] = 0  # nearly all of class 0 is called 1, and some of every class 0
    found = distrust_of(fitted(values, labels), values, labels)
    for label in range(5):
        own = found[labels.numpy() == label]
        assert (own == 0).sum() >= 0.3 * len(own)


def test_refitting_undoes_the_pull_of_wrong_labels():
    values, labels, _ = blobs(flipped=0.4)
    clean = 4.0 * torch.eye(5, 8, dtype=torch.float64)
    once, robust = (fitted(values, labels, robust=choice) for choice in ("no", "yes"))
    assert (robust.gaussians.means - clean).abs().max() < 0.5 * (once.gaussians.means - clean).abs().max()
    assert robust.rounds > 1


@pytest.mark.parametrize("fitted_rows", [True, False])
def test_difficulty_is_the_negative_log_posterior(fitted_rows):
    values, labels, _ = blobs(n=200, flipped=0.1)
    state = fitted(values, labels, robust="no", shrinkage=0.0)
    scores = posterior.score(state, lambda: values.split(77), labels.numpy(), fitted=fitted_rows)
    z, y = values.double().numpy(), labels.numpy()
    squared = np.zeros((200, 5))
    for row in range(200):
        rest = np.arange(200) != (row if fitted_rows else -1)
        means = np.stack([z[rest & (y == k)].mean(axis=0) for k in range(5)])
        apart = (z - means[y])[rest]
        precision, sizes = np.linalg.inv(apart.T @ apart / 200), np.bincount(y[rest])
        squared[row] = [
            (z[row] - m) @ precision @ (z[row] - m) / (1 + 1 / n) for m, n in zip(means, sizes, strict=True)
        ]
    of_label = squared[np.arange(200), y]
    expected = -np.log(np.exp(-of_label / 2) / np.exp(-squared / 2).sum(axis=1))
    np.testing.assert_allclose(scores.difficulty, expected, atol=1e-4)
    np.testing.assert_allclose(scores.margin, (of_label - squared.min(axis=1)) / 2, atol=1e-4)
    assert scores.nearest.tolist() == squared.argmin(axis=1).tolist()


def test_samples_are_judged_by_the_last_fit():
    values, labels, _ = blobs(n=100, k=20, d=64, flipped=0.4)
    state = fitted(values, labels, k=20)
    assert state.rounds > 1
    scores = leave_one_out_distances(state.gaussians, values, labels, ~state.convicted) / -2
    counts = torch.bincount(labels, minlength=20)
    expected = choose_candidates(scores + torch.log(counts / counts.max()), labels)  # common classes come first
    assert torch.equal(state.candidates.classes, expected.classes)
    torch.testing.assert_close(state.candidates.scores, expected.scores)


def test_few_samples_a_class_do_not_agree_with_any_label():
    values, labels, _ = blobs(n=300, k=60, d=40, spread=0.0)  # features that say nothing of the labels
    state = fitted(values, labels, k=60, robust="no")
    agree = {
        fitted_rows: float(
            (posterior.score(state, lambda: values.split(77), labels.numpy(), fitted=fitted_rows).margin == 0).mean()
        )
        for fitted_rows in (True, False)
    }
    assert agree[True] == pytest.approx(1 / 60, abs=0.02)
    assert agree[False] > 0.1


def test_no_class_loses_all_its_samples():
    values, labels, _ = blobs(n=300)
    labels[labels == 4] = 3  # class 4 is given to nobody ...
    labels[:40:5] = 4  # ... but to samples of class 0
    state = fitted(values, labels)
    assert int((state.convicted & (labels == 4)).sum()) <= 0.7 * 8


def test_nothing_to_fit_is_refused():
    empty = Candidates(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2), 2)
    with pytest.raises(InputError, match="must hold at least one sample"):
        fit_noise_model(empty)


def test_a_label_that_cannot_be_is_named_by_row():
    scores = torch.tensor([[0.0, 1.0], [-torch.inf, 1.0]])
    with pytest.raises(InputError, match="finite for the given label; they are not at row 1"):
        fit_noise_model(choose_candidates(scores, torch.tensor([0, 0])))


def test_the_block_of_rows_changes_no_bit(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    candidates = choose_candidates(torch.randn(500, 4, generator=generator), torch.arange(500) % 4, most=3)

    def found():
        model = fit_noise_model(candidates)
        share = estimate_wrong_share(model, candidates, torch.Generator().manual_seed(0))
        return model.transition.tolist(), probability_wrong(model, candidates).tolist(), share

    whole = found()
    monkeypatch.setattr(label_noise, "_BLOCK", 7)
    assert found() == whole


def test_one_label_that_the_scores_exclude_leaves_every_resample_finite():
    labels = torch.arange(80) % 2
    scores = torch.where(torch.arange(2) == labels[:, None], 0.0, -1e4)
    labels[0] = 1
    candidates = choose_candidates(scores, labels)
    model = fit_noise_model(candidates)
    share = estimate_wrong_share(model, candidates, torch.Generator().manual_seed(0))
    assert probability_wrong(model, candidates).round().tolist() == [1, *[0] * 79]
    assert 0 <= share.low < share.value == pytest.approx(1 / 80)


def test_the_order_of_many_samples_does_not_matter():
    values, labels, wrong = blobs(n=45_000, k=5, spread=3.0, flipped=0.05)  # the true classes come in turns
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    shares = []
    for order in (torch.arange(len(labels)), shuffled):
        state = fitted(values[order], labels[order])
        shares.append(float(probability_wrong(state.noise, state.candidates).mean()))
    assert abs(shares[0] - shares[1]) < 0.002
    assert abs(shares[0] - float(wrong.double().mean())) < 0.01


def disagreeing(surest: float, sure: float, half: float, rest: float):
    """Candidates of 1,000 samples, surest first, of which these shares disagree with their labels: of the surest tenth,
    the next fifth, the next fifth and the others."""
    sizes = {100: surest, 200: sure, 201: half, 499: rest}
    disagrees = torch.cat([torch.arange(size) < share * size for size, share in sizes.items()])
    scores = torch.stack([torch.zeros(1000), torch.where(disagrees, 1.0, -1.0) * torch.linspace(9, 1, 1000)], dim=1)
    classes = torch.stack([torch.arange(1000) % 5, (torch.arange(1000) + 1) % 5], dim=1)
    return Candidates(classes, scores, num_classes=5)


@pytest.mark.parametrize(
    ("shares", "believed"),
    [
        ((0.05, 0.05, 0.05, 0.3), True),  # the surest tenth disagrees as often as others
        ((0.02, 0.05, 0.08, 0.3), True),  # it does not, but the surest three tenths do: people's errors
        ((0.0, 0.05, 0.08, 0.3), False),  # fewer than 0.45 times as often
        ((0.0, 0.02, 0.1, 0.3), False),  # only the others disagree: mistakes of the features
        ((0.02, 0.06, 0.08, 0.55), False),  # labels and features agree too seldom for three tenths to tell
    ],
)
def test_what_seems_wrong_is_believed_by_how_often_the_surest_samples_disagree(shares, believed):
    wrong = torch.full((1000,), 0.08)
    assert posterior._part_believed(wrong, disagreeing(*shares)) == pytest.approx(1 - 0.021 / 0.08 if believed else 0.0)
