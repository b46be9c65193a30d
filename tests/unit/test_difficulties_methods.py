import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from tests import oracles_difficulty as oracle
from tests.oracles_gaussian import covariances, distances
from tests.unit.test_gaussian import make_data

from diffident.difficulties import gmm, kmeans, knn, open_method, self_confidence, zero_shot
from diffident.difficulties.clusters import class_clusters, pairwise_squared, rows_of_classes
from diffident.errors import MissingDependencyError
from diffident.gaussian import fit_gaussians
from diffident.gaussian.blocks import centred


def score(name, values, labels, k=None, **options):
    method = open_method(name)
    k = int(labels.max()) + 1 if k is None else k
    state = method.fit(lambda: iter(values.split(7)), labels.numpy(), k, **options)
    return state, method.score(state, lambda: iter(values.split(7)), labels.numpy())


def assert_agree(scores, costs, labels, difficulty, atol=1e-9):
    """Scores as they follow from every class's cost, row by row."""
    pairs = [oracle.nearest_and_margin(list(row), int(label)) for row, label in zip(costs, labels, strict=True)]
    nearest, margin = zip(*pairs, strict=True)
    np.testing.assert_allclose(scores.difficulty, difficulty, atol=atol)
    np.testing.assert_allclose(scores.margin, margin, atol=atol)
    assert scores.nearest.tolist() == list(nearest)


def test_squared_distance_agrees_with_the_loops():
    values, labels = make_data()
    _, scores = score("squared-distance", values, labels, shrinkage=0.1)
    classes, _ = distances(values.numpy(), labels.numpy(), 0.1)
    assert_agree(scores, classes, labels, classes[np.arange(120), labels])


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (5, 1.0), (500, 0.5)])
def test_knn_agrees_with_the_loops(k, temperature):
    pytest.importorskip("faiss")
    values, labels = make_data(n=60)
    _, scores = score("knn", values, labels, neighbours=k, temperature=temperature)
    z, y = values.numpy(), labels.numpy()
    shares = np.array([oracle.knn_shares(z, y, row, k, temperature, 4) for row in range(60)])
    # faiss compares in float32.
    assert_agree(scores, -shares.round(4), labels, 1 - shares[np.arange(60), y], atol=2e-4)


def test_a_row_is_not_its_own_neighbour():
    pytest.importorskip("faiss")
    # Two pairs; in the second the labels differ, so that each is contradicted by its only near neighbour.
    values = torch.tensor([[5.0, 0.0], [5.0, 0.1], [-5.0, 0.0], [-5.0, -0.1]])
    state, scores = score("knn", values, torch.tensor([0, 0, 0, 1]), neighbours=1)
    assert scores.difficulty.tolist() == [0, 0, 1, 1]
    assert scores.nearest.tolist() == [0, 0, 1, 0]
    seen = knn.score(state, lambda: iter([values]), np.array([0, 0, 0, 1]), fitted=False)
    assert seen.difficulty.tolist() == [0, 0, 0, 0]


def test_whitened_neighbours_are_those_of_whitened_features():
    pytest.importorskip("faiss")
    values, labels = make_data()
    gaussians = fit_gaussians(values, labels)
    whitened = (values - gaussians.overall_mean) @ gaussians.whitening
    _, one = score("knn", values, labels, space="whitened")
    _, other = score("knn", whitened, labels)
    np.testing.assert_allclose(one.difficulty, other.difficulty, atol=1e-4)
    assert np.abs(one.difficulty - score("knn", values, labels)[1].difficulty).max() > 0.1


def test_the_approximate_index_finds_nearly_the_same():
    pytest.importorskip("faiss")
    values, labels = make_data(n=2000)
    exact_state, exact = score("knn", values, labels)
    state, scores = score("knn", values, labels, index="approximate")
    assert (exact_state.exact, state.exact) == (True, False)
    assert np.corrcoef(exact.difficulty, scores.difficulty)[0, 1] > 0.8


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'diffident\[knn\]'"):
        score("knn", *make_data())


def test_one_cluster_a_class_is_the_class_mean():
    values, labels = make_data()
    _, scores = score("kmeans", values, labels, clusters=1)
    costs = np.array([oracle.class_mean_costs(values.numpy(), labels.numpy(), row) for row in range(120)])
    others = [min(np.delete(row, label)) for row, label in zip(costs, labels, strict=True)]
    assert_agree(scores, costs, labels, costs[np.arange(120), labels] - others)


