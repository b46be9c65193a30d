import builtins
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from tests.outliers import blobs, fitted, score

from diffident.detectors import DETECTORS, find_detector, fit_detector, ood_score
from diffident.detectors.vim import usual_dimensions
from diffident.errors import InputError, MissingDependencyError

pytest.importorskip("faiss")
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0], [math.log(3), 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max-softmax", [-1 / (1 + math.exp(-2)), -0.5, -0.75]),
        ("max-logit", [-2, 0, -math.log(3)]),
        ("energy", [-math.log(math.exp(2) + 1), -math.log(2), -math.log(4)]),
        ("entropy", [None, math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)]),
        ("generalized-entropy", [None, 2 * 0.25**0.1, 2 * (3 / 16) ** 0.1]),
    ],
)
def test_logits_by_hand(name, expected):
    found = ood_score(fit_detector(name), logits=LOGITS).tolist()
    for one, other in zip(found, expected, strict=True):
        assert other is None or one == pytest.approx(other, abs=1e-11)


def test_options_of_the_detectors_on_logits():
    energy = fit_detector("energy", temperature=2.0)
    assert ood_score(energy, logits=LOGITS)[0].item() == pytest.approx(-2 * math.log(math.exp(1) + 1))
    largest = fit_detector("generalized-entropy", gamma=0.5, largest=1)
    assert ood_score(largest, logits=LOGITS)[2].item() == pytest.approx((3 / 16) ** 0.5)


def test_generalized_entropy_where_probabilities_are_too_small_for_a_float():
    logits = torch.tensor([[0.0, -2000.0]], dtype=torch.float64)
    expected = 2 * math.exp(-200)  # both p^0.1 and (1 - p)^0.1 of the larger
    assert ood_score(fit_detector("generalized-entropy"), logits=logits).item() == pytest.approx(expected, abs=1e-12)


