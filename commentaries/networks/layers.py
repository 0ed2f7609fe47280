"""What several networks are made of."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import BadInput, check_positive
from ..kernels.pooled_norm import pooled_batch_norm


class Convolution(nn.Conv2d):
    """A convolution without bias that keeps the size (up to the stride), drawn as by He et al.

    Weights are normal with variance 2 / (outputs · kernel²), which keeps the variance of the
    gradient through ReLU layers (He et al. 2015, eq. 14).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        kernel: Odd side of the kernel.
        stride: Of the convolution.
        bias: Whether it has one, zero at first; a normalisation after it has its own.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = False
    ):
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)

    def reset_parameters(self) -> None:
        """Draws the weights anew."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation and 2 x 2 max-pooling: (n, channels, h, w) -> (n, channels, h/2, w/2).

    As the two layers one after the other; within a `Student` the maxima are found first, for less
    time and memory (`commentaries.kernels.pooled_norm`).
    """

    def forward(self, input: Tensor) -> Tensor:
        """The maxima of the normalised input."""
        return pooled_batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training or self.running_mean is None,
            momentum=self.momentum or 0.0,
            eps=self.eps,
        )


class GlobalAverage(nn.Module):
    """The mean over all pixels: (n, channels, h, w) -> (n, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean((2, 3))


def check_images(network: str, size: int, least: int, **counts: int) -> None:
    """Refuses images that are smaller than a network's stride, and counts that are not positive.

    Args:
        network: Its name.
        size: Height and width of the images.
        least: The smallest that the network takes.
        counts: Channels, outputs, width, by name.
    """
    for name, value in counts.items():
        check_positive(name, value)
    if size < least:
        raise BadInput(
            f"{network} takes images of at least {least} x {least} pixels, and these are "
            f"{size} x {size}. Resize them, or choose small_cnn."
        )
