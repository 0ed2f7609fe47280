"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import BadInput, check_fraction
from .layers import Convolution, GlobalAverage, check_images


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each of two convolutions (He et al. 2016b), and a shortcut.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution.
        dropout: Share of the values dropped between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = Convolution(inputs, outputs, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = Convolution(outputs, outputs, 3)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else Convolution(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """x + residual(x); a shortcut with weights sees x after normalisation and ReLU."""
        active = self.relu(self.bn1(x))
        residual = self.relu(self.bn2(self.conv1(active)))
        residual = self.conv2(self.dropout(residual))
        return residual + (x if self.shortcut is None else self.shortcut(active))


def wide_resnet(
    outputs: int,
    *,
    channels: int = 3,
    size: int = 32,
    depth: int = 28,
    width: int = 10,
    dropout: float = 0.0,
) -> nn.Sequential:
    """WRN-depth-width: WRN-28-10 has 36.5 M parameters for ten classes of colour images.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images, at least 8.
        depth: Layers, 6n + 4: 10, 16, 22, 28, 34, 40, ...
        width: Times as many channels as 16, 32 and 64 in the three stages. 1 suits two cores.
        dropout: Share of the values dropped inside each block, in [0, 1).

    Raises:
        BadInput: A depth that is not 6n + 4, or images that are too small.
    """
    check_images("wide_resnet", size, 8, outputs=outputs, channels=channels, width=width)
    check_fraction("dropout", dropout)
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise BadInput(
            f"A wide residual network has 6n + 4 layers, and depth is {depth}. Choose 10, 16, 22, "
            "28, 34 or 40."
        )
    inputs = 16
    layers: list[nn.Module] = [Convolution(channels, inputs, 3)]
    for stage in range(3):
        outs = 16 * width * 2**stage
        for number in range(count):
            stride = 2 if stage and not number else 1
            layers.append(PreActivationBlock(inputs, outs, stride, dropout))
            inputs = outs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(), GlobalAverage(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)
