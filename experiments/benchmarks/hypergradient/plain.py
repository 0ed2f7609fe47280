"""One problem of example weights, for us and in ordinary PyTorch for the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from commentaries.commentary import ExampleWeights, Table, judged, taught
from commentaries.inner import SGD
from commentaries.problem import Bilevel
from commentaries.student import Student
from commentaries.types import Batch, Params

Matrix = Literal["Hessian", "Gauss-Newton"]


@dataclass
class Plain:
    """A network, its weighted training loss and its validation loss, without the library.

    L_T = Σ_i w_i ℓ_i + ½ decay ‖θ‖² with w = sigmoid(φ) / Σ sigmoid(φ); L_V is the mean of ℓ.

    Attributes:
        network: In training mode, without running statistics; its parameters are θ.
        logits: φ, (n,), which requires grad.
        x: (n, ...) training inputs.
        y: (n,) their labels.
        outer_x: Validation inputs.
        outer_y: Their labels.
        decay: The student's weight decay.
        lr: Of the student's plain gradient step.
        matrix: What the linear system is of. "Gauss-Newton": the peers differentiate Jᵀ∇_zℓ with a
            constant J, so that everybody solves the same system.
    """

    network: nn.Module
    logits: Tensor
    x: Tensor
    y: Tensor
    outer_x: Tensor
    outer_y: Tensor
    decay: float
    lr: float
    matrix: Matrix = "Hessian"

    def __post_init__(self) -> None:
        self._names = [name for name, _ in self.network.named_parameters()]

    @property
    def theta(self) -> list[Tensor]:
        """θ, the network's own parameters."""
        return list(self.network.parameters())

    def outputs(self, theta: Sequence[Tensor]) -> Tensor:
        """The network at other parameters."""
        return functional_call(self.network, dict(zip(self._names, theta, strict=True)), (self.x,))

    def data_loss(self, z: Tensor, logits: Tensor) -> Tensor:
        """The weighted loss of outputs."""
        weights = torch.sigmoid(logits)
        losses = functional.cross_entropy(z, self.y, reduction="none")
        return (weights / weights.sum() * losses).sum()

    def inner(self) -> Tensor:
        """L_T at the network's parameters."""
        loss = self.data_loss(self.network(self.x), self.logits)
        return loss + self.decay / 2 * sum(value.square().sum() for value in self.theta)

    def outer(self) -> Tensor:
        """L_V at the network's parameters."""
        return functional.cross_entropy(self.network(self.outer_x), self.outer_y)

    def outer_gradient(self) -> list[Tensor]:
        """b = ∂L_V/∂θ."""
        return list(torch.autograd.grad(self.outer(), self.theta))

    def residual(self) -> list[Tensor]:
        """F = ∂L_T/∂θ with a graph in θ and φ, whose derivative is the system's matrix."""
        theta = self.theta
        if self.matrix == "Hessian":
            return list(torch.autograd.grad(self.inner(), theta, create_graph=True))
        z = self.network(self.x)
        alias = z.view_as(z)
        (w,) = torch.autograd.grad(self.data_loss(alias, self.logits), alias, create_graph=True)
        fixed = [value.detach().requires_grad_() for value in theta]
        J = torch.autograd.grad(self.outputs(fixed), fixed, w, create_graph=True)
        return [g + self.decay * value for g, value in zip(J, theta, strict=True)]

    def functional_residual(self, theta: Sequence[Tensor], logits: Tensor) -> tuple[Tensor, ...]:
        """F as a pure function, for `torch.func`."""
        if self.matrix == "Hessian":

            def loss(at: tuple[Tensor, ...]) -> Tensor:
                return self.data_loss(self.outputs(at), logits)

            found = torch.func.grad(loss)(tuple(theta))
        else:
            w = torch.func.grad(self.data_loss)(self.outputs(theta), logits)
            fixed = tuple(value.detach() for value in self.theta)
            _, pull_back, *_ = torch.func.vjp(self.outputs, fixed)
            (found,) = pull_back(w)
        return tuple(g + self.decay * value for g, value in zip(found, theta, strict=True))

    def student_step(self) -> list[Tensor]:
        """θ after one step of plain gradient descent, as a training loop takes it."""
        gradient = torch.autograd.grad(self.inner(), self.theta)
        with torch.no_grad():
            return [value - self.lr * g for value, g in zip(self.theta, gradient, strict=True)]


@dataclass(frozen=True)
class Ours:
    """The same problem for the library.

    Attributes:
        problem: The inner and the outer loss.
        optimizer: How the student steps.
        theta: Student parameters.
        phi: The logits.
        inner: The training batch.
        outer: The validation batch.
    """

    problem: Bilevel
    optimizer: SGD
    theta: Params
    phi: Params
    inner: Batch
    outer: Batch

    def arguments(self) -> dict[str, Any]:
        """For a call of a hypergradient."""
        return {
            "problem": self.problem,
            "optimizer": self.optimizer,
            "theta": self.theta,
            "phi": self.phi,
            "inner": [self.inner],
            "outer": self.outer,
        }


def ours(plain: Plain) -> Ours:
    """The library's view of a plain problem, at the same tensors."""
    student = Student(plain.network)
    n = len(plain.y)
    every = torch.arange(n, device=plain.y.device)
    others = torch.arange(len(plain.outer_y), device=plain.y.device)
    return Ours(
        Bilevel(taught(student, ExampleWeights(Table(n))), judged(student)),
        SGD(plain.lr, weight_decay=plain.decay),
        {name: value.detach() for name, value in plain.network.named_parameters()},
        {"logits": plain.logits.detach()},
        Batch(plain.x, plain.y, every),
        Batch(plain.outer_x, plain.outer_y, others),
    )


def without_running_statistics(network: nn.Module) -> nn.Module:
    """Batch normalisation by the batch alone: what some peers cannot differentiate is gone."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return network


def digits(
    examples: int, outer: int, wrong: float, seed: int, device: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Handwritten digits, some training labels wrong: x (n, 64), y, validation x and y; float64."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(found.target), generator=generator)[: examples + outer]
    x = torch.tensor(found.data / 16)[order]
    y = torch.tensor(found.target)[order]
    flipped = torch.rand(examples, generator=generator) < wrong
    y[:examples][flipped] = torch.randint(10, (int(flipped.sum()),), generator=generator)
    x, y = x.to(device), y.to(device)
    return x[:examples], y[:examples], x[examples:], y[examples:]
