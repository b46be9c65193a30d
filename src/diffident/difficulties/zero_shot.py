"""Zero-shot margin of image-text encoders: cosine with the best other class's text minus that with the label's text.

difficulty = max over k != y of cos(z, t_k) - cos(z, t_y) (-cos(z, t_y) where there is no other class); margin = max
over k of cos(z, t_k) - cos(z, t_y). Nothing is fitted, so wrong labels cannot mislead it. A feature of length 0 has
cosine 0 with every text.

Cost: one pass, one product of N x d x K.

Reference:
    Radford et al. 2021, arXiv 2103.00020, section 3.1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from diffident.difficulties.protocol import (
    Blocks,
    Scores,
    checked_blocks,
    choose_nearest,
    join_scores,
    make_options,
)
from diffident.errors import InputError, ShapeError


@dataclass(frozen=True)
class ZeroShotOptions:
    """Options of `zero-shot`.

    Attributes:
        label_features: Text features of the class names, from the same encoder as the features (k, d).
    """

    label_features: Tensor | np.ndarray


@dataclass(frozen=True)
class LabelTexts:
    """Text features of the classes.

    Attributes:
        directions: Of length 1 (k, d), float64.
    """

    directions: Float[Tensor, "k d"]


def fit(blocks: Blocks, labels: np.ndarray, num_classes: int, **options: Any) -> LabelTexts:
    """Check the text features; looks at no sample. Options: `ZeroShotOptions`."""
    chosen = make_options(ZeroShotOptions, "zero-shot", options)
    texts = torch.as_tensor(chosen.label_features).detach().double()
    if texts.ndim != 2 or len(texts) != num_classes:
        raise ShapeError(
            f"`label_features` must be [{num_classes}, d], one row a class; got {tuple(texts.shape)}. "
            "Encode the name of every class, in the order of the labels."
        )
    lengths = texts.norm(dim=1)
    wrong = (~(lengths.isfinite() & (lengths > 0))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"`label_features` must be finite and not zero; got length {float(lengths[row])} at row {row}. "
            "Encode that class's name again."
        )
    return LabelTexts(texts / lengths[:, None])


def score(state: LabelTexts, blocks: Blocks, labels: np.ndarray, *, fitted: bool = True) -> Scores:
    """Difference of cosines of every sample; nothing was fitted, so `fitted` makes no difference."""

    def parts():
        for _, block, chosen in checked_blocks(blocks, labels, *state.directions.shape):
            texts = state.directions.to(block.device)
            cosines = functional.normalize(block.double(), dim=1, eps=1e-300) @ texts.T
            own, nearest, margin = choose_nearest(-cosines, chosen)
            other = cosines.scatter(1, chosen[:, None], -torch.inf).amax(dim=1)
            yield own + torch.where(other.isfinite(), other, 0.0), nearest, margin

    return join_scores(parts())


def describe(state: LabelTexts) -> dict[str, Any]:
    """The width; there are no other settings."""
    return {"num_features": state.directions.shape[1]}
