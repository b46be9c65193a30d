"""Cross-entropy: the baseline of everything else."""

from diffident.losses.base import Labels, Logits, Loss, Reduced, Weights, cross_entropies


class CrossEntropy(Loss):
    """Negative log-likelihood of the label under softmax(logits), in nats.

    Args:
        reduction: `mean` over the batch, or `none`.

    Example:
        >>> CrossEntropy()(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))
        tensor(0.6931)
    """

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights are ignored."""
        return self.reduce(cross_entropies(logits, labels))
