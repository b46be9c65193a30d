"""Estimators with the interface of scikit-learn: a classifier trained with difficulty, and the distances themselves."""

from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from diffident.data.dataset import Dataset
from diffident.data.samples import ReadVector
from diffident.difficulties.scoring import score_features
from diffident.errors import ShapeError
from diffident.gaussian import (
    fit_gaussians,
    relative_squared_distance,
    relative_squared_distances,
    squared_distances,
)
from diffident.records import DifficultyTable
from diffident.settings import load_settings
from diffident.training.workflow import load_model, train


class DifficultyAwareClassifier(ClassifierMixin, BaseEstimator):
    """A network on vectors, trained by `diffident.train` with the difficulty of every sample.

    Args:
        model: `mlp` or `python:module:function`.
        loss: A key of `diffident.losses.LOSSES`.
        alpha: Of the loss, most often the strength of its bonus; None for the loss's own default.
        doubt: Of the difficulty-aware loss, in the place of alpha; None for its own default.
        normalizer: Of the difficulty, as in `difficulty_weights`.
        temperature: Of the weights, as in `difficulty_weights`; None for the model's own, 0.3 of `mlp`.
        distrust: Whether samples whose labels the difficulty says not to believe (`method` posterior) are left out.
        relabel: Whether these samples learn their likely label instead; on the very features that say so it gains
            nothing.
        method: How difficulty is scored where `fit` gets none: on the features `X` themselves.
        epochs: Passes over the data.
        batch_size: Samples a step.
        learning_rate: Peak rate.
        weight_decay: Decoupled.
        width: Hidden units.
        dropout: Before each linear layer.
        device: auto, cpu, cuda or mps.
        random_state: As everywhere in scikit-learn.

    Attributes:
        classes_: The classes, sorted.
        difficulty_: Difficulty of the training samples (n,), higher is harder.
        network_: The trained module, in float64: a sample's logits are the same in every batch.

    Example:
        >>> X, y = sklearn.datasets.load_digits(return_X_y=True)
        >>> DifficultyAwareClassifier(random_state=0).fit(X, y).predict_proba(X).shape
        (1797, 10)
    """

    # scikit-learn's estimators take anything here; `fit` says what is wrong with it.
    def __init__(
        self,
        model: Any = "mlp",
        *,
        loss: Any = "difficulty-aware",
        alpha: Any = None,
        doubt: Any = None,
        normalizer: Any = "rank",
        temperature: Any = None,
        distrust: Any = True,
        relabel: Any = False,
        method: Any = "posterior",
        epochs: Any = 30,
        batch_size: Any = 32,
        learning_rate: Any = 3e-3,
        weight_decay: Any = 0.01,
        width: Any = 256,
        dropout: Any = 0.0,
        device: Any = "auto",
        random_state: Any = None,
    ):
        self.model = model
        self.loss = loss
        self.alpha = alpha
        self.doubt = doubt
        self.normalizer = normalizer
        self.temperature = temperature
        self.distrust = distrust
        self.relabel = relabel
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.width = width
        self.dropout = dropout
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, difficulty: Any = None) -> "DifficultyAwareClassifier":
        """Train on features (n, d) and labels (n,).

        Args:
            X: Numbers, finite.
            y: Classes of any type.
            difficulty: Of every row (n,), from other features than `X`; higher is harder.
        """
        X, labels, self.classes_ = _training_data(self, X, y)
        ids = np.array([str(row) for row in range(len(X))], dtype=object)
        names = tuple(map(str, self.classes_))
        dataset = Dataset("X", "vector", ids, labels, ReadVector(X.astype(np.float32)), "X", names)
        table = self._table(X, ids, labels, difficulty)
        self.difficulty_ = table.difficulty
        with TemporaryDirectory() as folder:
            run = train(dataset, self._settings(), out=f"{folder}/run", difficulty=table, checkpoint_seconds=np.inf)
            self.network_ = load_model(run)[0].double()
        return self

    def _table(self, X: np.ndarray, ids: np.ndarray, labels: np.ndarray, difficulty: Any) -> DifficultyTable:
        if difficulty is None:
            blocks = [_tensor(X)]
            return score_features(lambda: iter(blocks), ids, labels, num_classes=len(self.classes_), method=self.method)
        values = np.asarray(difficulty, dtype=np.float64)
        if values.shape != labels.shape:
            raise ShapeError(
                f"`difficulty` must have one entry per row of X; got {values.shape} for {len(labels)} rows. Match them."
            )
        return DifficultyTable(ids, labels, values, values, labels, values)

    def _settings(self):
        names = set(self.get_params()) - {"method", "random_state"}
        given = {name: getattr(self, name) for name in names}
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return load_settings(**given, seed=seed, warmup=0.1)

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (n, c), or of the second class minus the first (n,) where there are two classes."""
        logits = self._logits(X)
        return logits if logits.shape[1] > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, c)."""
        return torch.softmax(torch.from_numpy(self._logits(X)), dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of every row (n,)."""
        likeliest = self._logits(X).argmax(axis=1)
        return self.classes_[likeliest]

    def _logits(self, X: Any) -> np.ndarray:
        features = _features(self, X)
        with torch.no_grad():
            return self.network_.eval()(features).numpy()


class RelativeMahalanobis(ClassifierMixin, BaseEstimator):
    """The class Gaussians with a shared covariance, as a classifier that says how hard and how strange a sample is.

    Args:
        shrinkage: Part of the scaled identity in the covariance, in [0, 1], or `auto`.

    Attributes:
        classes_: The classes, sorted.
        gaussians_: The fitted `Gaussians`.

    Example:
        >>> X, y = sklearn.datasets.load_digits(return_X_y=True)
        >>> RelativeMahalanobis().fit(X, y).difficulty(X, y).argsort()[-10:]  # the ten hardest

    Reference:
        Ren et al. 2021, arXiv 2106.09022; Cui et al. 2023, arXiv 2304.10127, with the opposite sign.
    """

    def __init__(self, shrinkage: Any = "auto"):
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> "RelativeMahalanobis":
        """Fit to features (n, d) and labels (n,)."""
        X, labels, self.classes_ = _training_data(self, X, y)
        self.gaussians_ = fit_gaussians(
            _tensor(X), torch.from_numpy(labels), num_classes=len(self.classes_), shrinkage=self.shrinkage
        )
        return self

    def difficulty(self, X: Any, y: Any) -> np.ndarray:
        """Squared distance to the label's Gaussian minus that to the background (n,); higher is harder."""
        features = _features(self, X)
        encoded: Any = LabelEncoder().fit(self.classes_).transform(np.asarray(y))
        labels = encoded.astype(np.int64)
        return relative_squared_distance(self.gaussians_, features, torch.from_numpy(labels)).numpy()

    def ood_score(self, X: Any) -> np.ndarray:
        """The least relative distance over classes (n,); higher is more out-of-distribution."""
        features = _features(self, X)
        return relative_squared_distances(self.gaussians_, features).min(dim=1).values.numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-likelihoods of the classes up to a constant: minus half the squared distances (n, c).

        Of two classes the second minus the first (n,).
        """
        scores = self._log_likelihoods(X).numpy()
        return scores if scores.shape[1] != 2 else scores[:, 1] - scores[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, c) under the class Gaussians, all classes taken as equally frequent."""
        return torch.softmax(self._log_likelihoods(X), dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The nearest class of every row (n,)."""
        nearest = self._log_likelihoods(X).argmax(dim=1).numpy()
        return self.classes_[nearest]

    def _log_likelihoods(self, X: Any) -> torch.Tensor:
        features = _features(self, X)
        return -squared_distances(self.gaussians_, features) / 2


def _training_data(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Features, labels from 0 and the classes that they stand for."""
    checked: Any = validate_data(estimator, X, y, dtype=np.float64, ensure_min_samples=2)
    check_classification_targets(checked[1])
    encoder = LabelEncoder().fit(checked[1])
    return checked[0], encoder.transform(checked[1]).astype(np.int64), encoder.classes_


def _features(estimator: Any, X: Any) -> torch.Tensor:
    """Features of samples to predict, of as many columns as were fitted."""
    check_is_fitted(estimator)
    checked: Any = validate_data(estimator, X, dtype=np.float64, reset=False)
    return _tensor(checked)


def _tensor(X: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(X, requirements=["C", "W"]))
