"""The linear layers of a forward pass, found where they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..kernels.convolution import conv2d
from ..types import Params


class Call(NamedTuple):
    """One use of a weight.

    Attributes:
        inputs: -> (groups, n, positions, d).
        spread: Gradient of the outputs -> (groups, n, positions, o).
        output: Where the gradient of the outputs is taken, whatever is done to them in place.
        weight: The weight's name.
        bias: The bias's name, where it is trained.
        groups: Of a convolution.
    """

    inputs: Callable[[], Tensor]
    spread: Callable[[Tensor], Tensor]
    output: GradientEdge
    weight: str
    bias: str | None
    groups: int


class Layer(NamedTuple):
    """A weight, the bias that goes with it, and every use of both."""

    weight: str
    bias: str | None
    calls: list[Call]


class LinearLayers(TorchFunctionMode):
    """Notes every call of a linear map with a trained weight."""

    def __init__(self, theta: Params):
        super().__init__()
        self._names = {id(value): name for name, value in theta.items()}
        self._calls: list[Call] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the function, and notes it if it is one of the table below."""
        out = func(*args, **(kwargs or {}))
        if func in _LAYERS:
            weight, bias, groups, inputs, spread = _LAYERS[func](*args, **(kwargs or {}))
            name = self._names.get(id(weight))
            if name is not None:
                own = self._names.get(id(bias))
                edge = get_gradient_edge(out)
                self._calls.append(Call(inputs, spread, edge, name, own, groups))
        return out

    def layers(self) -> list[Layer]:
        """The calls by weight. A bias belongs to a weight that is never used without it."""
        users: dict[str | None, set[str]] = {}
        partners: dict[str, set[str | None]] = {}
        for call in self._calls:
            users.setdefault(call.bias, set()).add(call.weight)
            partners.setdefault(call.weight, set()).add(call.bias)
        layers = []
        for weight, biases in partners.items():
            (bias,) = biases if len(biases) == 1 else (None,)
            own = bias if len(users.get(bias, ())) == 1 else None
            layers.append(Layer(weight, own, [c for c in self._calls if c.weight == weight]))
        return layers


_Parts = tuple[Tensor, Tensor | None, int, Callable[[], Tensor], Callable[[Tensor], Tensor]]
"""Weight, bias, groups, and the first two entries of a `Call`."""


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> _Parts:
    def rows(value: Tensor) -> Tensor:
        return value.reshape(1, value.shape[0], -1, value.shape[-1])

    return weight, bias, 1, lambda: rows(x.detach()), rows


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> _Parts:
    kernel = weight.shape[2:]

    def rows(value: Tensor) -> Tensor:  # (n, groups · d, positions)
        return value.unflatten(1, (groups, -1)).permute(1, 0, 3, 2)

    def patches() -> Tensor:
        image, around = x.detach(), padding
        if isinstance(padding, str):  # "same" puts the odd one behind; "valid" pads nothing
            spread = dilation if isinstance(dilation, tuple) else (dilation, dilation)
            total = [d * (k - 1) * (padding == "same") for d, k in zip(spread, kernel, strict=True)]
            (top, left), (height, width) = [t // 2 for t in total], total
            image, around = functional.pad(image, (left, width - left, top, height - top)), 0
        return rows(functional.unfold(image, kernel, dilation, around, stride))

    return weight, bias, groups, patches, lambda gradient: rows(gradient.flatten(2))


_LAYERS: dict[Any, Callable[..., _Parts]] = {
    functional.linear: _linear,
    functional.conv2d: _conv2d,
    conv2d: _conv2d,
}
