import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from diffident.errors import InputError, ShapeError
from diffident.gaussian import fit_gaussians, relative_squared_distance
from diffident.integrations.sklearn import DifficultyAwareClassifier, RelativeMahalanobis


def blobs(wrong=0.1):
    X, y = make_blobs(300, n_features=5, centers=3, cluster_std=2.0, random_state=0)
    flipped = np.random.default_rng(0).random(300) < wrong
    return X, np.array(["a", "b", "c"])[np.where(flipped, (y + 1) % 3, y)], flipped


@pytest.mark.parametrize(
    "estimator",
    [
        RelativeMahalanobis(),
        pytest.param(DifficultyAwareClassifier(epochs=5, width=8, learning_rate=0.03, device="cpu")),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_checks(estimator):
    check_estimator(estimator, on_skip=None)


def test_a_classifier_in_a_pipeline_finds_wrong_labels():
    X, y, wrong = blobs()
    model = make_pipeline(
        StandardScaler(), DifficultyAwareClassifier(epochs=10, width=16, device="cpu", random_state=0)
    )
    model.fit(X, y)
    assert model.score(X[~wrong], y[~wrong]) > 0.95
    assert roc_auc_score(wrong, model[-1].difficulty_) > 0.95
    logits = model.decision_function(X)
    np.testing.assert_allclose(model.predict_proba(X), torch.softmax(torch.from_numpy(logits), 1))


def test_wrong_labels_are_left_out_or_relabelled_or_kept():
    X, y, wrong = blobs(wrong=0.3)
    fitted = {}
    for name, options in {"out": {}, "relabel": {"relabel": True}, "kept": {"distrust": False}}.items():
        model = DifficultyAwareClassifier(epochs=10, width=16, device="cpu", random_state=0, **options).fit(X, y)
        fitted[name] = model.predict_proba(X)
        assert model.score(X[~wrong], y[~wrong]) > 0.9
    assert np.abs(fitted["out"] - fitted["relabel"]).max() > 1e-3
    assert np.abs(fitted["kept"] - fitted["relabel"]).max() > 0.1


def test_difficulty_of_other_features_reaches_its_row():
    X, y, _ = blobs(wrong=0.0)
    hard = (y == "b").astype(float)
    model = DifficultyAwareClassifier(
        epochs=10, width=16, device="cpu", random_state=0, normalizer="minmax", temperature=0.1, alpha=1.0
    )
    confidence = model.fit(X, y, difficulty=hard).predict_proba(X).max(axis=1)
    assert confidence[y == "b"].mean() < confidence[y != "b"].mean() - 0.1
    assert model.difficulty_.tolist() == hard.tolist()
    with pytest.raises(ShapeError, match="one entry per row of X"):
        DifficultyAwareClassifier().fit(X, y, difficulty=hard[:-1])


def test_wrong_parameters_are_named_together():
    X, y, _ = blobs()
    with pytest.raises(InputError, match=r"2 settings are wrong\. .*`alpha` must be"):
        DifficultyAwareClassifier(alpha=-1.0, normalizer="rnk").fit(X, y)


def test_alpha_is_the_losss_own_where_it_is_not_given():
    X, y, _ = blobs()
    given = {"loss": "mixup", "epochs": 1, "width": 4, "device": "cpu", "random_state": 0}
    logits = [
        DifficultyAwareClassifier(**given | options).fit(X, y).decision_function(X)
        for options in ({}, {"alpha": 1.0}, {"alpha": 0.2})
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] != logits[2]).any()


def test_distances_are_those_of_the_core():
    X, y, wrong = blobs()
    model = RelativeMahalanobis().fit(X, y)
    labels = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    values = torch.from_numpy(X)
    np.testing.assert_array_equal(
        model.difficulty(X, y), relative_squared_distance(fit_gaussians(values, labels), values, labels)
    )
    every = np.stack([model.difficulty(X, [name] * 300) for name in "abc"])
    np.testing.assert_allclose(model.ood_score(X), every.min(axis=0), atol=1e-9)
    assert (model.predict(X) == np.array(list("abc"))[every.argmin(axis=0)]).all()
    assert roc_auc_score(wrong, model.difficulty(X, y)) > 0.95
    with pytest.raises(ValueError, match="previously unseen labels"):
        model.difficulty(X[:1], ["d"])
