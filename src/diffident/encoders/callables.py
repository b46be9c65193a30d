"""Encoders from Python: any callable, `identity`, and `glyphs`, the one that comes with the package."""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from diffident.devices import resolve_device
from diffident.encoders.common import (
    autocast,
    describe_model,
    digest_parts,
    freeze,
    resolve_precision,
)
from diffident.encoders.digests import digest_callable
from diffident.errors import InputError
from diffident.files import first_line
from diffident.records import tensor_of


class CallableEncoder:
    """A function from a list of samples to features [n, d] (array or tensor).

    A network itself (not its partial or its `forward`) gets vectors as a tensor [n, d] on its device, and is in
    evaluation mode meanwhile.

    Args:
        function: Any callable, also a partial, a method or a network.
        name: As it shall be known (default: where it is defined).
        fingerprint: A text that changes with the features (default: the function's attribute `fingerprint`, else
            the digest of its code and of all that it uses).

    Raises:
        InputError: the function uses something that has no digest.
    """

    modality = "any"

    def __init__(self, function: Callable[[list], Any], *, name: str | None = None, fingerprint: str | None = None):
        self.name = name or f"python:{_title(function)}"
        given = fingerprint or getattr(function, "fingerprint", None)
        self.parts = {"function": given if isinstance(given, str) else digest_callable(function)}
        self.fingerprint = digest_parts(self.parts)
        self._function = function

    def prepare(self, sample: Any) -> Any:
        """The sample itself."""
        return sample

    @torch.inference_mode()
    def encode(self, batch: Sequence[Any]) -> Float[Tensor, "..."]:
        """What the function gives, as float32 on the CPU."""
        function = self._function
        values = self._of_network(function, batch) if isinstance(function, nn.Module) else function(list(batch))
        try:
            values = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values, dtype=np.float32))
        except (TypeError, ValueError):
            raise InputError(
                f"`encoder` must give an array or tensor [n, d] of numbers; {self.name} gave {type(values).__name__}. "
                "Mend the function."
            ) from None
        return values.float().cpu()

    def _of_network(self, network: nn.Module, batch: Sequence[Any]) -> Any:
        """What the network gives of vectors, or of the list where the samples are none."""
        are_vectors = all(isinstance(sample, np.ndarray | Tensor) for sample in batch)
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            return network(_stacked(batch, network) if are_vectors else list(batch))
        except (TypeError, AttributeError, RuntimeError) as error:
            got = f"vectors {list(batch[0].shape)}" if are_vectors else f"a list of {type(batch[0]).__name__}"
            mend = "Mend its first layer." if are_vectors else "Give a function that makes tensors of them first."
            raise InputError(
                f"`encoder` must take {got}; the network {self.name} does not: {first_line(error)}. {mend}"
            ) from error
        finally:
            for module, training in modes:
                module.training = training


def _stacked(batch: Sequence[Any], network: nn.Module) -> Tensor:
    """The vectors on the network's device, and in its type where it has weights."""
    vectors = torch.stack([tensor_of(sample, "samples") for sample in batch])
    weights = next((one for one in network.parameters() if one.is_floating_point()), None)
    return vectors if weights is None else vectors.to(weights.device, weights.dtype)


def _title(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    definition = function if hasattr(function, "__qualname__") else type(function)
    return f"{definition.__module__}:{definition.__qualname__}"


class IdentityEncoder:
    """Vectors as they are; images flattened, scaled to [0, 1]. For features and tables."""

    name = "identity"
    modality = "any"

    def __init__(self):
        self.parts = {"function": "identity-1"}
        self.fingerprint = digest_parts(self.parts)

    def prepare(self, sample: Any) -> Tensor:
        """The sample as a float32 vector."""
        if isinstance(sample, str):
            raise InputError("`identity` must be given vectors or images; got text. Choose sentence-transformers:NAME.")
        values = np.asarray(sample)
        scale = 255 if values.dtype == np.uint8 else 1
        return torch.from_numpy(values.astype(np.float32).reshape(-1) / scale)

    def encode(self, batch: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """The vectors, stacked."""
        if len({len(vector) for vector in batch}) > 1:
            raise InputError(
                "`identity` must be given samples of one size; got several. Use --encoder glyphs or timm:NAME."
            )
        return torch.stack(list(batch))


class GlyphsEncoder:
    """The small network that comes with the package, trained on rendered characters; see docs/glyphs.md."""

    name = "glyphs"
    modality = "image"

    def __init__(self, *, device: str = "auto", precision: str = "auto"):
        from diffident.encoders.glyph_network import GlyphNetwork, prepare_glyph

        network = GlyphNetwork()
        weights = load_file(Path(__file__).with_name("glyphs.safetensors"))
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        )
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self.parts = describe_model(network, digest_callable(prepare_glyph), self._dtype)
        self.fingerprint = digest_parts(self.parts)
        self._network = freeze(network, self._device, channels_last=True)
        self._prepare = prepare_glyph

    def prepare(self, sample: Any) -> Tensor:
        """Grey, 32 x 32, ink bright."""
        return self._prepare(sample)

    @torch.inference_mode()
    def encode(self, batch: Sequence[Tensor]) -> Float[Tensor, "n d"]:
        """Features of prepared images, float32 on the CPU."""
        with autocast(self._device, self._dtype):
            return self._network(torch.stack(list(batch)).to(self._device)).float().cpu()


def import_function(path: str, *, example: str) -> Callable[..., Any]:
    """The function of `module:function`; modules of the current folder are found.

    Raises:
        InputError: not such a path, or nothing callable there.
    """
    module_name, separator, function_name = path.partition(":")
    if not (separator and module_name and function_name) or module_name.startswith("."):
        raise InputError(f"`python:` must be followed by module:function; got `{path}`. For example: {example}.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"`python:{path}` must be importable; {error}. Run where the module is, or install it."
        ) from None
    if not callable(function):
        raise InputError(f"`python:{path}` must be callable; got {type(function).__name__}. Name a function.")
    return function


def open_python(path: str) -> CallableEncoder:
    """The encoder that is the function of `module:function`."""
    return CallableEncoder(import_function(path, example="python:my_encoder:encode"), name=f"python:{path}")
