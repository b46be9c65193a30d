"""From difficulty to the weight of the entropy bonus."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from diffident.errors import InputError, ShapeError, did_you_mean

# Of the ranks: the median sample has half the weight of the hardest.
TEMPERATURE = 0.7
NORMALIZERS = ("rank", "minmax", "standard", "none")
# Labels that are distrusted more than this are not learnt from. A network learns by heart what counts little, too: so
# samples are left out or get another label, and are not turned down; and what is left out by mistake costs less than
# what is kept by mistake.
MOST_DISTRUST = 0.2
LEFT_OUT = 2.0


def difficulty_weights(
    difficulty: Tensor | np.ndarray,
    normalizer: str = "rank",
    temperature: float = TEMPERATURE,
    distrust: Tensor | np.ndarray | None = None,
) -> Float[Tensor, " n"]:
    """s_i = exp(u_i / T) / max_j exp(u_j / T), with u the normalised difficulty; 2 where the label is not believed.

    Args:
        difficulty: One number per sample (n,); higher is harder.
        normalizer: `rank` (u in [0, 1], ties share their mean rank), `minmax` (u in [0, 1]), `standard` (mean 0,
            standard deviation 1) or `none` (u is the difficulty: its scale depends on encoder and classes).
        temperature: T above 0; lower puts the weight on fewer, harder samples. For a network whose inputs are features
            of an encoder 0.3 is better (docs/method.md).
        distrust: Of every label (n,), in [0, 1], as `posterior` finds it. Samples above 0.2 are left out: their weight
            is 2, and the others' are those of the rest alone. None leaves none out.

    Returns:
        Weights in (0, 1], float32 (n,), or 2 where the sample is left out; the hardest of the rest has 1. All are 1
        where every difficulty is the same.

    Raises:
        InputError: no samples, NaN or infinity, T not above 0, an unknown normalizer, distrust out of range or of all.
        ShapeError: not one distrust a sample.

    Example:
        >>> difficulty_weights(torch.tensor([1.0, 2.0, 3.0]), temperature=1.0)
        tensor([0.3679, 0.6065, 1.0000])
    """
    values = torch.as_tensor(difficulty, dtype=torch.float64).detach().cpu().numpy()
    if values.ndim != 1 or not len(values):
        raise InputError(
            f"`difficulty` must be [n] with n at least 1; got shape {values.shape}. Score the samples first."
        )
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"`difficulty` must be finite; got {values[row]} at row {row}. Leave that sample out.")
    if not (temperature > 0 and np.isfinite(temperature)):
        raise InputError(f"`temperature` must be above 0; got {temperature}. The default is {TEMPERATURE}.")
    believed = np.ones(len(values), dtype=bool) if distrust is None else _believed(distrust, len(values))
    normalised = _normalise(values[believed], normalizer)
    weights = torch.full((len(values),), LEFT_OUT)
    of_the_rest = torch.from_numpy(np.exp((normalised - normalised.max()) / temperature)).float()
    weights[torch.from_numpy(believed)] = of_the_rest.clamp(min=torch.finfo(torch.float32).tiny)
    return weights


def _believed(distrust: Tensor | np.ndarray, count: int) -> np.ndarray:
    """Whether each sample is learnt from (n,)."""
    values = torch.as_tensor(distrust, dtype=torch.float64).detach().cpu().numpy()
    if values.shape != (count,):
        raise ShapeError(f"`distrust` must have shape [{count}], one per sample; got {list(values.shape)}.")
    wrong = ~((values >= 0) & (values <= 1))  # also true for NaN
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"`distrust` must be in [0, 1]; got {values[row]:g} at row {row}. Score the samples again.")
    believed = values <= MOST_DISTRUST
    if not believed.any():
        raise InputError(
            f"`distrust` must be at most {MOST_DISTRUST} somewhere; all {count} are above. "
            "Leave it out, or set distrust=false."
        )
    return believed


def scaled_rank(values: np.ndarray) -> np.ndarray:
    """Ranks scaled to [0, 1], ties sharing their mean rank; 0 for a single value."""
    return (rankdata(values) - 1) / max(len(values) - 1, 1)


def _normalise(values: np.ndarray, normalizer: str) -> np.ndarray:
    if normalizer == "none":
        return values
    if normalizer == "rank":
        return scaled_rank(values)
    if normalizer == "minmax":
        return (values - values.min()) / (np.ptp(values) or 1.0)
    if normalizer == "standard":
        return (values - values.mean()) / (values.std() or 1.0)
    raise InputError(f"`normalizer` must be a known one; got {normalizer!r}. {did_you_mean(normalizer, NORMALIZERS)}")
