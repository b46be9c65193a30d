"""Text features of class names by the text tower of an image-text encoder, for the difficulty method `zero-shot`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffident.devices import resolve_device
from diffident.encoders.common import freeze, loading
from diffident.encoders.vision import split_tag
from diffident.errors import InputError, MissingDependencyError, did_you_mean

TEMPLATES = ("a photo of a {}.",)
FAMILIES = ("open_clip:", "transformers:")
_BATCH = 64


def encode_label_names(
    spec: str, label_names: Sequence[str], *, templates: Sequence[str] = TEMPLATES, device: str = "auto"
) -> Float[Tensor, "k d"]:
    """Text features of class names, by the text tower of the encoder that made the image features.

    Args:
        spec: `open_clip:ARCH/TAG` (or a checkpoint or folder, as for `open_encoder`) or `transformers:NAME` (CLIP,
            SigLIP and the like).
        label_names: Names of the classes, in the order of the labels; underscores become spaces.
        templates: Prompts with one {} each; a class's feature is the mean of the prompts' unit vectors.
        device: `auto`, `cpu`, `cuda`, ...

    Returns:
        float32 (k, d), unit vectors.

    Raises:
        InputError: an encoder without a text tower, no names, or a template without {}.
        UnavailableError: the weights are out of reach.
    """
    family, _, name = spec.partition(":")
    if f"{family}:" not in FAMILIES or not name:
        raise InputError(
            f"`label_features` must be made by an image-text encoder; got `{spec}`. {did_you_mean(spec, FAMILIES)}"
        )
    _prompts(label_names, templates)  # so that what is wrong with them is said before weights are loaded
    opener = {"open_clip": _open_clip, "transformers": _transformers}[family]
    with loading(spec):
        model, tokenize, forward = opener(name)
    return encode_prompts(model, tokenize, forward, label_names, templates=templates, device=device)


@torch.inference_mode()
def encode_prompts(
    model: nn.Module,
    tokenize: Callable[[list[str]], Any],
    forward: Callable[[Any, Any], Tensor],
    label_names: Sequence[str],
    *,
    templates: Sequence[str] = TEMPLATES,
    device: str = "auto",
) -> Float[Tensor, "k d"]:
    """As `encode_label_names`, with a model, its tokenizer and a forward function that are there already."""
    prompts = _prompts(label_names, templates)
    target = resolve_device(device)
    model = freeze(model, target)
    parts = []
    for start in range(0, len(prompts), _BATCH):
        tokens = tokenize(prompts[start : start + _BATCH])
        parts.append(functional.normalize(forward(model, tokens.to(target)).float(), dim=1).cpu())
    means = torch.cat(parts).unflatten(0, (len(label_names), len(templates))).mean(dim=1)
    return functional.normalize(means, dim=1)


def _prompts(label_names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All prompts of the first class, then of the next."""
    if not label_names:
        raise InputError("`label_names` must name at least one class; got none. Extract from data with class names.")
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        got = repr(wrong[0]) if wrong else "none"
        raise InputError(f"`templates` must each have one {{}}; got {got}. For example: 'a photo of a {{}}.'.")
    return [template.replace("{}", name.replace("_", " ")) for name in label_names for template in templates]


def _open_clip(name: str) -> tuple[nn.Module, Callable[[list[str]], Any], Callable[[Any, Any], Tensor]]:
    try:
        import open_clip
    except ImportError:
        raise MissingDependencyError(
            "`open_clip:` must have open_clip_torch. Install it: pip install 'diffident[vision]'."
        ) from None
    architecture, tag = split_tag(name, open_clip)
    model = open_clip.create_model(architecture, pretrained=tag)
    return model, open_clip.get_tokenizer(architecture), lambda clip, tokens: clip.encode_text(tokens)


def _transformers(name: str) -> tuple[nn.Module, Callable[[list[str]], Any], Callable[[Any, Any], Tensor]]:
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError(
            "`transformers:` must have that library. Install it: pip install 'diffident[text]'."
        ) from None
    model: Any = transformers.AutoModel.from_pretrained(name)
    if not hasattr(model, "get_text_features"):
        raise InputError(f"`transformers:` must be an image-text model; `{name}` has no text tower. Try a CLIP model.")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(name)
    padding = "max_length" if "siglip" in model.config.model_type else True  # as SigLIP was trained

    def tokenize(prompts: list[str]) -> Any:
        return tokenizer(prompts, padding=padding, truncation=True, return_tensors="pt")

    return model, tokenize, text_features


def text_features(model: Any, tokens: Any) -> Tensor:
    """Projected text features of a transformers image-text model."""
    features = model.get_text_features(**tokens)
    return features if isinstance(features, Tensor) else features.pooler_output
