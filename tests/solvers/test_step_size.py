"""The automatic step size of the Neumann series, and the power iteration behind it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import flat, relative_error, shaped
from systems import SHAPES, System, contracting, orthogonal, positive, size

from commentaries.errors import NotConverged
from commentaries.solvers import Neumann, largest_eigenvalue

seeds = st.integers(0, 2**31)
shapes = st.sampled_from(SHAPES)
quick = settings(max_examples=20, deadline=None, derandomize=True)


@quick
@given(seeds, shapes, st.floats(1.0, 1e4), st.floats(1e-3, 1e3))
def test_the_estimate_is_from_below_and_grows_to_the_largest(seed, shapes, condition, top):
    system = positive(shapes, seed, condition, top)
    found = [largest_eigenvalue(system.product, system.b, k) for k in (1, 2, 5, 20, 400)]
    assert system.calls == sum(estimate.products for estimate in found) == 428
    values = [estimate.value for estimate in found]
    assert values == sorted(values)
    assert values[-1] <= top * (1 + 1e-10)
    assert values[2] > 0.4 * top  # what the safety factor needs
    assert values[-1] > 0.98 * top
    assert all(0 < estimate.curvature <= estimate.value * (1 + 1e-12) for estimate in found)


@quick
@given(seeds, shapes, st.floats(1.0, 30.0), st.floats(1e-3, 1e3), st.booleans())
def test_the_series_converges_whatever_the_size_of_the_matrix(seed, shapes, condition, top, warm):
    system = positive(shapes, seed, condition, top)
    start = {k: torch.ones_like(v) for k, v in system.x.items()} if warm else None
    solver = Neumann(int(40 * condition) + 40)
    solution = solver(system.product, system.b, start)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-6 * condition
    assert solution.products == system.calls == solver.terms + 5 + warm


def test_it_is_the_series_with_the_step_size_it_says():
    system = positive(SHAPES[0], 3)
    estimate = largest_eigenvalue(system.product, system.b, 4).value
    automatic = Neumann(6, power_iterations=4)(system.product, system.b)
    given = Neumann(6, 1 / (1.25 * estimate))(system.product, system.b)
    assert torch.equal(flat(automatic.value), flat(given.value))
    assert automatic.products == given.products + 4
    unmeasured = Neumann(6, power_iterations=4, measure_residual=False)
    assert unmeasured(system.product, system.b).products == 4 + 5


def test_a_direction_that_the_power_iteration_misses_hardly_matters():
    # the right-hand side has 1e-9 of the largest eigenvector; the series sees no more of it
    eigenvalues = torch.tensor([1.0, 1.0, 0.8, 0.6, 0.5], dtype=torch.float64)
    eigenvalues[0] = 1.5
    system = System(torch.diag(eigenvalues), {"a": (5,)}, 0)
    system.b = {"a": torch.tensor([1e-9, 1, 1, 1, 1], dtype=torch.float64)}
    assert largest_eigenvalue(system.product, system.b, 5).value < 1.1
    solution = Neumann(60)(system.product, system.b)
    assert solution.converged
    assert relative_error(solution.value, system.b["a"] / eigenvalues) < 1e-6


def test_the_preconditioned_matrix_is_what_counts():
    system = positive(SHAPES[0], 9, condition=1e4)
    n = size(SHAPES[0])
    A, identity = system.matrix, torch.eye(n, dtype=torch.float64)
    P = 1e3 * torch.linalg.inv(A + 1e-4 * identity)

    def precondition(v):
        return shaped(P @ flat(v), system.like)

    solution = Neumann(80)(system.product, system.b, precondition=precondition)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-4
    plain = Neumann(80)(system.product, system.b)
    assert not plain.converged


def test_neither_needs_symmetry():
    system = contracting(SHAPES[1], 4)
    assert relative_error(Neumann(150)(system.product, system.b).value, system.x) < 1e-6


def test_damping_is_part_of_the_matrix():
    system = positive(SHAPES[0], 3, top=1e-3)
    solution = Neumann(60, damping=1.0)(system.product, system.b)
    assert solution.converged


def test_a_warm_start_at_the_solution_needs_no_step_size():
    matrix = torch.diag(torch.tensor([1.0, 2, 4, 0.5, 0.25], dtype=torch.float64))
    system = System(matrix, {"a": (5,)}, 0)  # powers of two: b - A x is exactly zero
    solution = Neumann(3)(system.product, system.b, system.x)
    assert solution.converged
    assert solution.products == system.calls == 1
    assert float(solution.relative_residual) == 0


# Failures.


def test_a_negative_eigenvalue_that_dominates_raises():
    Q = orthogonal(10, 3)
    eigenvalues = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    eigenvalues[0] = -3.0
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, SHAPES[0], 0)
    with pytest.raises(NotConverged, match=r"is negative .*damping, .* to few terms\.$"):
        Neumann(3)(system.product, system.b)
    assert Neumann(400, damping=3.2)(system.product, system.b).converged


def test_a_smaller_negative_eigenvalue_diverges_in_the_end_and_is_flagged():
    eigenvalues = torch.tensor([1.0, 0.9, 0.7, 0.5, -0.3], dtype=torch.float64)
    system = System(torch.diag(eigenvalues), {"a": (5,)}, 0)
    system.b = {"a": torch.ones(5, dtype=torch.float64)}
    assert Neumann(12)(system.product, system.b).negative_curvature
    with pytest.raises(NotConverged, match="diverges"):
        Neumann(60)(system.product, system.b)


@pytest.mark.parametrize("size", [0.0, float("nan")])
def test_a_matrix_without_a_size_raises(size):
    system = positive(SHAPES[0], 3)
    with pytest.raises(NotConverged, match=r"damping[^.]*\.$"):
        Neumann(3)(lambda v: {k: size * x for k, x in v.items()}, system.b)


def test_a_singular_matrix_is_not_said_to_be_solved():
    Q = orthogonal(10, 1)
    eigenvalues = torch.ones(10, dtype=torch.float64)
    eigenvalues[:2] = 0
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, SHAPES[0], 0)
    b = shaped(torch.ones(10, dtype=torch.float64), system.like)
    solution = Neumann(100)(system.product, b)
    assert not solution.converged
    assert float(solution.relative_residual) > 0.05
