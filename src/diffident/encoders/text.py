"""Text encoders: sentence-transformers, and the text models of transformers; and transformers by name."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.encoders.common import autocast, fingerprint, freeze, loading, resolve_device, resolve_precision
from diffident.encoders.vision import ImageEncoder, from_transformers_vision
from diffident.errors import MissingDependencyError


class SentenceEncoder:
    """A sentence-transformers model that is there already."""

    modality = "text"

    def __init__(self, model: Any, *, name: str, device: str = "auto", precision: str = "auto"):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self.fingerprint = fingerprint(model, [name, str(model), str(self._dtype)])
        self._model: Any = freeze(model, self._device)

    def prepare(self, sample: str) -> str:
        """The text itself: the model tokenises batches."""
        return sample

    @torch.inference_mode()
    def encode(self, batch: Sequence[str]) -> Float[Tensor, "n d"]:
        """Features of texts, float32 on the CPU."""
        with autocast(self._device, self._dtype):
            features = self._model.encode(
                list(batch),
                batch_size=len(batch),
                convert_to_tensor=True,
                show_progress_bar=False,
                device=str(self._device),
            )
        return features.float().cpu()


class TransformersTextEncoder:
    """A text model of transformers with its tokenizer; features are the mean over the tokens of the last layer."""

    modality = "text"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, device: str = "auto", precision: str = "auto"):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        vocabulary = sorted(tokenizer.get_vocab().items())
        self.fingerprint = fingerprint(model, [name, vocabulary, "mean over tokens", str(self._dtype)])
        self._model: Any = freeze(model, self._device)
        self._tokenizer = tokenizer
        self._length = min(
            getattr(tokenizer, "model_max_length", 512), getattr(model.config, "max_position_embeddings", 512)
        )

    def prepare(self, sample: str) -> str:
        """The text itself: batches are tokenised."""
        return sample

    @torch.inference_mode()
    def encode(self, batch: Sequence[str]) -> Float[Tensor, "n d"]:
        """Features of texts, float32 on the CPU."""
        tokens = self._tokenizer(
            list(batch), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        )
        tokens = tokens.to(self._device)
        with autocast(self._device, self._dtype):
            hidden = self._model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return ((hidden.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).cpu()


def open_sentence_transformers(name: str, *, device: str, precision: str) -> SentenceEncoder:
    """A sentence-transformers model by name or folder."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependencyError(
            "`sentence-transformers:` must have that library. Install it: pip install 'diffident[text]'."
        ) from None
    title = f"sentence-transformers:{name}"
    with loading(title):
        model = SentenceTransformer(name, device=str(resolve_device(device)))
    return SentenceEncoder(model, name=title, device=device, precision=precision)


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
        model = transformers.AutoModel.from_pretrained(name)
        if hasattr(config, "vision_config") or hasattr(config, "num_channels"):
            size = {"size": {"height": image_size, "width": image_size}} if image_size else {}
            processor = transformers.AutoImageProcessor.from_pretrained(name, **size)
            return from_transformers_vision(model, processor, name=title, device=device, precision=precision)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    return TransformersTextEncoder(model, tokenizer, name=title, device=device, precision=precision)
