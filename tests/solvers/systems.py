"""Linear systems with a known solution."""

import torch
from oracles import flat, shaped

SHAPES = [
    {"a": (2, 3), "b": (4,)},
    {"w": (3, 3), "bias": (3,), "scale": ()},
    {"z": (2, 2, 2), "a": (1,)},
]


class System:
    """A x = b with a known x; ``calls`` counts the products."""

    def __init__(self, matrix, shapes, seed, dtype=torch.float64):
        g = torch.Generator().manual_seed(seed)
        self.matrix = matrix.to(dtype)
        self.like = {k: torch.zeros(s, dtype=dtype) for k, s in shapes.items()}
        self.x = shaped(torch.randn(len(matrix), generator=g, dtype=torch.float64), self.like)
        self.x = {k: v.to(dtype) for k, v in self.x.items()}
        self.b = self.apply(self.x)
        self.calls = 0

    def apply(self, v):
        return shaped(self.matrix @ flat(v), self.like)

    def product(self, v):
        self.calls += 1
        return self.apply(v)

    def true_residual(self, x):
        return float((self.matrix @ flat(x) - flat(self.b)).norm() / flat(self.b).norm())


def size(shapes):
    return sum(torch.Size(s).numel() for s in shapes.values())


def orthogonal(n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0]


def positive(shapes, seed, condition=30.0, top=1.0):
    """Eigenvalues from top / condition to top."""
    n = size(shapes)
    Q = orthogonal(n, seed)
    eigenvalues = top * torch.logspace(0, 1, n, base=1 / condition, dtype=torch.float64)
    return System(Q @ torch.diag(eigenvalues) @ Q.mT, shapes, seed + 1)


def contracting(shapes, seed):
    """Not symmetric; I - A has norm ½."""
    n = size(shapes)
    g = torch.Generator().manual_seed(seed)
    M = torch.randn(n, n, generator=g, dtype=torch.float64)
    return System(
        torch.eye(n, dtype=torch.float64) - M / (2 * torch.linalg.matrix_norm(M, 2)),
        shapes,
        seed + 1,
    )
