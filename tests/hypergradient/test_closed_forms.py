"""Hypergradients against closed forms: weighted ridge and logistic regression, in float64."""

import pytest
import torch
from oracles import numeric_gradient, relative_error, weighted_regression

from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.errors import BadInput, NonFinite
from commentaries.hypergradient import Implicit
from commentaries.inner import SGD, Adam
from commentaries.problem import Bilevel, Composed
from commentaries.solvers import ConjugateGradient, Dense, Identity, Neumann
from commentaries.types import Batch


def composed(problem) -> Composed:
    """The inner loss with its insides shown, as `GaussNewton` needs it."""

    def outputs(theta, phi, batch):
        return batch.x @ theta["t"], (torch.sigmoid(phi["w"])[batch.index], batch.y)

    def loss(z, held, lesson):
        weights, y = lesson
        return (weights * problem.losses(z, y)).mean()

    return Composed(outputs, loss)


def implicit(problem, phi, solver, curvature=None, *, optimizer=None, shown=True, **more):
    return Implicit(solver, curvature or Hessian())(
        Bilevel(composed(problem) if shown else problem.inner, problem.outer),
        optimizer or SGD(lr=0.1, weight_decay=problem.decay),
        problem.optimum(phi),
        {"w": phi},
        inner=[problem.inner_batch],
        outer=problem.outer_batch,
        **more,
    )


SOLVERS = {
    "dense": Dense(),
    "conjugate gradient": ConjugateGradient(100, 1e-13),
    "neumann": Neumann(terms=800, step_size=0.12),
}


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_the_reference_is_the_slope_of_retraining(kind):
    problem, phi = weighted_regression(kind)
    slopes = numeric_gradient(lambda at: problem.retrained_loss(at["w"]), {"w": phi}, 1e-4)
    assert relative_error(problem.hypergradient(phi), slopes) < 1e-7


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gauss-newton"])
@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_solved_exactly(kind, curvature, solver):
    problem, phi = weighted_regression(kind)
    result = implicit(problem, phi, SOLVERS[solver], curvature)
    assert relative_error(result.value, problem.hypergradient(phi)) < 1e-8
    assert result.diagnostics["stationarity"] < 1e-13
    assert result.diagnostics["relative_residual"] < 1e-10
    assert result.diagnostics["converged"]
    assert not result.diagnostics["negative_curvature"]


@pytest.mark.parametrize("shown", [True, False], ids=["composed", "plain"])
@pytest.mark.parametrize("solver", [Dense(), ConjugateGradient(12, 1e-9)], ids=["dense", "cg"])
@pytest.mark.parametrize(("kind", "tolerance"), [("ridge", 1e-9), ("logistic", 1e-6)])
def test_finite_differences(kind, tolerance, solver, shown):
    problem, phi = weighted_regression(kind)
    result = implicit(problem, phi, solver, FiniteDifference(1e-4), shown=shown)
    assert relative_error(result.value, problem.hypergradient(phi)) < tolerance


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_a_plain_loss_is_enough_for_the_hessian(kind):
    problem, phi = weighted_regression(kind)
    result = implicit(problem, phi, Dense(), shown=False)
    assert relative_error(result.value, problem.hypergradient(phi)) < 1e-12


@pytest.mark.parametrize(
    "optimizer",
    [SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.3), Adam(0.1, weight_decay=0.3)],
    ids=["momentum", "adam"],
)
def test_the_path_does_not_matter_where_it_ends(optimizer):
    problem, phi = weighted_regression("logistic")
    result = implicit(problem, phi, Dense(), optimizer=optimizer)
    assert relative_error(result.value, problem.hypergradient(phi)) < 1e-12


def test_weight_decay_missing_from_the_hessian_would_show():
    problem, phi = weighted_regression("logistic")
    result = implicit(problem, phi, Dense(damping=1e-6), optimizer=SGD(0.1))
    assert relative_error(result.value, problem.hypergradient(phi)) > 0.1


