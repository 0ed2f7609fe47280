"""Linear solvers: the solution is chosen and the right-hand side built from it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import flat, relative_error, shaped
from systems import SHAPES, System, contracting, orthogonal, positive, size

from commentaries import params as p
from commentaries.errors import BadInput, NotConverged
from commentaries.solvers import (
    ConjugateGradient,
    Dense,
    Identity,
    Neumann,
    Nystrom,
    Preconditioned,
    Solution,
)

seeds = st.integers(0, 2**31)
shapes = st.sampled_from(SHAPES)
quick = settings(max_examples=20, deadline=None, derandomize=True)


@quick
@given(seeds, shapes, st.floats(1.0, 1e4), st.floats(1e-3, 1e3))
def test_conjugate_gradients_find_the_chosen_solution(seed, shapes, condition, top):
    system = positive(shapes, seed, condition, top)
    solution = ConjugateGradient(60, 1e-12)(system.product, system.b)
    assert solution.converged
    assert not solution.negative_curvature
    assert relative_error(solution.value, system.x) < 1e-11 * condition
    assert solution.products == system.calls
    assert float(solution.relative_residual) <= 1e-12
    assert system.true_residual(solution.value) < 1e-11
    assert {k: v.shape for k, v in solution.value.items()} == {
        k: v.shape for k, v in system.x.items()
    }


@quick
@given(seeds, shapes)
def test_conjugate_gradients_need_as_many_products_as_distinct_eigenvalues(seed, shapes):
    n = size(shapes)
    Q = orthogonal(n, seed)
    eigenvalues = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat(n)[:n]
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, shapes, seed)
    solution = ConjugateGradient(20, 1e-10)(system.product, system.b)
    assert solution.products == system.calls == 2


@quick
@given(seeds, shapes, st.booleans())
def test_dense_solves_any_regular_system(seed, shapes, symmetric):
    system = positive(shapes, seed) if symmetric else contracting(shapes, seed)
    solution = Dense()(system.product, system.b)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-12
    assert solution.products == system.calls == size(shapes)


@quick
@given(seeds, shapes, st.floats(1.0, 20.0), st.floats(1e-3, 1e3))
def test_neumann_converges_at_one_over_the_largest_eigenvalue(seed, shapes, condition, top):
    system = positive(shapes, seed, condition, top)
    solution = Neumann(int(30 * condition) + 30, 1 / top)(system.product, system.b)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-9
    assert solution.products == system.calls


@quick
@given(seeds, shapes, st.integers(1, 9), st.floats(0.05, 1.9))
def test_neumann_has_exactly_as_many_summands_as_terms(seed, shapes, terms, rate):
    system = positive(shapes, seed)
    A, b = system.matrix, flat(system.b)
    step = torch.eye(len(b), dtype=torch.float64) - rate * A
    by_hand = rate * sum(torch.linalg.matrix_power(step, i) @ b for i in range(terms))
    measured = Neumann(terms, rate, measure_residual=True)(system.product, system.b)
    assert relative_error(measured.value, by_hand) < 1e-13
    assert measured.products == system.calls == terms
    system.calls = 0
    unmeasured = Neumann(terms, rate, measure_residual=False)(system.product, system.b)
    assert torch.equal(flat(unmeasured.value), flat(measured.value))
    assert unmeasured.products == system.calls == terms - 1
    assert unmeasured.relative_residual is None
    assert not unmeasured.converged
    system.calls = 0
    by_default = Neumann(terms, rate)(system.product, system.b)
    assert by_default.products == system.calls == (terms if terms > 1 else 0)


@quick
@given(seeds, shapes)
def test_neumann_does_not_need_symmetry(seed, shapes):
    system = contracting(shapes, seed)
    solution = Neumann(60, 1.0)(system.product, system.b)
    assert relative_error(solution.value, system.x) < 1e-12


SOLVERS = [Neumann(5, 0.7), Neumann(400, 0.7), ConjugateGradient(3, 1e-9), Dense(),
           ConjugateGradient(40, 1e-9), Identity(0.5, measure_residual=True), Neumann(3),
           Neumann(400), ConjugateGradient(3, measure_residual=True),
           Preconditioned(ConjugateGradient(10, 1e-9), Nystrom(4, 1e-2))]  # fmt: skip
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=str)


@every_solver
@pytest.mark.parametrize("warm", [False, True])
def test_contract(solver, warm):
    """Holds for every solver: copy it for one of your own."""
    system = positive(SHAPES[0], 3)
    start = shaped(0.1 * torch.arange(10, dtype=torch.float64), system.like) if warm else None
    before = flat(system.b).clone()
    first = solver(system.product, system.b, start)
    calls, system.calls = system.calls, 0
    second = solver(system.product, system.b, start)
    assert isinstance(first, Solution)
    assert list(first.value) == list(system.b)
    assert first.products == calls == system.calls
    assert torch.equal(flat(first.value), flat(second.value))
    assert torch.equal(flat(system.b), before)
    if start is not None:
        assert torch.equal(flat(start), 0.1 * torch.arange(10, dtype=torch.float64))
    assert float(first.relative_residual) == pytest.approx(
        system.true_residual(first.value), rel=1e-5, abs=1e-13
    )
    assert first.converged == (float(first.relative_residual) < 1e-6)


@pytest.mark.parametrize(
    "solver", [ConjugateGradient(50, 1e-12), Dense(), Neumann(900, 0.8), Neumann(1500)]
)
@pytest.mark.parametrize("damping", [0.0, 0.3, 0.01])
def test_damping_solves_the_shifted_system(solver, damping):
    system = positive(SHAPES[1], 8)
    solver = type(solver)(**{**vars(solver), "damping": damping})
    shifted = system.matrix + damping * torch.eye(len(system.matrix), dtype=torch.float64)
    expected = torch.linalg.solve(shifted, flat(system.b))
    solution = solver(system.product, system.b)
    assert relative_error(solution.value, expected) < 1e-9
    rest = (shifted @ flat(solution.value) - flat(system.b)).norm() / flat(system.b).norm()
    assert float(rest) < 1e-9


@pytest.mark.parametrize(
    ("solver", "products"),
    [(ConjugateGradient(50, 1e-9), 1), (Neumann(1, 0.5, measure_residual=True), 2)],
    ids=str,
)
def test_warm_start_at_the_solution_stays_there(solver, products):
    system = positive(SHAPES[0], 4)
    solution = solver(system.product, system.b, system.x)
    assert solution.converged
    assert solution.products == system.calls == products
    assert relative_error(solution.value, system.x) < 1e-14


@pytest.mark.parametrize("terms", [1, 2, 5])
def test_neumann_leaves_what_it_is_given(terms):
    system = positive(SHAPES[0], 0)
    b, start = dict(system.b), p.scale(system.x, 0.5)
    before = [{k: v.clone() for k, v in a.items()} for a in (b, start)]

    def identity(v):
        return v  # itself, and not a copy

    Neumann(terms, 0.1)(identity, b, start)
    found = Neumann(terms, 0.1)(identity, b).value
    expected = 1 - 0.9**terms
    assert relative_error(found, p.scale(before[0], expected)) < 1e-14
    for now, old in zip((b, start), before, strict=True):
        assert now.keys() == old.keys()
        assert all(torch.equal(now[name], old[name]) for name in old)


def test_two_warm_starts_continue_one_series():
    system = positive(SHAPES[0], 4)
    half = Neumann(6, 0.9)(system.product, system.b)
    rest = Neumann(5, 0.9)(system.product, system.b, half.value)
    whole = Neumann(11, 0.9)(system.product, system.b)
    assert relative_error(rest.value, whole.value) < 1e-13


@pytest.mark.parametrize("solver", [Neumann(800, 1.0), Neumann(800), ConjugateGradient(50, 1e-9)],
                         ids=str)  # fmt: skip
def test_a_warm_start_far_away_is_no_divergence(solver):
    # the next outer batch may have a much smaller gradient than the last one
    system = positive(SHAPES[0], 4)
    far = {k: 1e3 * v for k, v in system.x.items()}
    solution = solver(system.product, system.b, far)
    assert relative_error(solution.value, system.x) < 1e-4


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradient(10, 1e-9), Neumann(3, 0.5), Neumann(3), Dense(), Identity(),
     Nystrom(4, 0.1), Preconditioned(ConjugateGradient(), Nystrom(4, 0.1))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_right_hand_side_of_zero_has_the_solution_zero(solver, dtype):
    system = System(positive(SHAPES[0], 4).matrix, SHAPES[0], 0, dtype)
    zero = {k: torch.zeros_like(v) for k, v in system.b.items()}
    assert not flat(solver(system.product, zero).value).any()


def test_preconditioned_by_the_inverse_one_iteration_is_enough():
    system = positive(SHAPES[0], 6, condition=1e4)
    inverse = torch.linalg.inv(system.matrix)

    def precondition(v):
        return shaped(inverse @ flat(v), system.like)

    solution = ConjugateGradient(50, 1e-9)(system.product, system.b, precondition=precondition)
    assert solution.products == 1
    assert relative_error(solution.value, system.x) < 1e-8
    series = Neumann(1, 1.0)(system.product, system.b, precondition=precondition)
    assert relative_error(series.value, system.x) < 1e-8
    identity = Identity(1.0, measure_residual=True)
    solution = identity(system.product, system.b, precondition=precondition)
    assert solution.converged
    assert relative_error(solution.value, system.x) < 1e-8


def test_a_diagonal_preconditioner_saves_products():
    n = size(SHAPES[0])
    scales = torch.logspace(-3, 3, n, dtype=torch.float64)
    inner = positive(SHAPES[0], 2, condition=3).matrix
    system = System(scales[:, None] * inner * scales, SHAPES[0], 1)
    solver = ConjugateGradient(10, 1e-12)
    plain = solver(system.product, system.b)
    diagonal = system.matrix.diagonal()
    helped = solver(
        system.product, system.b, precondition=lambda v: shaped(flat(v) / diagonal, system.like)
    )
    assert relative_error(helped.value, system.x) < 1e-6
    assert relative_error(plain.value, system.x) > 1e-2


@pytest.mark.parametrize("terms", [1, 4])
def test_preconditioned_series_by_hand(terms):
    # Σ_i P (I - A P)^i b, for a P that is neither symmetric nor commutes with A
    system = positive(SHAPES[0], 9)
    n = len(system.matrix)
    P = 0.5 * contracting(SHAPES[0], 12).matrix
    step = torch.eye(n, dtype=torch.float64) - system.matrix @ P
    by_hand = P @ sum(torch.linalg.matrix_power(step, i) for i in range(terms)) @ flat(system.b)
    solution = Neumann(terms, 1.0)(
        system.product, system.b, precondition=lambda v: shaped(P @ flat(v), system.like)
    )
    assert relative_error(solution.value, by_hand) < 1e-13


def test_identity_scales():
    system = positive(SHAPES[1], 1)
    plain = Identity(0.25)(system.product, system.b)
    assert torch.equal(flat(plain.value), 0.25 * flat(system.b))
    assert (plain.products, system.calls, plain.relative_residual) == (0, 0, None)
    assert not plain.converged
    double = Identity(0.25)(
        system.product, system.b, precondition=lambda v: {k: 2 * x for k, x in v.items()}
    )
    assert torch.equal(flat(double.value), 0.5 * flat(system.b))


# What must fail, and how.

REMEDY = r"(Lower|Add|add|Use|use|raise|Choose)[^.]*\.?[^.]*\.?$"


@pytest.mark.parametrize("terms", [20, 200])
def test_a_divergent_series_raises(terms):
    system = positive(SHAPES[0], 5, condition=1.5)
    with pytest.raises(NotConverged, match="diverges") as error:
        Neumann(terms, 4.0)(system.product, system.b)
    assert str(error.value).endswith(
        "Lower step_size, add damping, use curvature.GaussNewton(), or use "
        "solvers.ConjugateGradient."
    )


def test_negative_curvature_makes_a_series_diverge_and_is_flagged_before():
    system = positive(SHAPES[0], 5)
    negated = System(-system.matrix, SHAPES[0], 5)
    with pytest.raises(NotConverged, match="diverges"):
        Neumann(500, 1.0)(negated.product, negated.b)
    assert Neumann(2, 0.5)(negated.product, negated.b).negative_curvature
    assert not Neumann(2, 0.5)(system.product, system.b).negative_curvature


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradient(), Neumann(3, 0.1), Neumann(3), Dense(), Nystrom(3, 0.1)],
    ids=["cg", "neumann", "automatic", "dense", "nystrom"],
)
def test_a_product_that_is_not_a_number_raises(solver):
    system = positive(SHAPES[0], 5)
    with pytest.raises(NotConverged, match=REMEDY):
        solver(lambda v: {k: x * float("nan") for k, x in v.items()}, system.b)


def test_conjugate_gradients_raise_at_negative_curvature_in_the_first_direction():
    system = positive(SHAPES[0], 5)
    negated = System(-system.matrix, SHAPES[0], 5)
    with pytest.raises(NotConverged, match=r"damping, or use curvature\.GaussNewton\(\)\.$"):
        ConjugateGradient()(negated.product, negated.b)


def test_conjugate_gradients_flag_negative_curvature_met_later():
    eigenvalues = torch.tensor([1.0, 0.9, 1.1, 1.2, -0.2], dtype=torch.float64)
    shapes = {"a": (2, 2), "b": ()}
    system = System(torch.diag(eigenvalues), shapes, 0)
    system.b = shaped(torch.tensor([1.0, 1, 1, 1, 0.1], dtype=torch.float64), system.like)
    solution = ConjugateGradient(20, 1e-12)(system.product, system.b)
    assert solution.negative_curvature
    assert not solution.converged
    assert float(solution.relative_residual) == pytest.approx(
        system.true_residual(solution.value), rel=1e-8
    )
    dense = Dense()(system.product, system.b)
    assert dense.negative_curvature
    damped = ConjugateGradient(20, 1e-12, damping=0.5)(system.product, system.b)
    assert damped.converged
    assert not damped.negative_curvature


def test_stopping_early_is_reported():
    system = positive(SHAPES[0], 5, condition=1e3)
    solution = ConjugateGradient(2, 1e-10)(system.product, system.b)
    assert not solution.converged
    assert solution.products == 2
    assert float(solution.relative_residual) > 1e-10


@pytest.mark.parametrize("rank", [0, 3, 9])
def test_a_singular_matrix_raises(rank):
    Q = orthogonal(10, 1)
    eigenvalues = torch.zeros(10, dtype=torch.float64)
    eigenvalues[:rank] = 1
    system = System(Q @ torch.diag(eigenvalues) @ Q.mT, SHAPES[0], 0)
    b = shaped(torch.ones(10, dtype=torch.float64), system.like)
    with pytest.raises(NotConverged, match=r"weight decay to the student\.$"):
        Dense()(system.product, b)
    assert Dense(damping=0.1)(system.product, b).converged


def test_a_dense_matrix_too_large_is_refused():
    system = positive(SHAPES[0], 5)
    with pytest.raises(BadInput, match="10 x 10"):
        Dense(limit=9)(system.product, system.b)
    assert system.calls == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: Neumann(0, 0.1),
        lambda: Neumann(2, 0.0),
        lambda: Neumann(2, -1.0),
        lambda: Neumann(2, float("inf")),
        lambda: Neumann(2, 0.1, damping=-1.0),
        lambda: ConjugateGradient(0),
        lambda: ConjugateGradient(tolerance=0.0),
        lambda: ConjugateGradient(damping=float("nan")),
        lambda: Dense(damping=-1e-3),
        lambda: Identity(0.0),
        lambda: Neumann(2, power_iterations=0),
        lambda: Nystrom(0, 0.1),
        lambda: Nystrom(3, 0.0),
    ],
)
def test_options_out_of_range_are_refused(build):
    with pytest.raises(BadInput, match=r"must be .*(Choose|Use) .*\.$"):
        build()
