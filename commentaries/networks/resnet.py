"""Residual networks in the shape for small images: a 3 x 3 first layer, no pooling after it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from .layers import Convolution, GlobalAverage, check_images


class Subsample(nn.Module):
    """Every stride-th pixel, with zero channels added: a shortcut without parameters (option A)."""

    def __init__(self, stride: int, added: int):
        super().__init__()
        self.stride = stride
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c + added, ⌈h / stride⌉, ⌈w / stride⌉)."""
        before = self.added // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, before, self.added - before))


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, figure 2).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution.
        shortcut: Where the shapes differ, "A" pads with zeros and "B" is a 1 x 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Literal["A", "B"]):
        super().__init__()
        self.conv1 = Convolution(inputs, outputs, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = Convolution(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = Subsample(stride, outputs - inputs)
        else:
            self.shortcut = nn.Sequential(
                Convolution(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """relu(shortcut(x) + residual(x))."""
        residual = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.shortcut(x) + self.bn2(self.conv2(residual)))


class ResNet(nn.Module):
    """A first convolution, stages of blocks of which all but the first halve the image, a mean.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images.
        widths: Channels of each stage.
        blocks: Blocks of each stage.
        shortcut: See `Block`.
    """

    def __init__(
        self,
        outputs: int,
        channels: int,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        shortcut: Literal["A", "B"],
    ):
        super().__init__()
        self.conv1 = Convolution(channels, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages = []
        inputs = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            parts = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                parts.append(Block(inputs, width, stride, shortcut))
                inputs = width
            stages.append(nn.Sequential(*parts))
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalAverage()
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, size, size) -> (n, outputs)."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.pool(self.stages(x)))


def resnet18(outputs: int, *, channels: int = 3, size: int = 32, width: int = 64) -> ResNet:
    """ResNet-18 for small images: 11.17 M parameters for ten classes of colour images.

    The stages of He et al. 2016, table 1, behind a 3 x 3 convolution of stride 1, with 1 x 1
    convolutions where the shapes differ (option B).

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images, at least 8.
        width: Channels of the first stage; each further one doubles them. 16 suits two cores.
    """
    return _resnet("resnet18", outputs, channels, size, width, (2, 2, 2, 2), "B")


def resnet34(outputs: int, *, channels: int = 3, size: int = 32, width: int = 64) -> ResNet:
    """ResNet-34 for small images, as `resnet18`: 21.28 M parameters."""
    return _resnet("resnet34", outputs, channels, size, width, (3, 4, 6, 3), "B")


def resnet32(outputs: int, *, channels: int = 3, size: int = 32, width: int = 16) -> ResNet:
    """The 32-layer network for CIFAR-10 of He et al. 2016, section 4.2: 0.46 M parameters.

    6n + 2 layers with n = 5: three stages of five blocks with 16, 32 and 64 channels, shortcuts
    without parameters (option A), as in the paper.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images, at least 8.
        width: Channels of the first stage; each further one doubles them.
    """
    return _resnet("resnet32", outputs, channels, size, width, (5, 5, 5), "A")


def _resnet(
    name: str,
    outputs: int,
    channels: int,
    size: int,
    width: int,
    blocks: tuple[int, ...],
    shortcut: Literal["A", "B"],
) -> ResNet:
    check_images(name, size, 8, outputs=outputs, channels=channels, width=width)
    widths = tuple(width * 2**stage for stage in range(len(blocks)))
    return ResNet(outputs, channels, widths, blocks, shortcut)
