"""Weights other than the last: their moving average, and those of the best epoch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's weights and buffers.

    The decay of step t is at most (1 + t) / (10 + t), so that the first weights are soon forgotten.

    Args:
        model: What is averaged.
        decay: Share of the old average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay, self._steps = decay, 0
        self._values, live = _copied(model), model.state_dict()
        self._floats = [(self._values[name], new) for name, new in live.items() if new.is_floating_point()]
        self._others = [(self._values[name], new) for name, new in live.items() if not new.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights after a step; what is no float, such as a count, is copied."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_([old for old, _ in self._floats], [new for _, new in self._floats], 1 - decay)
        for old, new in self._others:
            old.copy_(new)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, for as long as this lasts."""
        last = _copied(model)
        model.load_state_dict(self._values)
        try:
            yield
        finally:
            model.load_state_dict(last)

    def load_into(self, model: nn.Module) -> None:
        """Give the model the averaged weights for good."""
        model.load_state_dict(self._values)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self._steps, "values": self._values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._steps = state["steps"]
        for name, value in self._values.items():
            value.copy_(state["values"][name])


class BestWeights:
    """The weights of the epoch with the least validation loss, and whether it is long ago.

    Args:
        patience: Epochs without a lower loss after which `exhausted`.
    """

    def __init__(self, patience: int):
        self._patience = patience
        self._loss, self._since = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    @property
    def exhausted(self) -> bool:
        """Whether training should end."""
        return self._since >= self._patience

    def update(self, loss: float, model: nn.Module) -> bool:
        """Take in an epoch, and say whether its weights are kept; a loss that is NaN is no better."""
        self._since += 1
        if loss < self._loss or not self._weights:
            self._loss, self._since, self._weights = min(math.inf, loss), 0, _copied(model)
        return self._since == 0

    def load_into(self, model: nn.Module) -> None:
        """Give the model the best weights, if an epoch was seen."""
        if self._weights:
            model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"loss": self._loss, "since": self._since, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self._loss, self._since, self._weights = state["loss"], state["since"], state["weights"]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
