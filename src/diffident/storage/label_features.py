"""Text features of class names: `.npz` or `.safetensors` with `label_features` [K, d], in the order of the labels."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffident.errors import InputError
from diffident.files import first_line, read_npz
from diffident.storage.atomic import atomic_path

LABEL_FEATURES = "label_features.safetensors"


def write_label_features(
    features: Float[Tensor, "k d"], path: str | Path, label_names: Sequence[str] | None = None
) -> Path:
    """Write text features atomically.

    Args:
        features: One row a class.
        path: A file, or the folder of a feature store.
        label_names: The names that were encoded, kept with them.
    """
    path = Path(path)
    path = path / LABEL_FEATURES if path.is_dir() else path
    kept = None if label_names is None else {"label_names": json.dumps(list(label_names))}
    with atomic_path(path) as temporary:
        save_file({"label_features": features.contiguous()}, temporary, metadata=kept)
    return path


def are_of_other_names(folder: Path, label_names: Sequence[str]) -> bool:
    """Whether a feature store's text features say that they are of other classes than these."""
    try:
        with safe_open(folder / LABEL_FEATURES, framework="pt") as held:
            kept = (held.metadata() or {}).get("label_names")
    except (OSError, SafetensorError):
        return False  # reading them says what is wrong
    try:
        return kept is not None and json.loads(kept) != list(label_names)
    except ValueError:
        return False


def read_label_features(path: str | Path) -> Float[Tensor, "k d"]:
    """Read text features from a file, or those stored with a feature store.

    Raises:
        InputError: not there, not readable, or without `label_features` [K, d].
    """
    path = Path(path)
    path = path / LABEL_FEATURES if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"`label_features` must be a file; got {path}, which is not there. "
            "Name one with --label-features FILE, or an encoder such as open_clip:ARCH/TAG."
        )
    if path.suffix == ".npz":
        held = read_npz(path, "label_features")
        arrays = {name: torch.from_numpy(values) for name, values in held.items() if values.dtype.kind == "f"}
    else:
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"`label_features` must be a readable .npz or .safetensors; {path} is not: {first_line(error)}. "
                "Write it anew."
            ) from None
    features = arrays.get("label_features")
    if features is None or features.ndim != 2 or not features.is_floating_point():
        got = f"it holds {', '.join(arrays) or 'no floats'}" if features is None else f"got {list(features.shape)}"
        raise InputError(f"`label_features` must be floats [K, d]; {got} in {path}. Save them under that name.")
    return features
