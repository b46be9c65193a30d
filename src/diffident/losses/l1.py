"""L1 norm of the probabilities: a penalty on being far from uniform."""

import torch

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, at_labels, check_number


class L1Penalty(Loss):
    """CE + alpha * sum_k |p_k - 1/c|: holds confidence back, more bluntly than an entropy bonus.

    The norm of the probabilities themselves is always 1, so it is taken of their distance from the uniform ones.

    Args:
        alpha: Strength of the penalty, at least 0; 0 is cross-entropy. Above 0.5 the loss is least where the label's
            probability is 1 / (2 alpha), so that the model can be no surer.
        reduction: `mean` over the batch, or `none`.

    Reference:
        The form is that of the code of Liu et al. 2022 (MbLS), arXiv 2111.15430, which compares with Joo and Chung
        2020, arXiv 2006.06399. Alpha is 1 there unless set, which stops at a probability of 1/2; 0.1 is ours.
    """

    options = ("alpha",)

    def __init__(self, alpha: float = 0.1, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 0.1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        log_probs = torch.log_softmax(logits, dim=1)
        distances = (log_probs.exp() - 1 / logits.shape[1]).abs().sum(dim=1)
        return self.reduce(self.alpha * distances - at_labels(log_probs, labels))
