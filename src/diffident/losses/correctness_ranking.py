"""Correctness ranking loss (CRL): samples that were right more often so far should be the surer ones."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from diffident.errors import InputError
from diffident.losses.base import (
    Labels,
    Logits,
    Loss,
    Reduced,
    Weights,
    check_number,
    check_weights,
    confidences,
    cross_entropies,
)

_FROM_HISTORY = "They are the samples' shares of right predictions so far, from `CorrectnessHistory`."


class CorrectnessRankingLoss(Loss):
    """CE + alpha * max(0, |h_i - h_j| - sign(h_i - h_j) (q_i - q_j)): confidence q ordered as history h.

    For rejection: the surer samples should be those that were right more often. Sample j is the one after i in the
    batch, after the last the first. The samples of a batch act on each other.

    Args:
        alpha: Strength of the ranking, at least 0; 0 is cross-entropy.
        reduction: `mean` over the batch, or `none`.

    Example:
        >>> history = CorrectnessHistory(num_samples=1000)
        >>> for rows, inputs, labels in batches:
        ...     logits = model(inputs)
        ...     loss = criterion(logits, labels, history.shares()[rows])
        ...     history.batch_done(rows, logits, labels)
        >>> history.epoch_done()

    Reference:
        Moon et al. 2020, arXiv 2007.01458, with alpha 1 and the largest probability as confidence, as in their
        code (daintlab/confidence-aware-learning).
    """

    options = ("alpha",)
    soft_targets = False

    def __init__(self, alpha: float = 1.0, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0, hint="Take 1, or 0 for cross-entropy.")

    def compute(self, logits: Logits, labels: Labels, weights: Weights) -> Reduced:
        """As `Loss`; weights in [0, 1] are the samples' shares of right predictions, from `CorrectnessHistory`."""
        shares, _ = check_weights(weights, logits, _FROM_HISTORY)
        confidence, _ = confidences(logits, labels)
        lead = shares - shares.roll(-1)
        ranking = functional.relu(lead.abs() - lead.sign() * (confidence - confidence.roll(-1)))
        return self.reduce(cross_entropies(logits, labels) + self.alpha * ranking)


class CorrectnessHistory:
    """How often each training sample was predicted right, counted while training; a row of the data is a row of it.

    It has `state_dict` and `load_state_dict`, for checkpoints after whole epochs. With equal counts throughout, as in
    the first epoch, every share is 0 and nothing is ranked.

    Differs from the published code, where the least count moves within the epoch, and shares are NaN once it is the
    number of epochs: here shares are those of whole epochs, and 0 then.

    Args:
        num_samples: Of the training data.
        device: Of the counts and shares.
    """

    def __init__(self, num_samples: int, device: torch.device | str = "cpu"):
        self._counts = torch.zeros(num_samples, dtype=torch.int64, device=device)
        self._hits = torch.zeros_like(self._counts)
        self._epochs = 0
        self._shares = self._shares_now()

    def shares(self) -> Float[Tensor, " n"]:
        """(count - least count) / (epochs - least count) of every sample, after the last whole epoch; in [0, 1]."""
        return self._shares

    def batch_done(self, rows: Int[Tensor, " b"], logits: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> None:
        """Remember which of these rows a training step got right; each row comes once an epoch."""
        self._hits[rows] = (logits.detach().argmax(dim=1) == labels).long()

    def epoch_done(self, total: Callable[[Tensor], Tensor] = torch.clone) -> None:
        """Count the epoch's hits, for the next one to see.

        Args:
            total: Sums the hits over processes, where several share the data.
        """
        self._counts += total(self._hits)
        self._hits.zero_()
        self._epochs += 1
        self._shares = self._shares_now()

    def state_dict(self) -> dict[str, Any]:
        """The counts and the number of whole epochs."""
        return {"counts": self._counts, "epochs": self._epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of a history of as many samples."""
        counts = state["counts"]
        if counts.shape != self._counts.shape:
            raise InputError(
                f"`counts` must be those of {len(self._counts)} samples; got {list(counts.shape)}. Use the same data."
            )
        self._counts.copy_(counts)
        self._hits.zero_()
        self._epochs = int(state["epochs"])
        self._shares = self._shares_now()

    def _shares_now(self) -> Tensor:
        least = int(self._counts.min()) if len(self._counts) else 0
        return ((self._counts - least) / max(self._epochs - least, 1)).float()
