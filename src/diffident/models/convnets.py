"""Convolutional networks for images of about 32 pixels; blocks are torchvision's where it has them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Blocks of each of the four stages; the second entry says whether blocks are bottlenecks.
_RESNETS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}


def cnn_small(channels: int, num_classes: int, width: int) -> nn.Module:
    """Three 3x3 convolutions (width, 2 width, 4 width), pooled to one pixel; images of 4 px and more."""

    def block(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    layers = [*block(channels, width), *block(width, 2 * width), nn.MaxPool2d(2), *block(2 * width, 4 * width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))


def resnet_32px(depth: int, channels: int, num_classes: int, width: int) -> nn.Module:
    """ResNet with a 3x3 stem and no max-pool, stages of width 1, 2, 4 and 8 times `width`.

    Args:
        depth: 18, 34 or 50.
        channels: Of the images.
        num_classes: Number of logits.
        width: Channels of the first stage; 64 in the paper.

    Reference:
        He et al. 2016, arXiv 1512.03385, with the stem that is usual for CIFAR.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck

    counts, bottleneck = _RESNETS[depth]
    kind: Any = Bottleneck if bottleneck else BasicBlock
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    layers.append(nn.ReLU(inplace=True))
    before = width
    for stage, count in enumerate(counts):
        planes = width * 2**stage
        for number in range(count):
            stride, skip = 2 if stage and not number else 1, None
            if stride != 1 or before != planes * kind.expansion:
                convolution = nn.Conv2d(before, planes * kind.expansion, 1, stride, bias=False)
                skip = nn.Sequential(convolution, nn.BatchNorm2d(planes * kind.expansion))
            layers.append(kind(before, planes, stride, skip))
            before = planes * kind.expansion
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
    return _initialised(network)


class WideBlock(nn.Module):
    """Batch norm, ReLU and a 3x3 convolution, twice, added to the input.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        stride: Of the first convolution.
        dropout: Between the convolutions.
    """

    def __init__(self, before: int, after: int, stride: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(before, after, 1, stride, bias=False) if before != after or stride != 1 else None

    def forward(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """The sum; where the shape changes, the skip starts from the activated input."""
        active = torch.relu(self.norm1(inputs))
        branch = self.conv2(self.dropout(torch.relu(self.norm2(self.conv1(active)))))
        return branch + (inputs if self.skip is None else self.skip(active))


def wide_resnet(channels: int, num_classes: int, width: int, dropout: float) -> nn.Module:
    """WRN-28: three stages of four blocks, of width 1, 2 and 4 times `width`, after a stem of 16 channels.

    Args:
        channels: Of the images.
        num_classes: Number of logits.
        width: Channels of the first stage; 160 for WRN-28-10.
        dropout: Between the convolutions of a block.

    Reference:
        Zagoruyko and Komodakis 2016, arXiv 1605.07146.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    before = 16
    for stage in range(3):
        for number in range(4):
            layers.append(WideBlock(before, width * 2**stage, 2 if stage and not number else 1, dropout))
            before = width * 2**stage
    head = [nn.BatchNorm2d(before), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _initialised(nn.Sequential(*layers, *head, nn.Linear(before, num_classes)))


def densenet_bc(channels: int, num_classes: int, growth: int) -> nn.Module:
    """DenseNet-BC-100: three blocks of 16 layers, for images of 8 px and more.

    Args:
        channels: Of the images.
        num_classes: Number of logits.
        growth: Channels that a layer adds; 12 in the paper.

    Reference:
        Huang et al. 2017, arXiv 1608.06993.
    """
    from torchvision.models.densenet import DenseNet

    blocks: Any = (16, 16, 16)
    network = DenseNet(growth, blocks, 2 * growth, num_classes=num_classes)
    network.features.conv0 = nn.Conv2d(channels, 2 * growth, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(network.features, name, nn.Identity())
    return _initialised(network)


def _initialised(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
