"""Nyström's approximation as a solver and as a preconditioner."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import flat, relative_error, shaped
from systems import SHAPES, System, orthogonal, positive, size

from commentaries.errors import BadInput, NotConverged
from commentaries.solvers import ConjugateGradient, Nystrom, Preconditioned

seeds = st.integers(0, 2**31)
shapes = st.sampled_from(SHAPES)
tests = st.sampled_from(["gaussian", "columns"])
quick = settings(max_examples=20, deadline=None, derandomize=True)
pytestmark = pytest.mark.usefixtures("float64")


def built(product, like):
    return torch.stack([flat(product(shaped(e, like))) for e in torch.eye(flat(like).numel())], 1)


def spectrum(eigenvalues, seed=0, shapes=None, dtype=torch.float64):
    n = len(eigenvalues)
    Q = orthogonal(n, seed)
    matrix = Q @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ Q.mT
    return System(matrix, shapes or {"a": (n // 2,), "b": (n - n // 2,)}, seed + 1, dtype)


@quick
@given(seeds, shapes, st.integers(1, 9), tests, st.floats(1e-3, 1e3))
def test_it_is_the_formula_of_the_paper(seed, shapes, rank, test, top):
    system = positive(shapes, seed, 30.0, top)
    damping = 0.05 * top
    nystrom = Nystrom(rank, damping, test, seed=seed % 100)
    low_rank = nystrom.approximate(system.product, system.b)
    assert system.calls == rank
    # any matrix with the same columns' span gives the same: here the eigenvectors' own
    A, U = system.matrix, low_rank.vectors
    approximation = U @ torch.diag(low_rank.values) @ U.mT
    assert relative_error(U.mT @ U, torch.eye(rank)) < 1e-12
    assert (low_rank.values.diff() <= 0).all()
    omega = nystrom._test_matrix(flat(system.b))
    by_hand = A @ omega @ torch.linalg.solve(omega.mT @ A @ omega, omega.mT @ A)
    assert relative_error(approximation, by_hand) < 1e-9
    # below A, and exact on Ω
    assert torch.linalg.eigvalsh(A - approximation)[0] > -1e-9 * top
    assert relative_error(approximation @ omega, A @ omega) < 1e-9
    inverse = built(low_rank.inverse(), system.like)
    shifted = approximation + damping * torch.eye(len(A))
    assert relative_error(inverse @ shifted, torch.eye(len(A))) < 1e-9


@quick
@given(seeds, shapes, tests, st.booleans())
def test_a_matrix_of_that_rank_is_solved(seed, shapes, test, warm):
    n, rank = size(shapes), 4
    g = torch.Generator().manual_seed(seed)
    half = torch.randn(n, rank, generator=g)
    damping = 0.1
    system = System(half @ half.mT, shapes, seed + 1)
    system.b = shaped(system.matrix @ flat(system.x) + damping * flat(system.x), system.like)
    start = {k: torch.ones_like(v) for k, v in system.x.items()} if warm else None
    system.calls = 0
    solution = Nystrom(rank, damping, test)(system.product, system.b, start)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-7
    assert solution.products == system.calls == rank + 1 + warm
    assert not solution.negative_curvature


def test_more_rank_is_better_and_a_warm_start_refines():
    system = spectrum(torch.logspace(0, -4, 20))
    exact = torch.linalg.solve(system.matrix + 0.03 * torch.eye(20), flat(system.b))
    errors = [
        relative_error(Nystrom(rank, 0.03)(system.product, system.b).value, exact)
        for rank in (3, 8, 15, 20)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9
    once = Nystrom(15, 0.03)(system.product, system.b)
    twice = Nystrom(15, 0.03)(system.product, system.b, once.value)
    assert float(twice.relative_residual) < 0.5 * float(once.relative_residual)
    assert twice.products == once.products + 1


def test_the_seed_decides_and_the_residual_may_be_left_out():
    system = spectrum(torch.logspace(0, -3, 12))
    same = [Nystrom(4, 0.1, seed=s)(system.product, system.b).value for s in (1, 1, 2)]
    assert torch.equal(flat(same[0]), flat(same[1]))
    assert relative_error(same[0], same[2]) > 1e-6
    system.calls = 0
    free = Nystrom(4, 0.1, seed=1, measure_residual=False)(system.product, system.b)
    assert torch.equal(flat(free.value), flat(same[0]))
    assert (free.products, system.calls, free.relative_residual) == (4, 4, None)
    assert not free.converged


# As a preconditioner.


@pytest.mark.parametrize("test", ["gaussian", "columns"])
@pytest.mark.parametrize("top", [1e2, 1e4, 1e6])
def test_it_removes_a_few_large_eigenvalues(test, top):
    eigenvalues = torch.cat([top * torch.logspace(0, -1.5, 20), torch.linspace(1, 1.5, 80)])
    system = spectrum(eigenvalues)
    plain = ConjugateGradient(200, 1e-10)
    alone = plain(system.product, system.b)
    solver = Preconditioned(plain, Nystrom(24, 1.0, test))
    system.calls = 0
    helped = solver(system.product, system.b)
    assert helped.converged
    assert helped.products == system.calls
    assert relative_error(helped.value, system.x) < 1e-9 * top
    assert helped.products - 24 < 0.75 * alone.products


@pytest.mark.parametrize("warm", [False, True])
def test_the_preconditioned_condition_number_is_small(warm):
    n, damping = 60, 1e-3
    system = spectrum(torch.logspace(1, -6, n))
    shifted = system.matrix + damping * torch.eye(n)
    low_rank = Nystrom(45, damping).approximate(system.product, system.b)
    P = built(low_rank.preconditioner(), system.like)
    assert relative_error(P, P.mT) < 1e-10
    assert torch.linalg.eigvalsh(P)[0] > 0
    values = torch.linalg.eigvals(P @ shifted).real
    assert values.max() / values.min() < 5
    assert torch.linalg.cond(shifted) > 5e3
    start = {k: 0.5 * v for k, v in system.x.items()} if warm else None
    solver = Preconditioned(ConjugateGradient(20, 1e-9, damping), Nystrom(45, damping))
    solution = solver(system.product, system.b, start)
    assert solution.converged
    assert relative_error(solution.value, torch.linalg.solve(shifted, flat(system.b))) < 1e-6
    assert solution.products < 45 + 20


def test_single_precision():
    eigenvalues = torch.logspace(2, -5, 200)
    single = spectrum(eigenvalues, dtype=torch.float32)
    nystrom = Nystrom(120, 0.01, "columns")
    values = nystrom.approximate(single.product, single.b).values
    assert values.dtype == torch.float32
    assert relative_error(values[:20].double(), eigenvalues[:20]) < 0.01
    # a condition number of 1e4 leaves three digits of single precision's seven
    assert float(nystrom(single.product, single.b).relative_residual) < 0.01
    solver = Preconditioned(ConjugateGradient(60, 1e-4, 0.01, measure_residual=True), nystrom)
    assert solver(single.product, single.b).converged


# Failures.


def test_negative_curvature_within_the_damping_is_flagged_and_beyond_it_raises():
    eigenvalues = torch.linspace(0.2, 1, 12)
    eigenvalues[0] = -0.05
    system = spectrum(eigenvalues)
    exact = torch.linalg.solve(system.matrix + 0.1 * torch.eye(12), flat(system.b))
    solution = Nystrom(12, 0.1)(system.product, system.b)
    assert solution.negative_curvature
    # where A + δI is below δ, it is taken to be δ
    assert relative_error(solution.value, exact) < 1
    helped = Preconditioned(ConjugateGradient(40, 1e-9, damping=0.1), Nystrom(12, 0.1))
    found = helped(system.product, system.b)
    assert found.converged
    assert found.negative_curvature
    assert relative_error(found.value, exact) < 1e-6
    with pytest.raises(NotConverged, match=r"negative curvature .*curvature\.GaussNewton\(\)\.$"):
        Nystrom(12, 0.01)(system.product, system.b)


def test_a_rank_too_small_for_its_damping_raises():
    system = spectrum(torch.ones(20))
    with pytest.raises(NotConverged, match=r"Raise rank or damping, .*solvers\.Preconditioned\.$"):
        Nystrom(3, 1e-3)(system.product, system.b)
    low = Nystrom(3, 1e-3, measure_residual=False)(system.product, system.b)
    assert not low.converged


@pytest.mark.parametrize("rank", [0, 3])
def test_a_singular_matrix_has_a_damped_solution(rank):
    eigenvalues = torch.zeros(10)
    eigenvalues[:rank] = 1
    system = spectrum(eigenvalues)
    b = shaped(torch.ones(10), system.like)
    solution = Nystrom(6, 0.1)(system.product, b)
    expected = torch.linalg.solve(system.matrix + 0.1 * torch.eye(10), torch.ones(10))
    assert solution.converged
    assert relative_error(solution.value, expected) < 1e-6


def test_more_columns_than_unknowns_are_refused():
    system = spectrum(torch.ones(10))
    with pytest.raises(BadInput, match=r"rank is 11, .* 10 unknowns\. Choose rank <= 10\.$"):
        Nystrom(11, 0.1)(system.product, system.b)
    assert system.calls == 0
    with pytest.raises(BadInput, match="no test 'column'"):
        Nystrom(3, 0.1, "column")


def test_two_preconditioners_are_refused():
    system = spectrum(torch.ones(10))
    solver = Preconditioned(ConjugateGradient(), Nystrom(3, 0.1))
    with pytest.raises(BadInput, match=r"leave precondition out\.$"):
        solver(system.product, system.b, None, lambda v: v)
