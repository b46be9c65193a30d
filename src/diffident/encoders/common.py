"""What the encoder families share: precision, fingerprint, and errors of hubs."""

import hashlib
import json
import logging
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from diffident.errors import DiffidentError, InputError, MissingDependencyError, UnavailableError

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_HUB_SECONDS = 3.0
_MESSAGE_LENGTH = 240
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


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


def describe_model(
    model: nn.Module, preprocessing: Any, dtype: torch.dtype, *, image_size: int | None = None
) -> dict[str, str]:
    """What changes a feature, by part, so that a mismatch can say which part differs.

    Args:
        model: The network; its layers and weights count.
        preprocessing: Text or plain values that say all about the preprocessing.
        dtype: Precision of the computation.
        image_size: Side of the images, where one was asked for.
    """
    parts = {
        "weights": weights_digest(model),
        "preprocessing": preprocessing if isinstance(preprocessing, str) else json.dumps(preprocessing, sort_keys=True),
        "precision": str(dtype).removeprefix("torch."),
    }
    return parts if image_size is None else parts | {"image_size": str(image_size)}


def weights_digest(model: nn.Module) -> str:
    """Digest of the layers and the weights of a network."""
    digest = hashlib.sha256(plain_repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_parts(parts: dict[str, str]) -> str:
    """Digest of what `describe_model` and the like give."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plain_repr(value: Any) -> str:
    """The repr without addresses, which differ between processes."""
    return _ADDRESS.sub("", repr(value))


def freeze(model: nn.Module, device: torch.device, *, channels_last: bool = False) -> nn.Module:
    """The model in evaluation mode on its device, float32; convolutions run faster with channels last."""
    model = model.eval().requires_grad_(False).to(device, torch.float32)
    return model.to(memory_format=torch.channels_last) if channels_last else model


@contextmanager
def loading(
    title: str, mend: str = "Without network, set HF_HOME to a filled cache or name a local folder."
) -> Iterator[None]:
    """Turn whatever a hub client raises while loading weights into one clear error, soon and without its log lines.

    Args:
        title: The encoder's name with its family, for example `timm:resnet18`; its last part may be a local path.
        mend: The end of the error.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with _offline_without_hub(title):
            yield
    except DiffidentError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"`{title}` must have another library: {_first_line(error)} Install it.") from None
    except Exception as error:
        raise UnavailableError(
            f"the weights of `{title}` could not be loaded: {_first_line(error)} Check the name. {mend}"
        ) from None
    finally:
        logging.disable(disabled)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{line.rstrip('. ')}." if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH].rstrip()}..."


@contextmanager
def _offline_without_hub(title: str) -> Iterator[None]:
    """Let hub clients use their cache only where the hub cannot be reached: they would retry for a minute."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    if not before and not _is_local(title) and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_local(title: str) -> bool:
    return any(Path(part).exists() for part in (title.split(":", 1)[1], title.rsplit(":", 1)[1]))


def _reachable(address: str) -> bool:
    if urllib.request.getproxies():
        return True
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=_HUB_SECONDS):
            return True
    except OSError:
        return False