def test_direct_term_and_its_sign():
    # L_V(θ, φ) = plain loss + ½‖φ - 1‖² + φ_0 Σθ: the direct term is (φ - 1) + e_0 Σθ.
    problem, phi = weighted_regression("ridge")

    def outer(theta, weights, batch):
        w = weights["w"]
        coupling = w[0] * theta["t"].sum()
        return problem.outer(theta, weights, batch) + (w - 1).square().sum() / 2 + coupling

    result = Implicit(Dense())(
        Bilevel(problem.inner, outer),
        SGD(0.1, weight_decay=problem.decay),
        problem.optimum(phi),
        {"w": phi},
        inner=[problem.inner_batch],
        outer=problem.outer_batch,
    )
    slopes = numeric_gradient(
        lambda at: outer(problem.optimum(at["w"]), at, problem.outer_batch), {"w": phi}, 1e-4
    )
    assert relative_error(result.value, slopes) < 1e-7
    wrong_sign = {"w": result.value["w"] - 2 * (phi - 1)}
    assert relative_error(wrong_sign, slopes) > 0.5


def test_learning_the_weight_decay_itself():
    # L_T = mean squares + ½ Σ exp(φ_j) θ_j²: one decay for each feature.
    problem, _ = weighted_regression("ridge")
    x, y = problem.x, problem.y[:, 0]
    phi = {"log decay": torch.tensor([-2.0, -1.0, 0.0, 1.0], dtype=torch.float64)}

    def inner(theta, phi, batch):
        squares = (batch.x @ theta["t"] - batch.y).square().mean()
        return squares + (phi["log decay"].exp() * theta["t"].square()).sum() / 2

    def outer(theta, phi, batch):
        return (batch.x @ theta["t"] - batch.y).square().mean()

    def optimum(phi):
        A = 2 * x.T @ x / len(x) + torch.diag(phi["log decay"].exp())
        return {"t": torch.linalg.solve(A, 2 * x.T @ y / len(x))}

    valid = Batch(problem.x_valid, problem.y_valid[:, 0], torch.arange(len(problem.y_valid)))
    result = Implicit(ConjugateGradient(10, 1e-13))(
        Bilevel(inner, outer),
        SGD(0.1),
        optimum(phi),
        phi,
        inner=[Batch(x, y, torch.arange(len(y)))],
        outer=valid,
    )
    slopes = numeric_gradient(lambda at: outer(optimum(at), at, valid), phi, 1e-4)
    assert relative_error(result.value, slopes) < 1e-7


def test_reported_residual_tracks_the_error_of_an_ill_posed_problem():
    problem, phi = weighted_regression("ridge", decay=1e-3, spread=0.2)
    H = problem.hessian(problem.optimum(phi)["t"], phi)
    b = problem.outer_gradient(problem.optimum(phi)["t"]).reshape(-1)
    eigenvalues = torch.linalg.eigvalsh(H)
    condition = float(eigenvalues[-1] / eigenvalues[0])
    assert condition > 100
    solution = torch.linalg.solve(H, b)
    residuals, errors = [], []
    for terms in (2, 20, 200, 2000):
        result = implicit(problem, phi, Neumann(terms, float(1 / eigenvalues[-1])))
        x = result.adjoint["t"].reshape(-1)
        residual = float(result.diagnostics["relative_residual"])
        assert residual == pytest.approx(float((H @ x - b).norm() / b.norm()), rel=1e-6)
        error = relative_error(x, solution)
        assert residual / condition <= error <= residual * condition
        residuals.append(residual)
        errors.append(relative_error(result.value, problem.hypergradient(phi)))
    assert residuals == sorted(residuals, reverse=True)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert residuals[-1] < 0.1 * residuals[0]


def test_warm_start_from_the_exact_adjoint_takes_one_product():
    problem, phi = weighted_regression("logistic")
    exact = implicit(problem, phi, Dense())
    solver = ConjugateGradient(50, 1e-9)
    warm = implicit(problem, phi, solver, adjoint=exact.adjoint)
    cold = implicit(problem, phi, solver)
    assert warm.diagnostics["products"] == 1
    assert warm.diagnostics["converged"]
    assert cold.diagnostics["products"] > 5
    assert relative_error(warm.value, problem.hypergradient(phi)) < 1e-8
    series = Neumann(1, 0.1, measure_residual=False)
    warm = implicit(problem, phi, series, adjoint=exact.adjoint)
    assert warm.diagnostics["products"] == 1
    assert relative_error(warm.value, problem.hypergradient(phi)) < 1e-12


def test_warm_series_reaches_what_a_cold_one_needs_many_terms_for():
    problem, phi = weighted_regression("ridge")
    adjoint = None
    for _ in range(60):
        result = implicit(problem, phi, Neumann(2, 0.12), adjoint=adjoint)
        adjoint = result.adjoint
    at_once = implicit(problem, phi, Neumann(120, 0.12))
    assert relative_error(result.value, at_once.value) < 1e-12


