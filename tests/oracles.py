"""Independent references: problems with known answers, dense Jacobians, central differences.

Nothing here calls the library, except for its container `Batch`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from commentaries.types import Batch, Params


def flat(a: Params) -> Tensor:
    return torch.cat([value.reshape(-1) for value in a.values()])


def shaped(vector: Tensor, like: Params) -> Params:
    pieces = vector.split([value.numel() for value in like.values()])
    return {k: piece.reshape(v.shape) for (k, v), piece in zip(like.items(), pieces, strict=True)}


def relative_error(a: Params | Tensor, b: Params | Tensor) -> float:
    a = flat(a) if isinstance(a, dict) else a
    b = flat(b) if isinstance(b, dict) else b
    return float((a - b).norm() / b.norm())


def normal(like: Params, seed: int) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in like.items()
    }


def moved(a: Params, direction: Params, length: float) -> Params:
    return {k: v + length * direction[k] for k, v in a.items()}


def slope(function: Callable[[Params], Tensor], at: Params, along: Params, h: float) -> float:
    """Central difference of a scalar function along a direction."""
    above, below = function(moved(at, along, h)), function(moved(at, along, -h))
    return float((above - below) / (2 * h))


def numeric_gradient(function: Callable[[Params], Tensor], at: Params, h: float) -> Params:
    """Central differences entry by entry."""
    vector = flat(at)
    entries = []
    for unit in torch.eye(len(vector), dtype=vector.dtype):
        entries.append(slope(function, at, shaped(unit, at), h))
    return shaped(torch.tensor(entries, dtype=vector.dtype), at)


def numeric_jacobian(function: Callable[[Params], Params], at: Params, h: float) -> Tensor:
    """∂function/∂at by central differences, (outputs, inputs)."""
    vector = flat(at)
    columns = []
    for unit in torch.eye(len(vector), dtype=vector.dtype):
        above = flat(function(shaped(vector + h * unit, at)))
        below = flat(function(shaped(vector - h * unit, at)))
        columns.append((above - below) / (2 * h))
    return torch.stack(columns, dim=1)


def dense_jacobian(function: Callable[[Params], Params], at: Params) -> Tensor:
    """∂function/∂at by `torch.func.jacrev`, (outputs, inputs)."""
    return torch.func.jacrev(lambda vector: flat(function(shaped(vector, at))))(flat(at))


@dataclass
class WeightedRegression:
    """A linear model with example weights sigmoid(φ): everything about it by hand.

    L_T = (1/n) Σ sigmoid(φ_i) ℓ_i(θ) + ½ decay ‖θ‖², with the decay left to the optimiser.
    """

    kind: str
    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor
    decay: float

    @property
    def inner_batch(self) -> Batch:
        return Batch(self.x, self.y, torch.arange(len(self.y)))

    @property
    def outer_batch(self) -> Batch:
        return Batch(self.x_valid, self.y_valid, torch.arange(len(self.y_valid)))

    def losses(self, z: Tensor, y: Tensor) -> Tensor:
        if self.kind == "ridge":
            return (z - y).square().sum(1)
        return functional.cross_entropy(z, y, reduction="none")

    def inner(self, theta: Params, phi: Params, batch: Batch) -> Tensor:
        weights = torch.sigmoid(phi["w"])[batch.index]
        return (weights * self.losses(batch.x @ theta["t"], batch.y)).mean()

    def outer(self, theta: Params, phi: Params, batch: Batch) -> Tensor:
        return self.losses(batch.x @ theta["t"], batch.y).mean()

    def _gradients(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """∂ℓ_i/∂z_i, (n, outputs)."""
        z = x @ theta
        if self.kind == "ridge":
            return 2 * (z - y)
        return z.softmax(1) - functional.one_hot(y, z.shape[1])

    def stationarity(self, theta: Tensor, phi: Tensor) -> Tensor:
        """F, of the shape of θ."""
        weighted = torch.sigmoid(phi)[:, None] * self._gradients(theta, self.x, self.y)
        return self.x.T @ weighted / len(self.x) + self.decay * theta

    def hessian(self, theta: Tensor, phi: Tensor) -> Tensor:
        n, (d, c) = len(self.x), theta.shape
        if self.kind == "ridge":
            blocks = 2 * torch.eye(c, dtype=theta.dtype).expand(n, c, c)
        else:
            prob = (self.x @ theta).softmax(1)
            blocks = torch.diag_embed(prob) - prob[:, :, None] * prob[:, None, :]
        weight = torch.sigmoid(phi)
        H = torch.einsum("n,nab,ni,nj->iajb", weight, blocks, self.x, self.x) / n
        return H.reshape(d * c, d * c) + self.decay * torch.eye(d * c, dtype=theta.dtype)

    def optimum(self, phi: Tensor) -> Params:
        """θ*(φ) by Newton's method."""
        outputs = self.y.shape[1] if self.kind == "ridge" else int(self.y.max()) + 1
        theta = torch.zeros(self.x.shape[1], outputs, dtype=torch.float64)
        for _ in range(30):
            F = self.stationarity(theta, phi)
            theta = theta - torch.linalg.solve(self.hessian(theta, phi), F.reshape(-1)).reshape_as(
                F
            )
        assert self.stationarity(theta, phi).norm() < 1e-14
        return {"t": theta}

    def outer_gradient(self, theta: Tensor) -> Tensor:
        return (
            self.x_valid.T @ self._gradients(theta, self.x_valid, self.y_valid) / len(self.x_valid)
        )

    def hypergradient(self, phi: Tensor) -> Params:
        """-(∂F/∂φ)ᵀ H⁻¹ ∂L_V/∂θ at the optimum."""
        theta = self.optimum(phi)["t"]
        x = torch.linalg.solve(
            self.hessian(theta, phi), self.outer_gradient(theta).reshape(-1)
        ).reshape_as(theta)
        weight = torch.sigmoid(phi)
        # ∂F/∂φ_i = w_i (1 - w_i) x_i g_iᵀ / n
        inner = ((self.x @ x) * self._gradients(theta, self.x, self.y)).sum(1)
        return {"w": -weight * (1 - weight) * inner / len(self.x)}

    def retrained_loss(self, phi: Tensor) -> Tensor:
        theta = self.optimum(phi)
        return self.outer(theta, {"w": phi}, self.outer_batch)


