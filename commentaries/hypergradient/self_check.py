"""Whether a hypergradient means anything on a problem: methods against a reference on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .. import params as p
from .. import tree
from ..curvature import Curvature, GaussNewton, Hessian
from ..errors import BadInput, NonFinite, NotConverged, check_positive
from ..inner.optimizer import step
from ..problem import Bilevel, Composed
from ..solvers import ConjugateGradient, Dense, Neumann
from ..types import Batch, Params
from .implicit import Implicit
from .residual import Residual
from .result import Hypergradient, Optimizer, check_inputs, optimizer_at

DENSE_LIMIT = 2_000
"""Students of up to this many parameters have a dense reference by default."""


@dataclass(frozen=True)
class Row:
    """One method after some training steps.

    Attributes:
        method: Its name.
        steps: Training steps before L_V was taken.
        stationarity: ‖F‖ there, which the implicit function theorem takes for zero; None for
            methods that do not need it.
        cosine: With the reference; None where the method failed.
        norm_ratio: Its norm over the reference's.
        relative_residual: Of its linear system, where that was measured.
        products: With the curvature.
        failure: What it raised.
    """

    method: str
    steps: int
    stationarity: float | None = None
    cosine: float | None = None
    norm_ratio: float | None = None
    relative_residual: float | None = None
    products: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Check:
    """What `check` found; printed, a table.

    Attributes:
        rows: One for each method and number of steps.
        reference: What the methods were compared with.
        largest: The largest |eigenvalue| of the curvature, from power iterations.
        step_size: 1 / largest, a Neumann step size for which no positive eigenvalue diverges.
    """

    rows: tuple[Row, ...]
    reference: str
    largest: float
    step_size: float

    def __str__(self) -> str:
        """The table, and what to take from it."""
        head = ("method", "steps", "‖F‖", "cosine", "norm ratio", "residual", "products")
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            numbers = (row.cosine, row.norm_ratio, row.relative_residual)
            lines.append(
                (
                    row.method,
                    str(row.steps),
                    "" if row.stationarity is None else f"{row.stationarity:.2g}",
                    *("" if number is None else f"{number:.3g}" for number in numbers),
                    "" if row.products is None else str(row.products),
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        text += [
            f"{row.method}, {row.steps} steps: {row.failure}" for row in self.rows if row.failure
        ]
        text.append(
            f"Reference: {self.reference}. Largest curvature {self.largest:.3g}: "
            f"a Neumann step size up to {self.step_size:.3g}."
        )
        return "\n".join(text)


def check(
    problem: Bilevel,
    optimizer: Optimizer,
    theta: Params,
    phi: Params,
    *,
    inner: Sequence[Batch],
    outer: Batch,
    methods: Mapping[str, Hypergradient] | None = None,
    reference: Literal["dense", "longer", "differences"] | Hypergradient | None = None,
    curvature: Curvature | None = None,
    steps: Sequence[int] | None = None,
    state: Any = None,
    directions: int = 8,
    iterations: int = 20,
    seed: int = 0,
) -> Check:
    """Compares hypergradients with a reference at several points of one training run.

    Args:
        problem: The inner and the outer loss.
        optimizer: How the student steps.
        theta: Student parameters at the start.
        phi: Commentary parameters.
        inner: One batch a training step.
        outer: The validation batch.
        methods: By the names they get in the table. By default implicit ones: Neumann with 1, 5
            and 20 terms of the recommended step size, and 20 iterations of conjugate gradients.
        reference: "dense": the system of the last point, factorised. "longer": solved by up to
            500 iterations of conjugate gradients. "differences": central differences of training
            itself along random directions of φ, which ask nothing of the last point. Or a method
            of one's own. By default dense for small students, else longer.
        curvature: Of the default methods, the reference and the step size. By default
            Gauss–Newton where the loss shows its outputs, else the Hessian.
        steps: After how many steps to compare: a quarter, half and all by default.
        state: The optimiser's state at the start; fresh by default.
        directions: Of the central differences; the cosine is that of the slopes along them.
        iterations: Power iterations for the step size.
        seed: Of the directions and the power iteration.

    Raises:
        BadInput: No inner batch, no φ, or steps out of range.
        NotConverged: The reference's system has no solution that could be trusted.
    """
    check_inputs(inner, phi)
    check_positive("directions", directions)
    check_positive("iterations", iterations)
    curvature = curvature or (GaussNewton() if isinstance(problem.inner, Composed) else Hessian())
    stops = sorted({*steps} if steps else {-(-len(inner) // part) for part in (4, 2, 1)})
    if not 0 < stops[0] <= stops[-1] <= len(inner):
        raise BadInput(
            f"steps is {stops}, but each must be from 1 to {len(inner)}, the number of inner "
            "batches. Pass more batches."
        )
    generator = torch.Generator().manual_seed(seed)
    run = _Run(problem, optimizer, theta, phi, inner, outer, state)
    largest = run.largest_eigenvalue(curvature, iterations, generator)
    if reference is None:
        small = sum(value.numel() for value in theta.values()) <= DENSE_LIMIT
        reference = "dense" if small else "longer"
    step_size = 1 / largest if largest else 1.0
    if methods is None:
        methods = {f"Neumann, {k}": Implicit(Neumann(k, step_size), curvature) for k in (1, 5, 20)}
        methods["conjugate gradients, 20"] = Implicit(ConjugateGradient(20), curvature)

    along = None
    if reference == "differences":
        along = [p.random_like(phi, generator) for _ in range(directions)]
    rows = []
    for stop in stops:
        if along is not None:
            truth = run.slopes(along, stop)
        else:
            truth = p.flatten(run(_reference(reference, curvature), stop).value).double()
        rows += [_row(name, method, run, stop, truth, along) for name, method in methods.items()]
    name = reference if isinstance(reference, str) else type(reference).__name__
    return Check(tuple(rows), name, largest, step_size)


def _reference(reference: Any, curvature: Curvature) -> Hypergradient:
    if reference == "dense":
        return Implicit(Dense(), curvature)
    if reference == "longer":
        return Implicit(ConjugateGradient(500, 1e-8), curvature)
    return reference


def _row(
    name: str,
    method: Hypergradient,
    run: _Run,
    steps: int,
    truth: Tensor,
    along: list[Params] | None,
) -> Row:
    try:
        result = run(method, steps)
    except (NotConverged, NonFinite) as error:
        return Row(name, steps, failure=str(error))
    if along is None:
        found = p.flatten(result.value).double()
    else:
        found = torch.stack([p.dot(result.value, u) for u in along]).double()
    tiny = torch.finfo(torch.float64).tiny
    size, other = found.norm(), truth.norm().clamp_min(tiny)
    known = result.diagnostics
    residual, F, products = (
        known.get(key) for key in ("relative_residual", "stationarity", "products")
    )
    return Row(
        name,
        steps,
        stationarity=None if F is None else float(F),
        cosine=float(found @ truth / (size.clamp_min(tiny) * other)),
        norm_ratio=float(size / other),
        relative_residual=None if residual is None else float(residual),
        products=None if products is None else int(products),
    )


@dataclass(frozen=True)
class _Run:
    """The training run that everything is measured on."""

    problem: Bilevel
    optimizer: Optimizer
    theta: Params
    phi: Params
    inner: Sequence[Batch]
    outer: Batch
    state: Any

    def __call__(self, method: Hypergradient, steps: int) -> Any:
        return method(
            self.problem,
            self.optimizer,
            self.theta,
            self.phi,
            inner=self.inner[:steps],
            outer=self.outer,
            state=self.state,
        )

    def walk(self, phi: Params, steps: int) -> tuple[Params, Any]:
        """θ and the state after some plain steps."""
        optimizer = optimizer_at(self.optimizer, phi)
        theta = p.detach(self.theta)
        state = optimizer.init(theta) if self.state is None else tree.detach(self.state)
        for batch in self.inner[:steps]:
            grad_fn = Hessian()(self.problem.inner, phi, batch)
            theta, state, _ = step(optimizer, grad_fn, theta, state)
        return theta, state

    def slopes(self, along: list[Params], steps: int) -> Tensor:
        """dL_V/dφ · u by central differences of training, for each direction u."""
        phi = p.detach(self.phi)
        size = max(float(p.norm(phi)), 1.0)
        cube_root = torch.finfo(next(iter(phi.values())).dtype).eps ** (1 / 3)

        def loss(at: Params) -> Tensor:
            theta, _ = self.walk(at, steps)
            return self.problem.outer(theta, at, self.outer).double()

        found = []
        with torch.no_grad():
            for u in along:
                h = cube_root * size / float(p.norm(u))
                found.append((loss(p.add(phi, u, h)) - loss(p.add(phi, u, -h))) / (2 * h))
        return torch.stack(found)

    def largest_eigenvalue(
        self, curvature: Curvature, iterations: int, generator: torch.Generator
    ) -> float:
        """max |λ| of ∂F/∂θ before the last step, from below, by power iterations."""
        theta, state = self.walk(p.detach(self.phi), len(self.inner) - 1)
        F = Residual(
            curvature,
            self.problem.inner,
            self.optimizer,
            theta,
            p.live(self.phi),
            self.inner[-1],
            state,
        )
        v = p.random_like(theta, generator)
        size = 0.0
        for _ in range(iterations):
            v = p.scale(v, 1 / p.norm(v))
            v = F.product(v)
            size = float(p.norm(v))
            if size == 0:
                break
        return size
