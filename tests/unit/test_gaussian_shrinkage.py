import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import average_precision_score
from tests.oracles_gaussian import covariances

import diffident
from diffident.difficulties import posterior, rmd
from diffident.gaussian import (
    GaussianStatistics,
    fit_gaussians,
    fitting,
    oracle_shrinkage,
    relative_squared_distance,
    rows_to_judge,
    shrinkage,
    solve_gaussians,
)


def make_data(n: int, d: int, k: int, seed: int = 0, *, apart: float = 3.0, decay: float = 1.0):
    """Classes that differ most in the directions in which features vary most, as in those of encoders."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    spreads = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    means = apart * spreads**2 * torch.randn(k, d, generator=generator, dtype=torch.float64)
    return means[labels] + spreads * torch.randn(n, d, generator=generator, dtype=torch.float64), labels


def with_wrong_labels(labels, every: int, k: int):
    wrong = torch.arange(len(labels)) % every == 0
    return torch.where(wrong, (labels + 1) % k, labels), wrong


def losses_by_refitting(values, labels, amount):
    """-log p(label) of every sample by Gaussians fitted without it, at the temperature of the least mean."""
    z, y = values.numpy(), labels.numpy()
    size, width = z.shape
    classes = np.unique(y)
    target = amount * np.eye(width) * np.trace(covariances(z, y)[0]) / width
    found = np.zeros((size, len(classes)))
    for row, sample in enumerate(z):
        rest = np.arange(size) != row
        within = (1 - amount) * covariances(z[rest], y[rest])[0] * (size - 1) / size + target
        for column, label in enumerate(classes):
            own = z[rest & (y == label)]
            found[row, column] = (sample - own.mean(0)) @ np.linalg.solve(within, sample - own.mean(0))
            found[row, column] /= 1 + 1 / len(own)
    excess = found - found[np.arange(size), np.searchsorted(classes, y)][:, None]

    def at(log_factor):
        return logsumexp(-np.exp(log_factor) * excess, axis=1)

    return at(minimize_scalar(lambda x: at(x).mean(), bounds=(-8, 4), method="bounded", options={"xatol": 1e-8}).x)


def oracle_of(values, labels):
    within = torch.from_numpy(covariances(values.numpy(), labels.numpy())[0])
    return oracle_shrinkage(within, torch.bincount(labels))


@pytest.mark.parametrize(("n", "d", "seed"), [(48, 20, 0), (48, 20, 1), (60, 12, 2), (40, 30, 3)])
def test_the_amount_is_that_of_refitting_without_each_sample(n, d, seed):
    values, labels = make_data(n, d, 3, seed)
    labels, _ = with_wrong_labels(labels, 7, 3)
    least = oracle_of(values, labels)
    amounts = [least, *(amount for amount in shrinkage._AMOUNTS if amount > least)]
    losses = [losses_by_refitting(values, labels, amount) for amount in amounts]
    best = min(losses, key=np.mean)
    worse = [(loss - best).mean() - (loss - best).std(ddof=1) / n**0.5 for loss in losses]
    expected = next(amount for amount, excess in zip(amounts, worse, strict=True) if excess <= 0)
    assert fit_gaussians(values, labels).shrinkage == pytest.approx(expected)


@pytest.mark.parametrize("amount", [0.05, 0.6])
def test_losses_are_those_of_refitting_without_each_sample(amount):
    values, labels = make_data(48, 20, 3)
    labels, _ = with_wrong_labels(labels, 7, 3)
    spectrum, vectors = torch.linalg.eigh(torch.from_numpy(covariances(values.numpy(), labels.numpy())[0]))
    centres = torch.stack([values[labels == k].mean(dim=0) for k in range(3)])
    counts = torch.bincount(labels)
    found = shrinkage._losses_at(amount, spectrum, values @ vectors, centres @ vectors, counts, labels)
    np.testing.assert_allclose(found, losses_by_refitting(values, labels, amount), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e8])
def test_the_temperature_is_the_best_whatever_far_classes_there_are(far):
    generator = torch.Generator().manual_seed(0)
    distances = 100 + 20 * torch.randn(200, 6, generator=generator, dtype=torch.float64)
    distances[:, 3:] += far
    labels = torch.arange(200) % 3
    distances[torch.arange(200), labels] -= 15
    excess = (distances - distances.gather(1, labels[:, None])).numpy()

    def mean_at(log_factor):
        return logsumexp(-np.exp(log_factor) * excess, axis=1).mean()

    expected = minimize_scalar(mean_at, bounds=(-15, 3), method="bounded", options={"xatol": 1e-9}).fun
    assert float(shrinkage._least_losses(distances, labels).mean()) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("apart", [0.0, 30.0, 1e6])
def test_classes_that_are_far_away_do_not_change_the_amount(apart):
    values, labels = make_data(120, 25, 6)
    labels, _ = with_wrong_labels(labels // 3 * 3 + labels % 3, 7, 3)
    values[labels >= 3] += apart
    losses = [losses_by_refitting(values, labels, amount).mean() for amount in (oracle_of(values, labels), 0.9)]
    assert np.argmin(losses) == 0
    assert fit_gaussians(values, labels).shrinkage < 0.4


def test_absent_classes_change_nothing_and_it_is_above_the_oracle():
    values, labels = make_data(200, 100, 4, apart=0.8, decay=0.6)
    amount = fit_gaussians(values, labels).shrinkage
    assert amount > oracle_of(values, labels) + 0.1
    assert fit_gaussians(values, labels, num_classes=7).shrinkage == amount
    assert fit_gaussians(values, labels + 2, num_classes=7).shrinkage == amount


def test_wrong_labels_among_few_samples_of_many_features_are_found():
    values, labels = make_data(200, 100, 4, apart=0.8, decay=0.6)
    given, wrong = with_wrong_labels(labels, 10, 4)
    precision = {}
    for amount in ("auto", oracle_of(values, given)):
        state = fit_gaussians(values, given, shrinkage=amount)
        scores = relative_squared_distance(state, values, given)
        precision[amount] = average_precision_score(wrong.numpy(), scores.numpy())
    of_auto, of_oracle = precision.values()
    assert of_auto > of_oracle + 0.1


def test_it_is_the_oracle_where_shrinkage_makes_no_difference():
    values, labels = make_data(80, 8, 4, decay=0.0, apart=0.0)  # labels that nothing can tell
    assert fit_gaussians(values, labels).shrinkage == pytest.approx(oracle_of(values, labels))


@pytest.mark.parametrize(("n", "d", "k"), [(160, 8, 3), (200, 8, 4), (40, 200, 4)])
def test_with_plenty_of_samples_or_no_amounts_above_nothing_is_judged(n, d, k, monkeypatch):
    values, labels = make_data(n, d, k, decay=0.0 if d == 200 else 1.0)  # an oracle of 1
    monkeypatch.setattr(fitting, "choose_shrinkage", None)
    assert fit_gaussians(values, labels).shrinkage == pytest.approx(oracle_of(values, labels))


@pytest.mark.parametrize(("n", "d", "k"), [(159, 8, 3), (199, 4, 4)])
def test_with_one_sample_less_it_is(n, d, k, monkeypatch):
    monkeypatch.setattr(fitting, "choose_shrinkage", lambda *_: 0.7)
    assert fit_gaussians(*make_data(n, d, k)).shrinkage == 0.7


def test_statistics_alone_have_the_oracle():
    values, labels = make_data(200, 100, 4, apart=0.8, decay=0.6)
    statistics = GaussianStatistics.start(values, 4).updated(values, labels)
    assert solve_gaussians(statistics).shrinkage == pytest.approx(oracle_of(values, labels))
    assert fit_gaussians(values, labels).shrinkage > oracle_of(values, labels)


@pytest.mark.parametrize("method", ["rmd", "squared-distance", "posterior"])
def test_blocks_give_the_amount_of_the_whole(method, monkeypatch):
    monkeypatch.setattr(shrinkage, "_MOST_ROWS", 50)
    values, labels = make_data(70, 40, 3)
    ids = [str(number) for number in range(70)]
    options = {"robust": "no"} if method == "posterior" else {}
    table = diffident.score_features(lambda: values.split(16), ids, labels.numpy(), method=method, **options)
    assert table.metadata["shrinkage"] == pytest.approx(fit_gaussians(values, labels).shrinkage)


def test_classes_of_one_sample_and_of_none_are_not_judged():
    values, labels = make_data(60, 30, 3)
    more = torch.cat([values, 50 + torch.randn(2, 30, dtype=torch.float64)])
    with_single = torch.cat([labels, torch.tensor([3, 5])])
    assert 0 < fit_gaussians(more, with_single).shrinkage <= 0.9
    alone = fit_gaussians(values[:3], labels[:3])  # one sample a class: nothing to judge
    assert alone.shrinkage == 1.0


def test_rows_to_judge_are_all_or_some_at_random():
    assert rows_to_judge(10, 3).tolist() == list(range(10))
    many = rows_to_judge(100_000, 10)
    assert len(many) == 4_000
    assert many.unique().tolist() == many.tolist()
    assert 45_000 < many.double().mean() < 55_000
    assert torch.equal(many, rows_to_judge(100_000, 10))
    assert [len(rows_to_judge(100_000, k)) for k in (1_000, 100_000)] == [1_000, 500]


@pytest.mark.parametrize("fitted", [None, torch.arange(6_000) % 5 > 0])
def test_rows_are_picked_from_blocks_by_their_numbers(fitted):
    values, labels = torch.arange(6_000.0)[:, None], torch.arange(6_000) % 7
    rows = rows_to_judge(6_000, 7) if fitted is None else fitted.nonzero()[:, 0][rows_to_judge(4_800, 7)]
    found = rmd.judged_of(lambda: values.split(999), labels.numpy(), 7, fitted)()
    assert torch.equal(found[0][:, 0].long(), rows)
    assert torch.equal(found[1], labels[rows])


def test_posterior_judges_by_the_labels_that_it_keeps():
    values, labels = make_data(200, 100, 4, apart=2.0, decay=0.6)
    given, _ = with_wrong_labels(labels, 5, 4)
    state = posterior.fit(lambda: values.split(64), given.numpy(), 4)
    kept = ~state.convicted
    assert 0 < int(state.convicted.sum()) < 100
    assert state.gaussians.shrinkage == pytest.approx(fit_gaussians(values[kept], given[kept]).shrinkage)


def test_single_precision_and_a_mean_far_from_zero_change_nothing():
    values, labels = make_data(90, 40, 3)
    single, far = values.float(), values.float() + 1_000
    expected = fit_gaussians(values, labels).shrinkage
    assert fit_gaussians(single, labels).shrinkage == pytest.approx(expected, rel=1e-4)
    assert fit_gaussians(far, labels).shrinkage == pytest.approx(expected, rel=1e-2)
