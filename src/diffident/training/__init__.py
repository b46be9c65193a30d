"""Training: a data set and settings in, a run folder out; and predictions from a run folder."""

from diffident.training.progress import NonFiniteLossError, Progress
from diffident.training.tuning import choose_alpha, train_with_chosen_alpha
from diffident.training.workflow import predict, train

__all__ = ["NonFiniteLossError", "Progress", "choose_alpha", "predict", "train", "train_with_chosen_alpha"]
