"""diffident: score how hard every sample is, train classifiers that stay unsure where they should.

Names are loaded on first use, so that `import diffident` takes no time and pulls in no optional library.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from diffident.auditing import audit
    from diffident.comparison import compare
    from diffident.data import open_dataset
    from diffident.difficulties.combination import score_combined
    from diffident.difficulties.scoring import difficulty, score_features
    from diffident.difficulties.targets import training_targets
    from diffident.difficulties.weights import difficulty_weights
    from diffident.encoders import open_encoder
    from diffident.evaluation import evaluate
    from diffident.extraction import extract
    from diffident.gaussian import fit_gaussians
    from diffident.losses import make_loss
    from diffident.losses.cross_entropy import CrossEntropy
    from diffident.losses.difficulty_aware import DifficultyAwareLoss
    from diffident.losses.entropy import EntropyBonus
    from diffident.losses.label_smoothing import LabelSmoothing
    from diffident.metrics.streaming import MetricAccumulator
    from diffident.paired import compare_predictions
    from diffident.training import predict, train
    from diffident.training.by_id import with_ids, with_weights

_HOME = {
    "audit": "auditing",
    "compare": "comparison",
    "compare_predictions": "paired",
    "open_dataset": "data",
    "difficulty": "difficulties.scoring",
    "score_combined": "difficulties.combination",
    "score_features": "difficulties.scoring",
    "difficulty_weights": "difficulties.weights",
    "open_encoder": "encoders",
    "evaluate": "evaluation",
    "extract": "extraction",
    "fit_gaussians": "gaussian",
    "make_loss": "losses",
    "CrossEntropy": "losses.cross_entropy",
    "DifficultyAwareLoss": "losses.difficulty_aware",
    "EntropyBonus": "losses.entropy",
    "LabelSmoothing": "losses.label_smoothing",
    "MetricAccumulator": "metrics.streaming",
    "predict": "training",
    "train": "training",
    "training_targets": "difficulties.targets",
    "with_ids": "training.by_id",
    "with_weights": "training.by_id",
}

__all__ = [
    "CrossEntropy",
    "DifficultyAwareLoss",
    "EntropyBonus",
    "LabelSmoothing",
    "MetricAccumulator",
    "audit",
    "compare",
    "compare_predictions",
    "difficulty",
    "difficulty_weights",
    "evaluate",
    "extract",
    "fit_gaussians",
    "make_loss",
    "open_dataset",
    "open_encoder",
    "predict",
    "score_combined",
    "score_features",
    "train",
    "training_targets",
    "with_ids",
    "with_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'diffident' has no attribute {name!r}")
    return getattr(importlib.import_module(f"diffident.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
