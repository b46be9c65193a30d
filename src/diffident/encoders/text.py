"""Text encoders: sentence-transformers, and the text models of transformers."""

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffident.devices import resolve_device
from diffident.encoders.common import (
    autocast,
    describe_model,
    digest_parts,
    freeze,
    loading,
    plain_repr,
    resolve_precision,
)
from diffident.errors import InputError, MissingDependencyError

_LONGEST = 512


class SentenceEncoder:
    """A sentence-transformers model that is there already."""

    modality = "text"

    def __init__(self, model: Any, *, name: str, device: str = "auto", precision: str = "auto"):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        prompts = [getattr(model, "prompts", {}), getattr(model, "default_prompt_name", None)]
        size = [getattr(model, "max_seq_length", None), getattr(model, "truncate_dim", None)]
        self.parts = describe_model(model, [_tokenizer_digest(model.tokenizer), prompts, size], self._dtype)
        self.fingerprint = digest_parts(self.parts)
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
    """A text model of transformers with its tokenizer; features are the mean over the tokens of the last layer.

    Of a model with encoder and decoder, the encoder is used.
    """

    modality = "text"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, device: str = "auto", precision: str = "auto"):
        self.name = name
        self._device = resolve_device(device)
        self._dtype = resolve_precision(precision, self._device)
        self._length = _longest(model, tokenizer)
        model = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
        preprocessing = [_tokenizer_digest(tokenizer), self._length, "mean over tokens"]
        self.parts = describe_model(model, preprocessing, self._dtype)
        self.fingerprint = digest_parts(self.parts)
        self._model: Any = freeze(model, self._device)
        self._tokenizer = _padding_tokenizer(tokenizer, name)

    def prepare(self, sample: str) -> str:
        """The text itself: batches are tokenised."""
        return sample

    @torch.inference_mode()
    def encode(self, batch: Sequence[str]) -> Float[Tensor, "n d"]:
        """Features of texts, float32 on the CPU."""
        tokens = self._tokenizer(
            list(batch), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        )
        ids, mask = tokens["input_ids"].to(self._device), tokens["attention_mask"].to(self._device)
        if ids.shape[1] == 0:  # only empty texts, and a tokenizer that adds no marks
            ids = torch.full((len(batch), 1), self._tokenizer.pad_token_id, device=self._device)
            mask = torch.ones_like(ids)
        with autocast(self._device, self._dtype):
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        mask = mask[..., None]
        return ((hidden.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).cpu()


def _longest(model: Any, tokenizer: Any) -> int:
    """The most tokens that both the model and its tokenizer take."""
    longest = min(
        getattr(tokenizer, "model_max_length", _LONGEST), getattr(model.config, "max_position_embeddings", _LONGEST)
    )
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from padding_idx + 1, so that many fewer tokens fit.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            longest = min(longest, module.num_embeddings - module.padding_idx - 1)
    return longest


def _padding_tokenizer(tokenizer: Any, name: str) -> Any:
    """A copy that pads on the right, where a causal model does not see it."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"`encoder` must have a tokenizer with a padding token; {name} has none. Set tokenizer.pad_token."
            )
        tokenizer.pad_token = tokenizer.eos_token  # masked, so any will do
    return tokenizer


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        rules = json.loads(backend.to_str())
        rules = {key: rule for key, rule in rules.items() if key not in ("truncation", "padding")}
    else:
        vocabulary = sorted(tokenizer.get_vocab().items()) if hasattr(tokenizer, "get_vocab") else []
        rules = [vocabulary, plain_repr(type(tokenizer)), getattr(tokenizer, "do_lower_case", None)]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _drop_pooler(model: Any) -> None:
    """Remove the pooler, which features are not made from: where a checkpoint lacks it, its weights are random."""
    network: Any = getattr(model[0], "auto_model", None)
    if getattr(network, "pooler", None) is not None and not hasattr(network, "get_text_features"):
        network.pooler = None


def open_sentence_transformers(name: str, *, device: str, precision: str) -> SentenceEncoder:
    """A sentence-transformers model by name or folder."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependencyError(
            "`sentence-transformers:` must have that library. Install it: pip install 'diffident[text]'."
        ) from None
    title = f"sentence-transformers:{name}"
    chosen = str(resolve_device(device))
    with loading(title):
        model = SentenceTransformer(name, device=chosen)
    _drop_pooler(model)
    return SentenceEncoder(model, name=title, device=device, precision=precision)