def test_identity_is_the_one_term_series():
    problem, phi = weighted_regression("ridge")
    one = implicit(problem, phi, Neumann(1, 0.3, measure_residual=False))
    identity = implicit(problem, phi, Identity(0.3))
    assert relative_error(identity.value, one.value) < 1e-15
    assert identity.diagnostics["products"] == 0
    assert identity.diagnostics["relative_residual"] is None


def test_identity_preconditioned_by_adams_step_is_sama():
    problem, phi = weighted_regression("logistic")
    theta = {"t": torch.full((4, 3), 0.1, dtype=torch.float64)}
    optimizer = Adam(0.05, eps=1e-3)
    result = Implicit(Identity(), precondition=True)(
        Bilevel(problem.inner, problem.outer),
        optimizer,
        theta,
        {"w": phi},
        inner=[problem.inner_batch],
        outer=problem.outer_batch,
    )
    # first step: m̂ = G, v̂ = G², so u(G) = -lr G / (|G| + ε) and P = lr ε / (|G| + ε)²
    weights = torch.sigmoid(phi)
    g = problem._gradients(theta["t"], problem.x, problem.y)
    G = problem.x.T @ (weights[:, None] * g) / len(g)
    x = 0.05 * 1e-3 / (G.abs() + 1e-3).square() * problem.outer_gradient(theta["t"])
    by_hand = -weights * (1 - weights) * ((problem.x @ x) * g).sum(1) / len(g)
    assert relative_error(result.value, {"w": by_hand}) < 1e-10


def test_the_student_takes_every_step_and_nothing_keeps_a_graph():
    problem, phi = weighted_regression("logistic")
    theta = {"t": torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)}
    weights = {"w": phi.clone().requires_grad_()}
    batches = [problem.inner_batch.rows(slice(8 * i, 8 * i + 8)) for i in range(3)]
    result = Implicit(Neumann(3, 0.1))(
        Bilevel(problem.inner, problem.outer),
        SGD(torch.tensor(0.2, dtype=torch.float64, requires_grad=True), momentum=0.9),
        theta,
        weights,
        inner=batches,
        outer=problem.outer_batch,
    )
    plain = theta["t"].detach().clone().requires_grad_()
    torch_sgd = torch.optim.SGD([plain], lr=0.2, momentum=0.9)
    for batch in batches:
        torch_sgd.zero_grad()
        last = problem.inner({"t": plain}, {"w": phi}, batch)
        last.backward()
        torch_sgd.step()
    assert relative_error(result.theta["t"], plain.detach()) < 1e-14
    assert float(result.diagnostics["inner_loss"]) == pytest.approx(float(last.detach()), rel=1e-13)
    kept = [result.value["w"], result.outer_loss, result.theta["t"], result.adjoint["t"]]
    kept += [result.state.momentum["t"], result.diagnostics["stationarity"]]
    assert not any(value.requires_grad for value in kept)
    assert theta["t"].grad is None
    assert weights["w"].grad is None


def test_works_inside_no_grad():
    problem, phi = weighted_regression("ridge")
    with torch.no_grad():
        result = implicit(problem, phi, Dense())
    assert relative_error(result.value, problem.hypergradient(phi)) < 1e-10


def test_nothing_to_differentiate_is_refused():
    problem, phi = weighted_regression("ridge")
    bilevel, theta = Bilevel(problem.inner, problem.outer), problem.optimum(phi)
    with pytest.raises(BadInput, match=r"Pass at least one\.$"):
        Implicit()(bilevel, SGD(0.1), theta, {"w": phi}, inner=[], outer=problem.outer_batch)
    with pytest.raises(BadInput, match=r"init\(\)\.$"):
        Implicit()(
            bilevel, SGD(0.1), theta, {}, inner=[problem.inner_batch], outer=problem.outer_batch
        )


def test_a_loss_that_is_not_finite_raises():
    problem, phi = weighted_regression("ridge")
    broken = Bilevel(problem.inner, lambda *a: problem.outer(*a) * float("nan"))
    with pytest.raises(NonFinite, match=r"smaller one\.$"):
        Implicit(Identity())(
            broken,
            SGD(0.1),
            problem.optimum(phi),
            {"w": phi},
            inner=[problem.inner_batch],
            outer=problem.outer_batch,
        )