def loops_mahalanobis(known, features, shrinkage):
    """min_k D2_k and min_k D2_k - D2_0 of every row, by inverting the covariances."""
    z, labels, x = known[0].numpy(), known[2].numpy(), features.numpy()
    means = np.stack([z[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
    within = sum(np.outer(row - means[k], row - means[k]) for row, k in zip(z, labels, strict=True)) / len(z)
    between = sum(np.outer(means[k] - z.mean(axis=0), means[k] - z.mean(axis=0)) for k in labels) / len(z)
    within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    inverse, background = np.linalg.inv(within), np.linalg.inv(within + between)
    nearest = np.array([min((row - m) @ inverse @ (row - m) for m in means) for row in x])
    return nearest, nearest - np.array([(row - z.mean(axis=0)) @ background @ (row - z.mean(axis=0)) for row in x])


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_mahalanobis_agrees_with_loops(shrinkage):
    known, (features, logits) = blobs(n=60)
    nearest, relative = loops_mahalanobis(known, features, shrinkage)
    for name, expected in (("mahalanobis", nearest), ("relative-mahalanobis", relative)):
        found = score(fitted(name, known, shrinkage=shrinkage), features, logits)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def loops_vim(known, features, logits, dimensions, origin):
    z = known[0].numpy() - origin
    _, _, directions = np.linalg.svd(z)
    kept = directions[:dimensions]
    lengths = [np.linalg.norm(rows - rows @ kept.T @ kept, axis=1) for rows in (z, features.numpy() - origin)]
    alpha = known[1].numpy().max(axis=1).mean() / lengths[0].mean()
    return alpha * lengths[1] - logsumexp(logits.numpy(), axis=1)


@pytest.mark.parametrize("head", [False, True])
def test_vim_agrees_with_loops(head):
    known, (features, logits) = blobs(n=60)
    weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offsets = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    options = {"weights": weights, "offsets": offsets} if head else {}
    origin = -np.linalg.pinv(weights.numpy()) @ offsets.numpy() if head else known[0].numpy().mean(axis=0)
    found = score(fitted("vim", known, dimensions=3, **options), features, logits)
    np.testing.assert_allclose(found, loops_vim(known, features, logits, 3, origin), rtol=1e-8)


def test_vim_of_features_inside_the_subspace_is_energy():
    known, (features, logits) = blobs(n=60)
    known[0][:, 3:] = 0
    found = score(fitted("vim", known, dimensions=4), features, logits)
    torch.testing.assert_close(found, score(fitted("energy", known), features, logits))


def test_vim_chooses_dimensions_as_the_paper():
    assert [usual_dimensions(width) for width in (1, 8, 767, 768, 2047, 2048)] == [0, 4, 383, 512, 512, 1000]
    assert fitted("vim", blobs()[0]).state.rest.shape == (8, 4)


def test_knn_agrees_with_loops():
    known, (features, logits) = blobs(n=60)
    unit = [values / values.norm(dim=1, keepdim=True) for values in (known[0], features)]
    expected = torch.cdist(unit[1], unit[0]).sort(dim=1).values
    for k in (1, 5, 60, 100):
        found = score(fitted("knn", known, neighbours=k), features, logits)
        torch.testing.assert_close(found, expected[:, min(k, 60) - 1], atol=1e-3, rtol=1e-3)


def test_approximate_knn_finds_nearly_the_same():
    known, (features, logits) = blobs(n=3000)
    exact, near = (fitted("knn", known, index=index) for index in ("exact", "approximate"))
    assert (exact.state.exact, near.state.exact) == (True, False)
    a, b = score(exact, features, logits), score(near, features, logits)
    assert np.corrcoef(a, b)[0, 1] > 0.9


PEERS = {
    "max-softmax": "MaxSoftmax",
    "max-logit": "MaxLogit",
    "energy": "EnergyBased",
    "entropy": "Entropy",
    "generalized-entropy": "GEN",
    "knn": "KNN",
    "mahalanobis": "Mahalanobis",
    "relative-mahalanobis": "RMD",
    "vim": "ViM",
}


@pytest.mark.parametrize("name", PEERS)
def test_the_order_is_that_of_pytorch_ood(name):
    pytest.importorskip("pytorch_ood")
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    weights, offsets = torch.randn(3, 8, generator=generator), torch.randn(3, generator=generator)
    (features, _, labels), (outside, _) = blobs(n=300, dtype=torch.float32)
    logits, other = (values @ weights.T + offsets for values in (features, outside))
    ours = {"vim": {"dimensions": 3, "weights": weights, "offsets": offsets}, "mahalanobis": {"shrinkage": 0.0}}
    theirs = {"vim": {"d": 3, "w": weights, "b": offsets}}
    ours["relative-mahalanobis"] = ours["mahalanobis"]
    if name == "generalized-entropy":  # theirs is in float32, where 1 - p vanishes
        logits, other = logits / 10, other / 10
    one = fitted(name, (features, logits, labels), **ours.get(name, {}))
    two = fitted(f"pytorch-ood:{PEERS[name]}", (features, logits, labels), **theirs.get(name, {}))
    assert spearmanr(score(one, outside, other), score(two, outside, other)).statistic > 0.999
    if name not in ("generalized-entropy", "mahalanobis", "relative-mahalanobis"):
        torch.testing.assert_close(score(one, outside, other), score(two, outside, other), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["KLMatching", "GMM", "TemperatureScaling", "OpenMax"])
def test_the_long_tail_scores_outliers_higher(name):
    pytest.importorskip("pytorch_ood")
    known, outliers = blobs(n=300)
    known, outliers = (known[0], known[1] / 10, known[2]), (outliers[0], outliers[1] / 10)
    detector = fitted(f"pytorch-ood:{name}", known)
    assert score(detector, *outliers).median() > score(detector, *known[:2]).median()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch-ood:ODIN", r"'pytorch-ood:ODIN', which needs the network"),
        ("pytorch-ood:KNNN", r"must be a class of pytorch-ood; got 'KNNN'\. Did you mean `KNN`"),
    ],
)
def test_other_classes_of_pytorch_ood_are_refused(name, message):
    pytest.importorskip("pytorch_ood")
    with pytest.raises(InputError, match=message):
        find_detector(name)


def test_what_a_class_of_pytorch_ood_takes_is_asked_for():
    pytest.importorskip("pytorch_ood")
    known, _ = blobs()
    with pytest.raises(InputError, match=r"`d` must be given for the detector 'pytorch-ood:ViM'; got none\. Give it"):
        fitted("pytorch-ood:ViM", known)
    with pytest.raises(InputError, match=r"`kk` must be an option of .*Did you mean `k`"):
        fitted("pytorch-ood:KNN", known, kk=3)


def test_without_pytorch_ood_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name.startswith("pytorch_ood"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'diffident\[ood\]'"):
        fit_detector("pytorch-ood:KNN")


def test_softmax_of_scipy_gives_the_same_entropy():
    logits = np.random.default_rng(0).normal(size=(20, 7)) * 4
    probs = softmax(logits, axis=1)
    found = ood_score(fit_detector("entropy"), logits=logits)
    np.testing.assert_allclose(found, -(probs * np.log(probs)).sum(axis=1), atol=1e-11)
    assert set(DETECTORS) == {*PEERS}


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_arrays_of_other_machines_are_fitted(dtype):
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(60, 4)), np.arange(60) % 3
    plain = fit_detector("mahalanobis", features=features.astype("<f4").astype(float), labels=labels)
    other = fit_detector("mahalanobis", features=features.astype("<f4").astype(dtype), labels=labels.astype(">i8"))
    found = [ood_score(one, features=features[:5]) for one in (plain, other)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
