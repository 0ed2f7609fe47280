"""The student linearised at one point, z(θ + v) ≈ z + J v, with its forward pass kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .. import params as p
from ..errors import BadInput
from ..kernels.convolution import conv2d
from ..problem import Composed
from ..types import Batch, Params


@dataclass(frozen=True)
class Linearised:
    """One forward pass of the student, and what products with its Jacobian J = ∂z/∂θ need of it.

    Attributes:
        inner: The loss whose outputs z are.
        theta: The point.
        phi: The commentary.
        batch: The examples.
        z: The outputs, with a graph to whatever requires grad.
        lesson: What comes with them.
        kept: Outputs of the student's convolutions and linear layers, in their order.
    """

    inner: Composed
    theta: Params
    phi: Params
    batch: Batch
    z: Tensor
    lesson: Any
    kept: list[Kept]

    def push_forward(self, v: Params) -> Tensor:
        """J v by forward mode, (n, ...) as z: ⅔ of a gradient, as no layer is evaluated again."""
        theta, phi = p.detach(self.theta), p.detach(self.phi)
        with torch.no_grad(), forward_ad.dual_level(), Replay(self.kept) as replay:
            dual = {k: forward_ad.make_dual(value, v[k]) for k, value in theta.items()}
            z, _ = self.inner.outputs(dual, phi, self.batch)
            moved = forward_ad.unpack_dual(z).tangent
            replay.check()
            return torch.zeros_like(self.z) if moved is None else moved.clone()

    def sees(self, inputs: Params) -> bool:
        """Whether z depends on any of some tensors: its graph says so, without a pass."""
        edges = [get_gradient_edge(value) for value in inputs.values() if value.requires_grad]
        wanted = {edge.node for edge in edges}
        nodes = [get_gradient_edge(self.z).node] if self.z.requires_grad else []
        seen = set(nodes)
        while nodes:
            node = nodes.pop()
            if node in wanted:
                return True
            following = {n for n, _ in node.next_functions if n is not None} - seen
            seen |= following
            nodes += following
        return False

    def without_graph(self) -> Linearised:
        """What `push_forward` needs, and no more."""
        return replace(self, theta=p.detach(self.theta), z=self.z.detach(), lesson=None)


def linearise(inner: Composed, theta: Params, phi: Params, batch: Batch) -> Linearised:
    """One forward pass, live to whatever of θ and φ requires grad."""
    kept: list[Kept] = []
    with Record(kept):
        z, lesson = inner.outputs(theta, phi, batch)
    return Linearised(inner, theta, phi, batch, z, lesson, kept)


@dataclass(frozen=True)
class Kept:
    """A layer's output, and its version: an activation that works in place would spoil it."""

    value: Tensor
    version: int

    @property
    def intact(self) -> bool:
        """Whether nothing wrote to it since."""
        return self.value._version == self.version


class Record(TorchFunctionMode):
    """Keeps the output of every linear layer."""

    def __init__(self, kept: list[Kept]):
        super().__init__()
        self._kept = kept

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Calls, and keeps what comes out of the functions in the table below."""
        out = func(*args, **(kwargs or {}))
        if func in _LINEAR:
            self._kept.append(Kept(out.detach(), out._version))
        return out


class Replay(TorchFunctionMode):
    """In forward mode, uses the kept outputs of linear layers and computes their tangents alone."""

    def __init__(self, kept: list[Kept]):
        super().__init__()
        self._rest: Iterator[Kept] = iter(kept)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """A kept output with the tangent f(ẋ, w) + f(x, ẇ) + ḃ of the functions in the table."""
        kwargs = kwargs or {}
        if func not in _LINEAR:
            return func(*args, **kwargs)
        kept = next(self._rest, None)
        if kept is None:
            raise _differs()
        if not kept.intact:
            return func(*args, **kwargs)
        return _tangent(func, kept.value, *args, **kwargs)

    def check(self) -> None:
        """Refuses a pass that had fewer linear layers than the one recorded."""
        if next(self._rest, None) is not None:
            raise _differs()


def _tangent(
    func: Callable[..., Tensor],
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,
    **more: Any,
) -> Tensor:
    x, x_moved = forward_ad.unpack_dual(input)
    w, w_moved = forward_ad.unpack_dual(weight)
    b_moved = None if bias is None else forward_ad.unpack_dual(bias).tangent
    total = None
    if x_moved is not None:
        total = func(x_moved, w, None, *rest, **more)
    if w_moved is not None or b_moved is not None:
        w_moved = torch.zeros_like(w) if w_moved is None else w_moved
        own = func(x, w_moved, b_moved, *rest, **more)
        total = own if total is None else total + own
    return out if total is None else forward_ad.make_dual(out, total)


def _differs() -> BadInput:
    return BadInput(
        "Two passes of the student on one batch ran different layers, so it is not a function of "
        "θ alone. Draw everything random from batch.seed."
    )


_LINEAR = {
    functional.linear,
    conv2d,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
}
