"""The text and vision models of transformers, by name, folder or object."""

import inspect
from typing import Any

from PIL import Image
from torch import Tensor, nn

from diffident.encoders.common import loading
from diffident.encoders.text import TransformersTextEncoder
from diffident.encoders.vision import ImageEncoder
from diffident.errors import InputError, MissingDependencyError


def open_transformers(
    name: str, *, device: str, image_size: int | None, precision: str
) -> TransformersTextEncoder | ImageEncoder:
    """A text or vision model of transformers, by what its configuration says."""
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError(
            "`transformers:` must have that library. Install it: pip install 'diffident[text]'."
        ) from None
    title = f"transformers:{name}"
    with loading(title):
        config = transformers.AutoConfig.from_pretrained(name)
        is_vision = hasattr(config, "vision_config") or hasattr(config, "num_channels")
        if image_size is not None and not is_vision:
            raise InputError(f"`image_size` must be used with an image encoder; {title} takes text. Leave it out.")
        loader = transformers.AutoImageProcessor if is_vision else transformers.AutoTokenizer
        processor = loader.from_pretrained(name)
        model, report = transformers.AutoModel.from_pretrained(name, output_loading_info=True)
    _check_weights(model, report["missing_keys"], title, keep_pooler=is_vision)
    if is_vision:
        return from_transformers_vision(
            model, processor, name=title, device=device, precision=precision, image_size=image_size
        )
    return TransformersTextEncoder(model, processor, name=title, device=device, precision=precision)


def _check_weights(model: Any, missing: set[str], title: str, *, keep_pooler: bool) -> None:
    """Drop a pooler that the checkpoint lacks or nobody reads: transformers fills it with random weights."""
    lacks_pooler = any(key.startswith("pooler.") for key in missing)
    if getattr(model, "pooler", None) is not None and (lacks_pooler or not keep_pooler):
        model.pooler = None
    others = sorted(key for key in missing if not key.startswith("pooler."))
    if others:
        raise InputError(
            f"`encoder` must have all its weights; {title} lacks {len(others)}, the first is {others[0]}. "
            "Name a checkpoint of the whole model."
        )


def from_transformers_vision(
    model: nn.Module,
    processor: Any,
    *,
    name: str,
    device: str = "auto",
    precision: str = "auto",
    image_size: int | None = None,
) -> ImageEncoder:
    """A vision model of transformers that is there already, with its image processor.

    Features are the projected image features of CLIP and its kin, else the pooled output, else the class token, else
    the mean over positions. With `image_size` the whole picture is resized to N x N, and position embeddings are
    interpolated.
    """
    takes = inspect.signature(getattr(model, "get_image_features", model.forward)).parameters
    resized = image_size is not None and "interpolate_pos_encoding" in takes
    has_class_token = any(parameter.endswith("cls_token") for parameter, _ in model.named_parameters())

    def transform(image: Image.Image) -> Tensor:
        if image_size is None:
            return processor(images=image, return_tensors="pt")["pixel_values"][0]
        image = image.resize((image_size, image_size), Image.Resampling(int(processor.resample)))
        done = processor(images=image, return_tensors="pt", do_resize=False, do_center_crop=False)
        return done["pixel_values"][0]

    def forward(network: Any, images: Tensor) -> Tensor:
        options = {"interpolate_pos_encoding": True} if resized else {}
        if hasattr(network, "get_image_features"):
            features = network.get_image_features(pixel_values=images, **options)
            return features if isinstance(features, Tensor) else features.pooler_output
        output = network(pixel_values=images, **options)
        return _pooled(output, has_class_token)

    return ImageEncoder(
        model,
        transform,
        name=name,
        forward=forward,
        device=device,
        precision=precision,
        preprocessing=processor.to_json_string(),
        image_size=image_size,
    )


def _pooled(output: Any, has_class_token: bool) -> Tensor:
    pooled, hidden = getattr(output, "pooler_output", None), output.last_hidden_state
    if pooled is not None:
        return pooled
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return hidden[:, 0] if has_class_token else hidden.mean(dim=1)
