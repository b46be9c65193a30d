"""Which device a name means."""

import torch

from diffident.errors import InputError

ACCELERATORS = ("cuda", "mps")


def resolve_device(device: str, *, accelerators: tuple[str, ...] = ACCELERATORS) -> torch.device:
    """The named device.

    Args:
        device: A name as torch has it, or `auto`: the first accelerator that is here, else the CPU.
        accelerators: What `auto` looks for.

    Raises:
        InputError: no such device here.
    """
    if device == "auto":
        available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
        return torch.device(next((name for name in accelerators if available[name]()), "cpu"))
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise InputError(
            f"`device` must be auto, cpu or an accelerator that is here; got {device} ({reason}). Use auto."
        ) from None
    return chosen
