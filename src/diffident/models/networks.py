"""The networks: built by name for a preprocessor; each takes a batch as the preprocessor made it, and gives logits."""

from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffident.errors import InputError, did_you_mean
from diffident.models.convnets import cnn_small, densenet_bc, resnet_32px, wide_resnet
from diffident.models.foreign import (
    python_model,
    timm_model,
    torchvision_model,
    transformers_image_model,
    transformers_model,
)
from diffident.models.preprocessing import Preprocessor
from diffident.settings import MODEL_PREFIXES, MODELS, TrainingSettings


def build_model(
    settings: TrainingSettings,
    preprocessor: Preprocessor,
    num_classes: int,
    *,
    run: Path | None = None,
) -> nn.Module:
    """The model of `settings.model`, its first layer standardising what the preprocessor gives.

    Args:
        settings: Model name and its options.
        preprocessor: Shape of the inputs, and the moments to standardise them with.
        num_classes: Number of logits.
        run: Folder of the run that the weights will come from: then no pretrained weights are fetched.

    Raises:
        InputError: an unknown name, or a model that does not take the data.
        MissingDependencyError: its library is not installed.
        UnavailableError: its weights could not be fetched.
    """
    name, width, shape = settings.model, settings.width, preprocessor.shape
    pretrained = settings.pretrained and run is None
    kind, _, rest = name.partition(":")
    if name == "ngrams":
        return Ngrams(len(preprocessor.vocabulary), num_classes, width or 192, settings.dropout)
    if kind == "transformers" and preprocessor.kind == "tokens":
        return transformers_model(rest, num_classes, pretrained, run)
    if kind == "transformers":
        network = transformers_image_model(rest, num_classes, (shape[1], shape[2]), pretrained, run)
    elif kind == "timm":
        network = timm_model(rest, num_classes, (shape[1], shape[2]), pretrained)
    elif kind == "torchvision":
        network = torchvision_model(rest, num_classes, pretrained)
    elif kind == "python":
        network = python_model(rest, num_classes)
    else:
        network = _own_network(settings, shape, num_classes)
    return nn.Sequential(Standardize(preprocessor), network)


def _own_network(settings: TrainingSettings, shape: tuple[int, ...], num_classes: int) -> nn.Module:
    name, width, channels = settings.model, settings.width, shape[0]
    if name == "mlp":
        return mlp(torch.Size(shape).numel(), num_classes, width or 256, settings.dropout)
    if name == "cnn-small":
        return cnn_small(channels, num_classes, width or 24)
    if name == "wrn-28-10":
        return wide_resnet(channels, num_classes, width or 160, settings.dropout)
    if name == "densenet-bc":
        return densenet_bc(channels, num_classes, width or 12)
    if name in ("resnet18-32px", "resnet34-32px", "resnet50-32px"):
        return resnet_32px(int(name[6:8]), channels, num_classes, width or 64)
    raise InputError(f"`model` must be a known name; got {name!r}. {did_you_mean(name, MODELS + MODEL_PREFIXES)}")


class Standardize(nn.Module):
    """(inputs - mean) / std, those of the preprocessor; uint8 images are scaled to [0, 1] first."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Preprocessor):
        super().__init__()
        shape = (1, -1, 1, 1) if preprocessor.kind == "image" else (1, -1)
        self.register_buffer("mean", torch.tensor(preprocessor.mean).reshape(shape))
        self.register_buffer("std", torch.tensor(preprocessor.std).reshape(shape))

    def forward(self, inputs: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Standardised inputs, in the moments' precision."""
        values = inputs.to(self.mean.dtype)
        return ((values / 255 if inputs.dtype == torch.uint8 else values) - self.mean) / self.std


class Ngrams(nn.Module):
    """Mean of the vectors of a text's 1-2-grams, then an MLP.

    Args:
        num_grams: Size of the vocabulary; index 0 is padding.
        num_classes: Number of logits.
        width: Of the vectors and the hidden layer.
        dropout: Before each linear layer.
    """

    def __init__(self, num_grams: int, num_classes: int, width: int, dropout: float):
        super().__init__()
        self.bag = nn.EmbeddingBag(num_grams + 1, width, mode="mean", padding_idx=0)
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, num_classes),
        )

    def forward(self, inputs: Shaped[Tensor, "n length"]) -> Float[Tensor, "n c"]:
        """Logits of padded gram indices."""
        return self.head(self.bag(inputs.int()))


def mlp(num_inputs: int, num_classes: int, width: int, dropout: float) -> nn.Module:
    """Two hidden layers; images are flattened."""
    hidden = [nn.Linear(num_inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Dropout(dropout), nn.Linear(width, num_classes))
