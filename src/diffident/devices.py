"""Which device a name means, and how the CPU's memory is kept."""

import ctypes
import os
import platform

import torch

from diffident.errors import InputError

ACCELERATORS = ("cuda", "mps")
# Of mallopt, in glibc's malloc.h; the largest threshold that it takes, and a size that is never reached.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD, _NEVER = 32 << 20, (1 << 31) - 1


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


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for what is allocated next, for the rest of the process.

    Every step of training on the CPU allocates tensors of the same sizes. Given back to the system in between, their
    pages are cleared and mapped again each time, which took 5 to 10 % of a small network's step. Where the environment
    already says how memory is kept (`MALLOC_TRIM_THRESHOLD_=131072` says that it is not), nothing changes.

    Returns:
        Whether it does now: with glibc alone, that is on most Linux systems.
    """
    said = "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    said = said or any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
    if platform.libc_ver()[0] != "glibc" or said:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_TRIM_THRESHOLD, _NEVER))
