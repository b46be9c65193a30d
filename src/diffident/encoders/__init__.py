"""Encoders, one file a kind; every one has the verbs of `Encoder`."""

from collections.abc import Callable

from diffident.devices import resolve_device
from diffident.encoders.callables import CallableEncoder, GlyphsEncoder, IdentityEncoder, open_python
from diffident.encoders.common import resolve_precision
from diffident.encoders.hugging_face import open_transformers
from diffident.encoders.protocol import Encoder
from diffident.encoders.text import open_sentence_transformers
from diffident.encoders.vision import open_clip_encoder, open_timm
from diffident.errors import InputError, did_you_mean

FAMILIES = ("timm:", "open_clip:", "transformers:", "sentence-transformers:", "python:", "glyphs", "identity")


def open_encoder(
    spec: str | Encoder | Callable, *, device: str = "auto", image_size: int | None = None, precision: str = "auto"
) -> Encoder:
    """An encoder from a name, or from a Python callable.

    Args:
        spec: `timm:NAME` (also `timm:local-dir:PATH`), `open_clip:ARCH/TAG` (also `ARCH/CHECKPOINT` and
            `local-dir:PATH`), `transformers:NAME_OR_PATH`, `sentence-transformers:NAME_OR_PATH`,
            `python:module:function`, `glyphs`, `identity` (vectors as they are), or a callable from a list of samples
            to [n, d].
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        image_size: Resize images to N x N instead of the encoder's own preprocessing.
        precision: `auto` (bfloat16 on CUDA, else float32), `float32`, `bfloat16`, `float16`.

    Raises:
        InputError: an unknown name or setting; MissingDependencyError: an optional library is not installed.
        UnavailableError: the weights are out of reach.
    """
    if not isinstance(spec, str):
        if not isinstance(spec, Encoder) and not callable(spec):
            raise InputError(
                f"`encoder` must be a name, an Encoder or a callable; got {type(spec).__name__}. Give one."
            )
        return spec if isinstance(spec, Encoder) else CallableEncoder(spec)
    if image_size is not None and image_size < 1:
        raise InputError(f"`image_size` must be at least 1; got {image_size}. Leave it out for the encoder's own.")
    family, _, name = spec.partition(":")
    if family in ("timm", "open_clip", "transformers") and name:
        openers = {"timm": open_timm, "open_clip": open_clip_encoder, "transformers": open_transformers}
        return openers[family](name, device=device, image_size=image_size, precision=precision)
    if image_size is not None:
        raise InputError(
            f"`image_size` must be used with timm:, open_clip: or transformers:; got `{spec}`. Leave it out."
        )
    if family == "sentence-transformers" and name:
        return open_sentence_transformers(name, device=device, precision=precision)
    if spec == "glyphs":
        return GlyphsEncoder(device=device, precision=precision)
    if family == "python" or spec == "identity":
        resolve_precision(precision, resolve_device(device))  # which must be right, though neither is used
        return open_python(name) if family == "python" else IdentityEncoder()
    raise InputError(f"`encoder` must be a known one; got `{spec}`. {did_you_mean(spec, FAMILIES)}")
