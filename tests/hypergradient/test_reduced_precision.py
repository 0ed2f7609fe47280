"""bfloat16 inside the student, float32 outside: products near the exact ones, in float32."""

import pytest
import torch
from oracles import relative_error
from torch import nn

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, judged, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SAM, SGD, Adam
from commentaries.problem import Bilevel, Composed, autocast
from commentaries.solvers import Neumann
from commentaries.student import Student
from commentaries.types import Batch


def case():
    student = Student(
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
        )
    )
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    batch = Batch(
        torch.randn(16, 1, 6, 6, generator=g),
        torch.randint(3, (16,), generator=g),
        torch.arange(16),
    )
    problem = Bilevel(taught(student, ExampleWeights(Table(16))), judged(student))
    return problem, theta, {"logits": torch.randn(16, generator=g)}, batch


def types_inside(loss, theta, phi, batch):
    """The types of matrix products and convolutions."""
    seen = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.addmm.default, torch.ops.aten.convolution.default):
                seen.add(out.dtype)
            return out

    with Watch():
        loss(theta, phi, batch)
    return seen


def test_the_student_runs_in_bfloat16_and_the_loss_is_float32():
    problem, theta, phi, batch = case()
    reduced = autocast(problem)
    for loss in (reduced.inner, reduced.outer):
        assert isinstance(loss, Composed)
        assert types_inside(loss, theta, phi, batch) == {torch.bfloat16}
        assert loss(theta, phi, batch).dtype == torch.float32
        assert loss.outputs(theta, phi, batch)[0].dtype == torch.float32
    assert types_inside(problem.inner, theta, phi, batch) == {torch.float32}
    plain = Bilevel(lambda *a: problem.inner(*a), lambda *a: problem.outer(*a))
    assert types_inside(autocast(plain).inner, theta, phi, batch) == {torch.bfloat16}
    assert autocast(plain).outer(theta, phi, batch).dtype == torch.float32


@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gn"])
def test_products_are_near_and_in_float32(curvature):
    problem, theta, phi, batch = case()
    v = p.random_like(theta, torch.Generator().manual_seed(2))
    found = []
    for inner in (problem.inner, autocast(problem).inner):
        at, on = p.live(theta), p.live(phi)
        gradient, _ = curvature(inner, on, batch)(at)
        found.append((gradient, p.pull_back(gradient, v, at), p.pull_back(gradient, v, on)))
    for exact, near in zip(*found, strict=True):
        assert {value.dtype for value in near.values()} == {torch.float32}
        assert 1e-5 < relative_error(p.detach(near), p.detach(exact)) < 0.05


@pytest.mark.parametrize(
    "method",
    [
        Implicit(Neumann(1, 1.0, measure_residual=False)),
        Implicit(Neumann(5, 0.1)),
        Implicit(Neumann(5, 0.1), GaussNewton()),
        Implicit(Neumann(2, 0.1), FiniteDifference(0.1)),
        Unrolled(),
        Unrolled(every="sqrt"),
    ],
)
@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.01, eps=1e-3), SAM(SGD(0.1), 0.1)])
def test_hypergradients_are_near_and_in_float32(method, optimizer):
    problem, theta, phi, batch = case()
    call = {"inner": [batch] * 3, "outer": batch}
    exact = method(problem, optimizer, theta, phi, **call)
    near = method(autocast(problem), optimizer, theta, phi, **call)
    assert near.value["logits"].dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in (near.theta | near.adjoint).values())
    assert 1e-6 < relative_error(near.value, exact.value) < 0.15
    again = method(autocast(problem), optimizer, theta, phi, **call)
    assert torch.equal(near.value["logits"], again.value["logits"])