def weighted_regression(kind: str, *, decay: float = 0.3, spread: float = 1.0):
    """A problem and φ; ``spread`` < 1 shrinks later features, so that H is ill-conditioned."""
    g = torch.Generator().manual_seed(7)
    n, m, d, c = 24, 15, 4, 3
    x = torch.randn(n, d, generator=g, dtype=torch.float64) * spread ** torch.arange(d)
    x_valid = torch.randn(m, d, generator=g, dtype=torch.float64) * spread ** torch.arange(d)
    truth = torch.randn(d, c, generator=g, dtype=torch.float64)
    z, z_valid = x @ truth, x_valid @ truth
    noise = torch.randn(n, c, generator=g, dtype=torch.float64)
    if kind == "ridge":
        y, y_valid = z + noise, z_valid
    else:
        y, y_valid = (z + 2 * noise).argmax(1), z_valid.argmax(1)
    phi = torch.randn(n, generator=g, dtype=torch.float64)
    return WeightedRegression(kind, x, y, x_valid, y_valid, decay), phi


@dataclass
class TanhNetwork:
    """A two-layer tanh classifier written in plain arithmetic, on twelve examples."""

    x: Tensor
    y: Tensor
    x_valid: Tensor
    y_valid: Tensor

    def outputs(self, theta: Params, x: Tensor) -> Tensor:
        hidden = torch.tanh(x @ theta["0.weight"].mT + theta["0.bias"])
        return hidden @ theta["2.weight"].mT + theta["2.bias"]

    def losses(self, theta: Params, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(self.outputs(theta, x), y, reduction="none")

    def inner(self, theta: Params, phi: Params, batch: Batch) -> Tensor:
        weights = torch.sigmoid(phi["w"])[batch.index]
        return (weights * self.losses(theta, batch.x, batch.y)).mean()

    def outer(self, theta: Params, phi: Params, batch: Batch) -> Tensor:
        return self.losses(theta, batch.x, batch.y).mean()

    def batches(self, count: int, size: int = 6) -> list[Batch]:
        g = torch.Generator().manual_seed(11)
        picks = [torch.randperm(len(self.y), generator=g)[:size] for _ in range(count)]
        return [Batch(self.x[i], self.y[i], i, seed=k) for k, i in enumerate(picks)]

    @property
    def everything(self) -> Batch:
        return Batch(self.x, self.y, torch.arange(len(self.y)))

    @property
    def validation(self) -> Batch:
        return Batch(self.x_valid, self.y_valid, torch.arange(len(self.y_valid)))


def tanh_network(hidden: int = 4) -> tuple[TanhNetwork, Params, Params]:
    """The problem, θ and φ."""
    g = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    network = TanhNetwork(
        draw(12, 3),
        torch.randint(3, (12,), generator=g),
        draw(8, 3),
        torch.randint(3, (8,), generator=g),
    )
    theta = {
        "0.weight": draw(hidden, 3),
        "0.bias": draw(hidden),
        "2.weight": draw(3, hidden),
        "2.bias": draw(3),
    }
    return network, theta, {"w": draw(12)}
