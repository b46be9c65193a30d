"""Weights of samples in the `Trainer` of transformers: a column that it keeps, and a loss that reads it.

`Trainer` drops every column that the model's `forward` does not name, collators know labels only, and
`compute_loss_func` sees nothing but outputs and labels. So the weight travels inside the label: an int64 of which the
upper half is the class and the lower the 32 bits of the weight. It is exact, survives every collator and cast, and is
counted as one label by gradient accumulation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffident.difficulties.weights import TEMPERATURE
from diffident.errors import InputError, did_you_mean
from diffident.losses import LOSSES, CrossEntropy, make_loss
from diffident.records import DifficultyTable
from diffident.training.by_id import targets_by_id
from diffident.training.wrappers import LABEL_KEYS

# Bits of the smallest normal float32: weights are never smaller, class numbers never as large.
_LEAST_BITS = 1 << 23


def add_weights(
    dataset: Any,
    difficulty: DifficultyTable | str | Path,
    *,
    id_column: str = "id",
    label_column: str | None = None,
    normalizer: str = "rank",
    temperature: float = TEMPERATURE,
    distrust: bool = True,
    relabel: bool = False,
) -> Any:
    """A Hugging Face data set whose label column carries the weight of its sample, for `TrainerLoss`.

    Args:
        dataset: With a column of ids and one of labels.
        difficulty: Table of `score`, or its file; joined by id, may hold more ids.
        id_column: The ids that the difficulty was scored with.
        label_column: Default: label, labels or label_ids, whichever is there.
        normalizer: Of `difficulty_weights`.
        temperature: Of `difficulty_weights`.
        distrust: Whether samples whose labels the table says not to believe are left out, by a weight of 2.
        relabel: Whether these samples learn the table's likely label instead, as in `training_targets`.

    Raises:
        InputError: no single split with a length, a column is missing or holds no class numbers, or the difficulty was
            scored on other labels.
        IdMismatchError: an id is not in the table.
    """
    if not hasattr(dataset, "add_column") or not hasattr(dataset, "__len__"):
        raise InputError(
            f"`dataset` must be one split, with a length; got {type(dataset).__name__}. Take one, for example "
            'dataset["train"], not streamed.'
        )
    columns = dataset.column_names
    label = label_column or next((name for name in LABEL_KEYS if name in columns), "label")
    for name, option in ((id_column, "id_column"), (label, "label_column")):
        if name not in columns:
            raise InputError(
                f"`{option}` must be a column of the data set; got {name!r}. {did_you_mean(name, columns)}"
            )
    plain = dataset.with_format(None)  # numbers, not tensors
    labels = np.asarray(plain[label])
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"`{label}` must hold class numbers; got {labels.dtype}. Encode it: dataset.class_encode_column({label!r})."
        )
    ids = np.array([str(sample) for sample in plain[id_column]], dtype=object)
    targets = targets_by_id(
        difficulty,
        ids,
        labels,
        name="the data set",
        normalizer=normalizer,
        temperature=temperature,
        distrust=distrust,
        relabel=relabel,
    )
    packed = pack_weights(torch.from_numpy(np.array(targets.labels)), targets.weights).tolist()
    return dataset.remove_columns(label).add_column(label, packed)


def pack_weights(labels: Int[Tensor, " n"], weights: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Label and weight of every sample in one int64; `unpack_weights` gives both back exactly.

    Args:
        labels: Classes, at least 0.
        weights: In (0, 2], as `difficulty_weights` makes them.
    """
    wrong = (labels < 0) | (labels >= _LEAST_BITS)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(f"`labels` must be in [0, {_LEAST_BITS}); got {int(labels[row])} at row {row}. Re-index them.")
    return (labels.long() << 32) | weights.float().view(torch.int32).long()


def unpack_weights(labels: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"] | None]:
    """Classes and weights of packed labels; plain labels come back as they are, without weights."""
    bits = labels & 0xFFFFFFFF
    packed = bits >= _LEAST_BITS
    if not bool(packed.any()):
        return labels, None
    if not bool(packed.all()):
        raise InputError(
            "`labels` must all have weights, or none; got both in one batch. Call add_weights on all data."
        )
    return labels >> 32, bits.to(torch.int32).view(torch.float32)


class TrainerLoss:
    """What `Trainer(compute_loss_func=...)` takes: a loss of diffident's, with the weights of `add_weights`.

    Evaluation data have no weights and get plain cross-entropy, so that `eval_loss` is the negative log-likelihood.
    Averages are over all samples of a step, however many batches gradient accumulation makes of it.

    Args:
        loss: A key of `diffident.losses.LOSSES`; none that mixes samples or needs their history, which `Trainer` lacks.
        options: Of the loss; for a model that is fine-tuned `doubt=0.1, others=0.2`, with weights of temperature 0.3
            (docs/method.md).

    Raises:
        InputError: a loss that cannot work here, or what `make_loss` refuses.

    Example:
        >>> TrainerLoss("difficulty-aware", alpha=0.3)
        TrainerLoss(DifficultyAwareLoss(alpha=0.3, reduction='none'))
    """

    def __init__(self, loss: str = "difficulty-aware", **options: Any):
        self._losses: Callable[..., Tensor] = make_loss(loss, reduction="none", **options)
        _check_kind(loss)
        self._needs_weights = LOSSES[loss].needs_weights

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of a batch."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        classes, weights = unpack_weights(labels)
        if weights is not None or not self._needs_weights:
            losses = self._losses(logits, classes, weights)
        elif torch.is_grad_enabled():
            raise InputError("`train_dataset` must have weights; got plain labels. Call add_weights on it.")
        else:
            losses = CrossEntropy(reduction="none")(logits, classes)
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch

    def __repr__(self) -> str:
        return f"TrainerLoss({self._losses!r})"


def _check_kind(loss: str) -> None:
    """Refuse losses that want more of a batch than `Trainer` hands on, as they would be plain cross-entropy or fail."""
    kind = LOSSES[loss]
    if not (kind.mixes or kind.needs_history):
        return
    wants = "mixes samples" if kind.mixes else "needs the history of every sample"
    good = ", ".join(name for name, other in LOSSES.items() if not (other.mixes or other.needs_history))
    raise InputError(
        f"`loss` must work on outputs and labels alone; got {loss!r}, which {wants}. "
        f"Train it with `diffident train`, or take one of {good}."
    )