def test_a_class_in_two_parts_has_two_centroids_by_hand():
    values = torch.tensor([-10.0] * 10 + [10.0] * 10 + [30.0] * 20)[:, None]
    labels = torch.tensor([0] * 20 + [1] * 20)
    state, scores = score("kmeans", values, labels, clusters=2)
    assert state.clusters.owners.tolist() == [0, 0, 1]
    whole = float(values.var(correction=0))
    expected = [-(40**2) / whole, -(20**2) / whole, -(20**2) / whole]
    assert scores.difficulty[[0, 10, 20]] == pytest.approx(expected)
    state, scores = score("kmeans", values, labels, clusters=1)
    assert scores.difficulty[0] == pytest.approx((10**2 - 40**2) / whole)


def test_a_cluster_of_wrong_labels_is_left_out():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(120) % 2
    values = truth[:, None] * 20.0 + torch.randn(120, 2, generator=generator, dtype=torch.float64)
    labels = torch.where(torch.arange(120) < 30, 0, truth)  # 15 of the second class are called the first
    clusters = class_clusters(values, labels, 2, 2)
    assert (clusters.centroids[clusters.owners == 0] < 10).all()
    assert clusters.assignment[1] == -1
    assert clusters.assignment[0] >= 0


def test_a_cluster_has_at_least_ten_samples():
    values, labels = make_data(n=76)  # 19 a class
    assert len(class_clusters(values, labels, 4, 5).owners) == 4


def test_a_mean_that_float32_cannot_hold_is_subtracted_all_the_same():
    mean = torch.tensor([1e6 + 0.01], dtype=torch.float64)
    assert centred(torch.tensor([[1e6]]), mean, torch.float32).item() == pytest.approx(-0.01, rel=1e-3)
    assert centred(torch.tensor([[1e6]], dtype=torch.float64), mean, torch.float64).item() == pytest.approx(
        -0.01, rel=1e-8
    )


def test_squares_and_tables_of_centroids():
    one, other = torch.randn(3, 2).double(), torch.randn(4, 2).double()
    torch.testing.assert_close(pairwise_squared(one, other), torch.cdist(one, other).square())
    assert rows_of_classes(torch.tensor([2, 0, 2]), 4).tolist() == [[1, -1], [-1, -1], [0, 2], [-1, -1]]


def test_one_gaussian_a_class_is_the_likelihood_ratio(monkeypatch):
    monkeypatch.setattr(gmm, "oracle_shrinkage", lambda within, counts: 0.0)
    values, labels = make_data()
    z, y = values.numpy(), labels.numpy()
    _, scores = score("gmm", values, labels, components=1)
    within, total = covariances(z, y)
    means = [z[y == k].mean(axis=0) for k in range(4)]
    costs = np.array([[-oracle.log_density(sample, mean, within) for mean in means] for sample in z])
    background = np.array([oracle.log_density(sample, z.mean(axis=0), total) for sample in z])
    assert_agree(scores, costs, labels, background + costs[np.arange(120), y], atol=1e-7)
    half = score("rmd", values, labels, shrinkage=0.0)[1].difficulty / 2
    assert np.ptp(scores.difficulty - half) < 1e-7


def test_mixtures_agree_with_scikit_learn(monkeypatch):
    monkeypatch.setattr(gmm, "oracle_shrinkage", lambda within, counts: 0.0)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.3])
    values[:100, 0] += 3.5
    ours, rounds = gmm.fit_mixtures(values, torch.zeros(400, dtype=torch.int64), 1, 2)
    theirs = GaussianMixture(2, covariance_type="tied", tol=1e-8, max_iter=1000, reg_covar=0, random_state=0).fit(
        values
    )
    order = theirs.means_[:, 0].argsort()
    mine = ours.means[:, 0].argsort()
    np.testing.assert_allclose(ours.means[mine], theirs.means_[order], atol=0.02)
    np.testing.assert_allclose(ours.log_weights.exp()[mine], theirs.weights_[order], atol=0.01)
    np.testing.assert_allclose(ours.log_likelihoods(values)[:, 0].mean(), theirs.score(values), atol=1e-4)
    assert 1 < rounds < 50


@pytest.fixture(scope="module")
def probed():
    values, labels = make_data(n=45, d=3, k=3)
    return values, labels, *score("self-confidence", values, labels, ridge=0.01)


