"""One run in several processes on this machine, and batch norm over all of them."""

import os
import pickle
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessException
from torch.nn import functional

from diffident.errors import DiffidentError, InputError, WorkerError
from diffident.files import first_line
from diffident.storage.atomic import atomic_path


def launch(fabric: Fabric, function: Callable[[Fabric, Any], None], job: Any, num_processes: int) -> None:
    """Call `function(fabric, job)`, here or in every one of several processes.

    Raises:
        InputError: the job cannot be sent to other processes.
        WorkerError: a process died, or raised what is no `DiffidentError`; those keep their type.
    """
    if num_processes == 1:
        function(fabric, job)
        return
    try:
        work = pickle.dumps((function, job))  # Fabric would look for modules in it, and refuses frozen records
    except Exception as error:
        # Whatever holds a lambda or an open file raises what it likes: PicklingError, AttributeError, TypeError.
        raise InputError(
            f"`devices` must be 1 for what cannot be sent to another process; {first_line(error)}. Set devices=1."
        ) from None
    with _restored_environment(), TemporaryDirectory() as folder:
        try:
            fabric.launch(_run, work, Path(folder))  # type: ignore[arg-type]
        except ProcessException as failure:
            for file in sorted(Path(folder).iterdir()):
                raise pickle.loads(file.read_bytes()) from None
            reason = str(failure).strip().splitlines()[-1].rstrip(".")
            raise WorkerError(
                f"process {failure.error_index} of {num_processes} failed: {reason}. Mend that, or set devices=1."
            ) from None


def _run(fabric: Fabric, work: bytes, folder: Path) -> None:
    """Call the function; its error is left in the folder, as the parent process gets no more than a text."""
    function, job = pickle.loads(work)
    try:
        function(fabric, job)
    except DiffidentError as error:
        with atomic_path(folder / f"{fabric.global_rank}.pickle") as temporary:
            temporary.write_bytes(pickle.dumps(error))
        raise


@contextmanager
def _restored_environment():
    """Fabric leaves the address of its processes in the environment; a later run needs one of its own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def synced_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norm over the batches of all processes; the names in its state stay the same."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(model, name, _GlobalBatchNorm(child))
        else:
            synced_batch_norm(child, device)
    return model


class _GlobalBatchNorm(nn.Module):
    """Batch norm over all processes, also on the CPU, where torch's SyncBatchNorm does not run."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__()
        self.eps, self.momentum = norm.eps, norm.momentum
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (n, c, ...)."""
        if not self.training:
            return functional.batch_norm(
                inputs,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.running_mean is None,
                0,
                self.eps,
            )
        dims = [dim for dim in range(inputs.ndim) if dim != 1]
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        count = _summed(inputs.new_tensor([float(inputs.numel() // inputs.shape[1])]))
        mean = _summed(inputs.sum(dims)) / count
        centred = inputs - mean.reshape(shape)
        variance = _summed(centred.square().sum(dims)) / count
        self._track(mean.detach(), (variance * count / (count - 1)).detach())
        scaled = centred * (variance + self.eps).rsqrt().reshape(shape)
        if self.weight is None or self.bias is None:
            return scaled
        return scaled * self.weight.reshape(shape) + self.bias.reshape(shape)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _summed(values: Tensor) -> Tensor:
    return _Sum.apply(values)  # type: ignore[return-value]


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _Sum.forward(None, grad_outputs[0].contiguous())
