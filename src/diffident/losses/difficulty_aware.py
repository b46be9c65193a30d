"""Cross-entropy with an entropy bonus that grows with the sample's difficulty: the method of this library."""

from typing import Any

from diffident.errors import InputError
from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, check_number, one_per_sample
from diffident.losses.entropy_regularized import entropy_regularized
from diffident.losses.weighting import WEIGHTS_FROM_DIFFICULTY

# Values of alpha, and of `difficulty_weights`, by name.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"alpha": 0.3, "temperature": 0.7, "normalizer": "none", "distrust": False}
}
# Of the hardest sample, where neither alpha nor doubt is given: a network that learns from the samples themselves may
# not fit them, one on features does. Which of the two it is, `others` tells.
DOUBT = 0.1
DOUBT_ON_FEATURES = 0.4
_MOST_OTHERS_ON_FEATURES = 0.5


class DifficultyAwareLoss(Loss):
    """CE(logits, y) - a_i * (h(p_y) + others * (1 - p_y) * H_others): hard samples (weight s near 1) may stay unsure.

    With p = softmax(logits), h(p_y) is the entropy of right against wrong and H_others that among the classes beside
    the label; with others = 1 the bonus is the whole entropy H(p), as in the paper. For a network whose inputs are
    features of an encoder, or which is fine-tuned, 0.2 is better, for the latter with a doubt of 0.1: all of H_others
    makes it forget which wrong classes are the likelier ones, none lets one of them pass the label (docs/method.md).

    By default a_i is the strength at which this loss of one sample is least where p leaves the share
    doubt * s * m / (1 + m) to the other classes, m = (c - 1) ** others. So a doubt means much the same for 10 classes
    and for 1000, where one alpha does not: of the whole entropy, alpha 0.2 leaves 5 % to nine other classes, but 34 %
    to 999. Masked classes (logits of -inf) are counted too. With `alpha` given, a_i = alpha * s, as in the paper.

    The weights come from `difficulty_weights`. A weight above 1 means s = 1 and a sample that is to count less, namely
    2 - weight: at 2 it is left out. The mean is over the whole batch, samples that are left out too.
    It can be differentiated once, for the logits alone.

    Args:
        alpha: Strength of the bonus of the hardest sample, at least 0; 0 is cross-entropy. None takes it from `doubt`.
        doubt: How unsure the hardest sample should be, from 0 (cross-entropy) to 0.99 (nearly no class above another);
            where alpha is not given 0.1, or 0.4 with `others` below 0.5, as for features.
        others: How much the entropy among the classes beside the label counts, from 0 to 1.
        reduction: `mean` over the batch, or `none`.

    Raises:
        InputError: alpha and doubt are both given, or out of range.

    Example:
        >>> criterion = DifficultyAwareLoss()
        >>> criterion(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([1.0, 0.0])).shape
        torch.Size([])

    Reference:
        Cui et al. 2023, arXiv 2304.10127. Its form as we know it is `PRESETS["paper"]`: alpha 0.3, and weights of the
        difficulty as it is, at temperature 0.7; our default weights are those of its rank, see `docs/method.md`.
    """

    options = ("alpha", "doubt", "others")
    takes_halves = True

    def __init__(
        self,
        alpha: float | None = None,
        doubt: float | None = None,
        others: float = 1.0,
        *,
        reduction: str = "mean",
    ):
        super().__init__(reduction=reduction)
        if alpha is not None and doubt is not None:
            raise InputError(f"`alpha` and `doubt` must not both be given; got {alpha} and {doubt}. Leave one out.")
        self.alpha, self.doubt = alpha, doubt
        self.others = check_number("others", others, 0, 1, hint="Take 1, the whole entropy, or 0.2 for features.")
        if alpha is not None:
            self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1 to 0.3, or 0 for cross-entropy.")
        else:
            default = DOUBT_ON_FEATURES if self.others < _MOST_OTHERS_ON_FEATURES else DOUBT
            hint = f"Take {default}, or 0 for cross-entropy."
            self.doubt = check_number("doubt", default if doubt is None else doubt, 0, 0.99, hint=hint)

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' s: 1 gets the whole bonus. Above 1 a sample counts less."""
        weights = one_per_sample(weights, logits, WEIGHTS_FROM_DIFFICULTY)
        return entropy_regularized(
            logits, labels, weights, self.reduction, alpha=self.alpha, doubt=self.doubt, others=self.others
        )