def test_self_confidence_is_that_of_the_classifier_that_did_not_see_the_row(probed):
    values, labels, state, scores = probed
    z, y = values.numpy(), labels.numpy()
    costs = np.array(
        [
            -oracle.probe_log_probs(z, y, row, np.flatnonzero(state.folds != state.folds[row]), 0.01, 3)
            for row in range(0, 45, 4)
        ]
    )
    chosen = scores.difficulty[::4]
    np.testing.assert_allclose(chosen, costs[np.arange(len(costs)), y[::4]], rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(scores.margin[::4], chosen - costs.min(axis=1), atol=2e-2)


def test_self_confidence_of_other_rows_is_the_mean_over_the_classifiers(probed):
    values, labels, state, _ = probed
    scores = self_confidence.score(state, lambda: iter([values[:2]]), labels.numpy()[:2], fitted=False)
    z, y = values.numpy(), labels.numpy()
    for row in range(2):
        every = [np.flatnonzero(state.folds != fold) for fold in range(5)]
        probs = np.mean([np.exp(oracle.probe_log_probs(z, y, row, train, 0.01, 3)) for train in every], axis=0)
        assert scores.difficulty[row] == pytest.approx(-np.log(probs[y[row]]), rel=5e-3, abs=5e-3)


def test_automatic_ridge_has_the_least_held_out_loss():
    values, labels = make_data(n=60, d=20)
    chosen = score("self-confidence", values, labels)[0].probe
    losses = {r: score("self-confidence", values, labels, ridge=r)[0].probe.held_out_loss for r in (0.1, 0.01, 0.001)}
    assert chosen.held_out_loss <= min(losses.values()) + 1e-4
    assert losses[chosen.ridge if chosen.ridge in losses else 0.1] < losses[0.001]


def folds_of(values, labels, seed=0, count=5):
    return self_confidence.content_folds(lambda: iter(values.split(7)), labels.numpy(), 4, count, seed)


def test_folds_are_stratified_and_follow_the_content():
    values, labels = make_data(n=80)
    folds = folds_of(values, labels)
    assert np.unique(np.stack([labels.numpy(), folds]), axis=1).shape[1] == 20
    assert np.bincount(folds[labels == 2]).tolist() == [4] * 5
    assert (folds_of(values.flip(0), labels.flip(0)) == folds[::-1]).all()
    assert (folds_of(values, labels, seed=1) != folds).any()
    assert (folds_of(values.half(), labels) == folds_of(values.half().float(), labels)).all()


def test_duplicates_share_a_fold_and_singletons_spread():
    values, labels = make_data(n=40)
    folds = folds_of(values.repeat(2, 1), labels.repeat(2))
    assert (folds[:40] == folds[40:]).all()
    assert sorted(folds_of(values[:4], labels[:4])) == [0, 1, 2, 3]


def test_zero_shot_agrees_with_the_loops():
    values, labels = make_data(n=20)
    texts = make_data(n=4, seed=1)[0]
    state, scores = score("zero-shot", values, labels, label_features=texts.float())
    costs = np.array([oracle.cosine_costs(sample, texts.float().double().numpy()) for sample in values.numpy()])
    others = [min(np.delete(row, label)) for row, label in zip(costs, labels, strict=True)]
    assert_agree(scores, costs, labels, costs[np.arange(20), labels] - others)
    assert zero_shot.describe(state) == {"num_features": 6}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (torch.ones(3, 6), r"`label_features` must be \[4, d\], one row a class; got \(3, 6\)"),
        (torch.ones(4), r"got \(4,\)"),
        (torch.tensor([[1.0], [0.0], [1.0], [1.0]]), r"not zero; got length 0\.0 at row 1"),
        (torch.tensor([[1.0], [1.0], [float("nan")], [1.0]]), r"got length nan at row 2"),
    ],
)
def test_wrong_texts_are_refused(texts, message):
    values, labels = make_data(n=8)
    with pytest.raises(ValueError, match=message):
        score("zero-shot", values, labels, label_features=texts)


def test_kmeans_metadata_by_hand():
    values = torch.cat([torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(50, 1)], dim=1)
    state, _ = score("kmeans", values, torch.tensor([0] * 49 + [2]), clusters=1)
    described = kmeans.describe(state)
    assert described.pop("variance_kept") == pytest.approx(1)
    expected = {"num_features": 3, "dimensions": 2, "num_centroids": 2, "singleton_classes": 1, "absent_classes": 1}
    assert described == expected
