"""Conjugate gradients where they can go wrong: warm starts, indefinite and singular systems."""

import pytest
import torch
from oracles import flat, relative_error, shaped
from systems import SHAPES, System, orthogonal, positive

from commentaries.errors import NotConverged
from commentaries.solvers import ConjugateGradient

SHAPE = {"a": (5,)}


def diagonal(*eigenvalues, dtype=torch.float64):
    return System(torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)), SHAPE, 0, dtype)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_against_the_dense_inverse(condition, warm, preconditioned):
    system = positive(SHAPES[1], 3, condition)
    diagonal = system.matrix.diagonal()
    solution = ConjugateGradient(80, 1e-12)(
        system.product,
        system.b,
        {k: v + 0.1 for k, v in system.x.items()} if warm else None,
        (lambda v: shaped(flat(v) / diagonal, system.like)) if preconditioned else None,
    )
    expected = torch.linalg.inv(system.matrix) @ flat(system.b)
    assert solution.converged
    assert relative_error(solution.value, expected) < 1e-11 * condition
    assert solution.products == system.calls


def test_a_close_warm_start_saves_products():
    system = positive(SHAPES[0], 4, condition=1e3)
    solver = ConjugateGradient(50, 1e-5)
    near = {k: v + 1e-4 * torch.ones_like(v) for k, v in system.x.items()}
    cold, warm = solver(system.product, system.b), solver(system.product, system.b, near)
    assert warm.products + 2 < cold.products


def test_negative_curvature_in_the_first_direction_leaves_a_good_warm_start():
    system = diagonal(1.0, 0.9, 0.8, 0.7, -0.5)
    start = {"a": system.x["a"].clone()}
    start["a"][4] += 1e-3  # the remainder lies along the negative eigenvector
    solution = ConjugateGradient(20, 1e-9)(system.product, system.b, start)
    assert torch.equal(solution.value["a"], start["a"])
    assert solution.negative_curvature
    assert not solution.converged
    assert float(solution.relative_residual) == pytest.approx(
        system.true_residual(start), rel=1e-10
    )
    start["a"][4] += 1e3
    with pytest.raises(NotConverged, match="negative curvature"):
        ConjugateGradient(20, 1e-9)(system.product, system.b, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_singular_system_without_a_solution_raises(seed, dtype):
    Q = orthogonal(10, seed)
    eigenvalues = torch.linspace(0.3, 1, 10, dtype=torch.float64)
    eigenvalues[:3] = 0
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, SHAPES[0], 0, dtype)
    b = shaped(torch.ones(10, dtype=dtype), system.like)
    with pytest.raises(NotConverged, match=r"singular .*weight decay to the student\.$"):
        ConjugateGradient(60, 1e-9)(system.product, b)
    assert ConjugateGradient(60, 1e-5, damping=0.1)(system.product, b).converged


def test_a_singular_system_with_a_solution_finds_one():
    system = diagonal(1.0, 0.5, 0.25, 0.0, 0.0)
    solution = ConjugateGradient(20, 1e-10)(system.product, system.b)
    assert solution.converged
    expected = system.x["a"] * torch.tensor([1.0, 1, 1, 0, 0], dtype=torch.float64)
    assert relative_error(solution.value, expected) < 1e-9  # the shortest one


@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_a_preconditioner_that_is_not_positive_definite_raises(sign):
    system = positive(SHAPES[0], 4)
    with pytest.raises(NotConverged, match=r"The preconditioner is not positive definite"):
        ConjugateGradient()(
            system.product, system.b, None, lambda v: {k: sign * x for k, x in v.items()}
        )


def test_the_measured_residual_is_the_true_one_in_single_precision():
    Q = orthogonal(10, 5)
    eigenvalues = torch.logspace(0, -4, 10, dtype=torch.float64)
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, SHAPES[0], 4, torch.float32)
    # along the smallest eigenvalues: x is long, and A x is a sum that cancels
    system.b = shaped((Q @ eigenvalues.flip(0)).float(), system.like)
    carried = ConjugateGradient(60, 1e-5)(system.product, system.b)
    system.calls = 0
    measured = ConjugateGradient(60, 1e-5, measure_residual=True)(system.product, system.b)
    assert torch.equal(flat(carried.value), flat(measured.value))
    assert measured.products == system.calls == carried.products + 1
    true = system.true_residual(measured.value)
    assert float(measured.relative_residual) == pytest.approx(true, rel=0.5)
    assert float(carried.relative_residual) < 0.2 * true
    assert carried.converged
    assert not measured.converged
