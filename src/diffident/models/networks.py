"""The networks: built by name for a preprocessor; each takes a batch as the preprocessor made it, and gives logits."""

from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffident.errors import InputError, did_you_mean
from diffident.models.foreign import python_model, timm_model, torchvision_model, transformers_model
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
    name, width = settings.model, settings.width
    pretrained = settings.pretrained and run is None
    kind, _, rest = name.partition(":")
    if name == "ngrams":
        return Ngrams(len(preprocessor.vocabulary), num_classes, width or 192, settings.dropout)
    if kind == "transformers":
        return transformers_model(rest, num_classes, pretrained, run)
    if name == "cnn-small":
        network = cnn_small(preprocessor.shape[0], num_classes, width or 24)
    elif name == "resnet18-32px":
        network = resnet18_32px(preprocessor.shape[0], num_classes, width or 64)
    elif name == "mlp":
        network = mlp(torch.Size(preprocessor.shape).numel(), num_classes, width or 256, settings.dropout)
    elif kind == "timm":
        network = timm_model(rest, num_classes, (preprocessor.shape[1], preprocessor.shape[2]), pretrained)
    elif kind == "torchvision":
        network = torchvision_model(rest, num_classes, pretrained)
    elif kind == "python":
        network = python_model(rest, num_classes)
    else:
        raise InputError(f"`model` must be a known name; got {name!r}. {did_you_mean(name, MODELS + MODEL_PREFIXES)}")
    return nn.Sequential(Standardize(preprocessor), network)


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


def cnn_small(channels: int, num_classes: int, width: int) -> nn.Module:
    """Three 3x3 convolutions (width, 2 width, 4 width), pooled to one pixel; images of 4 px and more."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    layers = [*block(channels, width), *block(width, 2 * width), nn.MaxPool2d(2), *block(2 * width, 4 * width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))


def mlp(num_inputs: int, num_classes: int, width: int, dropout: float) -> nn.Module:
    """Two hidden layers; images are flattened."""
    hidden = [nn.Linear(num_inputs, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Dropout(dropout), nn.Linear(width, num_classes))


def resnet18_32px(channels: int, num_classes: int, width: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no max-pool, stages of width 1, 2, 4 and 8 times `width`."""
    from torchvision.models.resnet import BasicBlock

    def stage(before: int, after: int, stride: int) -> list[nn.Module]:
        skip = None
        if stride != 1 or before != after:
            skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        return [BasicBlock(before, after, stride, skip), BasicBlock(after, after)]

    stem = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = [m for number in range(4) for m in stage(widths[number], widths[number + 1], 1 if number == 0 else 2)]
    network = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
