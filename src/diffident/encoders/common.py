"""What the encoder families share: device, precision, fingerprint, and errors of hubs."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffident.errors import DiffidentError, InputError, UnavailableError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def resolve_device(device: str) -> torch.device:
    """The named device; `auto` is the first of CUDA, MPS and the CPU.

    Raises:
        InputError: no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"`device` must be auto, cpu or an accelerator that is here; got {device} ({reason}). Use auto."
        ) from None
    return chosen


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The named type; `auto` is bfloat16 on CUDA, where it is fast, and float32 elsewhere."""
    if precision not in PRECISIONS:
        raise InputError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision}. Leave it out for auto.")
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return getattr(torch, precision)


def autocast(device: torch.device, dtype: torch.dtype):
    """Mixed precision where the type is not float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def fingerprint(model: nn.Module | None, description: Any) -> str:
    """Digest of the weights and of everything else that changes a feature."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()) if model is not None else ():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def freeze(model: nn.Module, device: torch.device, *, channels_last: bool = False) -> nn.Module:
    """The model in evaluation mode on its device; convolutions run faster with channels last."""
    model = model.eval().requires_grad_(False).to(device)
    return model.to(memory_format=torch.channels_last) if channels_last else model


@contextmanager
def loading(
    name: str, mend: str = "Without network, set HF_HOME to a filled cache or name a local folder."
) -> Iterator[None]:
    """Turn whatever a hub client raises while loading weights into one clear error, which ends with `mend`."""
    try:
        yield
    except DiffidentError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnavailableError(
            f"the weights of `{name}` could not be loaded: {lines[0][:200]} Check the name. {mend}"
        ) from None
