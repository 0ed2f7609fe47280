"""Hypergradients of students trained with sharpness-aware steps.

`exact` is compared with central differences of training, `frozen` and `plain` with their own
definitions written out by hand, and each of these two with `exact`, from which they must differ.
"""

import math

import pytest
import torch
from oracles import (
    flat,
    normal,
    numeric_gradient,
    relative_error,
    shaped,
    slope,
    tanh_network,
    weighted_regression,
)

from commentaries import params as p
from commentaries import tree
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SAM, SGD, Adam, Adaptive, Momentum, Random, Steepest, step
from commentaries.problem import Bilevel, Composed
from commentaries.solvers import Dense, Neumann

RHO = 0.3
SLOW, HEAVY = SGD(0.4), SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05)

VARIANTS = {
    "sam": SAM(SLOW, RHO),
    "momentum, decay": SAM(HEAVY, RHO),
    "adam": SAM(Adam(0.05, eps=1e-3, weight_decay=0.1), RHO),
    "p=1.5": SAM(SLOW, RHO, Steepest(1.5)),
    "p=3": SAM(SLOW, RHO, Steepest(3.0)),
    "signs": SAM(SLOW, 0.05, Steepest(math.inf)),
    "asam": SAM(SLOW, RHO, Adaptive(0.1)),
    "asam, some": SAM(SLOW, RHO, Adaptive(0.0, only=lambda name: "weight" in name)),
    "three steps": SAM(SLOW, RHO, steps=3),
    "groups": SAM(SLOW, RHO, group=4),
    "groups of asam": SAM(SLOW, RHO, Adaptive(0.1), group=4, steps=2),
    "every second": SAM(SLOW, RHO, every=2),
    "every third": SAM(HEAVY, RHO, every=3, reuse=0.3),
    "momentum sam": SAM(HEAVY, RHO, Momentum(0.8)),
    "random": SAM(SLOW, RHO, Random(seed=2)),
    "second order": SAM(SLOW, RHO, second_order=True),
    "second order, asam": SAM(SLOW, RHO, Adaptive(0.1), second_order=True),
    "second order, all": SAM(SLOW, RHO, steps=2, group=4, every=2, second_order=True),
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def walk(network, optimizer, theta, phi, batches, state=None):
    state = optimizer.init(theta) if state is None else state
    for batch in batches:
        theta, state, _ = step(optimizer, Hessian()(network.inner, phi, batch), theta, state)
    return theta, state


def unrolled(optimizer, count=5, method=None):
    network, theta, phi = tanh_network()
    return (method or Unrolled())(
        Bilevel(network.inner, network.outer),
        optimizer,
        theta,
        phi,
        inner=network.batches(count),
        outer=network.validation,
    )


# Unrolled.


@every_variant
def test_exact_is_the_slope_of_training(name):
    optimizer = VARIANTS[name]
    network, theta, phi = tanh_network()
    batches = network.batches(5)
    result = unrolled(optimizer)

    def end(theta, phi):
        theta, _ = walk(network, optimizer, theta, phi, batches)
        return network.outer(theta, phi, network.validation)

    slopes = numeric_gradient(lambda at: end(theta, at), phi, 1e-5)
    assert relative_error(result.value, slopes) < 1e-7
    for seed in (1, 2):  # the adjoint of the starting point, which MAML needs
        v = normal(theta, seed)
        expected = slope(lambda at: end(at, phi), theta, v, 1e-5)
        found = sum(float((result.adjoint[k] * v[k]).sum()) for k in theta)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@every_variant
@pytest.mark.parametrize("every", [1, 2, "sqrt"])
def test_recomputed_graphs_give_the_same(every, name):
    kept = unrolled(VARIANTS[name], 7)
    recomputed = unrolled(VARIANTS[name], 7, Unrolled(every=every))
    assert relative_error(recomputed.value, kept.value) < 1e-11
    assert relative_error(recomputed.adjoint, kept.adjoint) < 1e-11
    pairs = zip(tree.leaves(recomputed), tree.leaves(kept), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13, equal_nan=True)


@every_variant
@pytest.mark.parametrize("method", [Unrolled(), Implicit(Neumann(1, 0.01))], ids=["unr", "imp"])
def test_the_student_is_that_of_plain_steps(name, method):
    optimizer = VARIANTS[name]
    network, theta, phi = tanh_network()
    result = unrolled(optimizer, 6, method)
    with torch.no_grad():
        end, state = walk(network, optimizer, theta, phi, network.batches(6))
    assert relative_error(result.theta, end) < 1e-12
    for a, b in zip(tree.leaves(result.state), tree.leaves(state), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13, equal_nan=True)
    assert not any(
        leaf.requires_grad
        for leaf in tree.leaves(
            [result.value, result.theta, result.state, result.adjoint, result.diagnostics]
        )
    )


@every_variant
def test_a_start_that_asks_for_no_derivative_changes_nothing(name):
    # φ alone asks for a graph in the first step, θ in all that follow.
    network, theta, phi = tanh_network()
    live = p.live(phi)
    end, _ = walk(network, VARIANTS[name], theta, live, network.batches(3))
    found = p.gradients(network.outer(end, live, network.validation), live)
    assert relative_error(found, unrolled(VARIANTS[name], 3).value) < 1e-12


def by_hand(name, jacobian, count=5, lr=0.4):
    """dL_V/dφ through the steps, ε or G cut out of the graph as the definitions say."""
    network, theta, phi = tanh_network()
    theta, phi = p.live(theta), p.live(phi)

    def gradient(at, batch):
        return p.gradients(network.inner(at, phi, batch), at, create_graph=True)

    def step_gradient(at, batch, v):
        g = gradient(at, batch)
        if name == "asam":
            T = {k: at[k].abs() + 0.1 for k in at}
            Tg = {k: T[k] * g[k] for k in at}
            epsilon = {k: RHO * T[k] * Tg[k] / flat(Tg).norm() for k in at}
        elif name == "three steps":
            epsilon, further = p.zeros_like(at), g
            for _ in range(3):
                unit = p.scale(further, RHO / 3 / flat(further).norm())
                epsilon = p.add(epsilon, unit)
                further = gradient(p.add(at, epsilon), batch)
        elif name == "momentum sam":
            norm = flat(v).norm()
            epsilon = p.scale(v, -RHO / norm) if norm > 0 else p.zeros_like(at)
        else:
            epsilon = p.scale(g, RHO / flat(g).norm())
        if jacobian == "frozen":
            epsilon = p.detach(epsilon)
        sharp = gradient(p.add(at, epsilon), batch)
        if jacobian == "plain":
            return {k: g[k] + (sharp[k] - g[k]).detach() for k in at}
        return sharp

    at, v, m = theta, p.zeros_like(theta), 4 if name == "groups" else 6
    for batch in network.batches(count):
        G = p.zeros_like(theta)
        for start in range(0, batch.size, m):
            part = batch.rows(slice(start, min(start + m, batch.size)))
            G = p.add(G, step_gradient(at, part, v), part.size / batch.size)
        at = p.add(at, G, -lr)
        v = p.add(G, v, 0.8)
    return p.gradients(network.outer(at, phi, network.validation), phi)


@pytest.mark.parametrize("jacobian", ["exact", "frozen", "plain"])
@pytest.mark.parametrize("name", ["sam", "asam", "three steps", "groups", "momentum sam"])
def test_each_jacobian_is_its_own_definition(name, jacobian):
    options = {
        "sam": {},
        "asam": {"ascent": Adaptive(0.1)},
        "three steps": {"steps": 3},
        "groups": {"group": 4},
        "momentum sam": {"ascent": Momentum(0.8)},
    }[name]
    result = unrolled(SAM(SLOW, RHO, jacobian=jacobian, **options))
    assert relative_error(result.value, by_hand(name, jacobian)) < 1e-11
    if jacobian != "exact":
        exact = unrolled(SAM(SLOW, RHO, **options))
        assert torch.equal(result.theta["2.bias"], exact.theta["2.bias"]) or (
            relative_error(result.theta, exact.theta) < 1e-13
        )
        assert relative_error(result.value, exact.value) > 1e-2


@pytest.mark.parametrize("name", ["signs", "random"])
def test_frozen_is_exact_where_epsilon_does_not_bend(name):
    optimizer = VARIANTS[name]
    frozen = SAM(optimizer.base, optimizer.rho, optimizer.ascent, jacobian="frozen")
    assert relative_error(unrolled(frozen).value, unrolled(optimizer).value) < 1e-14
    plain = SAM(optimizer.base, optimizer.rho, optimizer.ascent, jacobian="plain")
    assert relative_error(unrolled(plain).value, unrolled(optimizer).value) > 1e-3


def test_recomputed_graphs_of_approximations_give_the_same():
    for jacobian in ("frozen", "plain"):
        for options in ({}, {"every": 3}, {"ascent": Momentum()}):
            optimizer = SAM(HEAVY, RHO, jacobian=jacobian, **options)
            kept, recomputed = unrolled(optimizer, 7), unrolled(optimizer, 7, Unrolled(every=2))
            assert relative_error(recomputed.value, kept.value) < 1e-11


@pytest.mark.parametrize("options", [{}, {"ascent": Adaptive(0.1)}, {"every": 2}, {"group": 4}])
def test_finite_difference_curvature_unrolls_too(options):
    optimizer = SAM(SLOW, RHO, **options)
    near = unrolled(optimizer, method=Unrolled(FiniteDifference(1e-4)))
    assert relative_error(near.value, unrolled(optimizer).value) < 1e-6


def test_gauss_newton_bends_both_passes_alike():
    # One step from θ; by hand, with B(at) the Gauss–Newton matrix there:
    # ∂θ₁/∂θ = I - lr B(θ + ε) (I + ∂ε/∂g B(θ))
    network, theta, phi = tanh_network()
    batch = network.everything

    def outputs(theta, phi, batch):
        return network.outputs(theta, batch.x), (torch.sigmoid(phi["w"])[batch.index], batch.y)

    def loss(z, held, lesson):
        weights, y = lesson
        return (weights * torch.nn.functional.cross_entropy(z, y, reduction="none")).mean()

    result = Unrolled(GaussNewton())(
        Bilevel(Composed(outputs, loss), network.outer),
        SAM(SLOW, RHO),
        theta,
        phi,
        inner=[batch],
        outer=network.validation,
    )

    def curvature_at(at):
        J = torch.func.jacrev(lambda v: network.outputs(shaped(v, theta), batch.x))(flat(at))
        prob = network.outputs(at, batch.x).softmax(1)
        inside = torch.diag_embed(prob) - prob[:, :, None] * prob[:, None, :]
        weight = torch.sigmoid(phi["w"]) / batch.size
        return torch.einsum("n,nai,nab,nbj->ij", weight, J, inside, J)

    g = torch.func.grad(network.inner)(theta, phi, batch)
    unit = torch.func.jacrev(lambda v: RHO * v / v.norm())(flat(g))
    point = p.scale(g, RHO / flat(g).norm())
    point = p.add(theta, point)
    moved = p.add(theta, torch.func.grad(network.inner)(point, phi, batch), -0.4)
    slope_there = flat(torch.func.grad(network.outer)(moved, phi, network.validation))
    eye = torch.eye(len(unit), dtype=unit.dtype)
    step_jacobian = eye - 0.4 * curvature_at(point) @ (eye + unit @ curvature_at(theta))
    expected = step_jacobian.T @ slope_there
    assert relative_error(flat(result.adjoint), expected) < 1e-12


# Implicit, where training has come to rest.


class Resting:
    """Weighted logistic regression under a hand-written SAM step, brought to rest by Newton."""

    def __init__(self, name: str):
        self.name = name
        self.problem, self.phi = weighted_regression("logistic", decay=0.1)
        self.options = {
            "sam": {},
            "p=3": {"ascent": Steepest(3.0)},
            "asam": {"ascent": Adaptive(0.1)},
            "two steps": {"steps": 2},
            "groups": {"group": 10},
            "second order": {"second_order": True},
        }[name]

    def optimizer(self, jacobian="exact"):
        base = SGD(0.3, weight_decay=self.problem.decay)
        return SAM(base, RHO, jacobian=jacobian, **self.options)

    def loss(self, t, phi, rows):
        losses = self.problem.losses(self.problem.x[rows] @ t, self.problem.y[rows])
        return (torch.sigmoid(phi)[rows] * losses).mean()

    def epsilon(self, t, phi, rows):
        if self.name == "p=3":
            g = torch.func.grad(self.loss)(t, phi, rows)
            return RHO * g.sign() * g.abs().sqrt() / g.abs().pow(1.5).sum() ** (1 / 3)
        if self.name == "asam":
            T = t.abs() + 0.1
            Tg = T * torch.func.grad(self.loss)(t, phi, rows)
            return RHO * T * Tg / Tg.norm()
        at, count = t, 2 if self.name == "two steps" else 1
        for _ in range(count):
            g = torch.func.grad(self.loss)(at, phi, rows)
            at = at + RHO / count * g / g.norm()
        return at - t

    def residual(self, t, phi):
        """F: what vanishes where the steps stop."""
        n, m = len(self.problem.x), 10 if self.name == "groups" else 24
        total = self.problem.decay * t
        for start in range(0, n, m):
            rows = slice(start, min(start + m, n))
            if self.name == "second order":
                sharp = torch.func.grad(
                    lambda t, rows=rows: self.loss(t + self.epsilon(t, phi, rows), phi, rows)
                )(t)
            else:
                point = t + self.epsilon(t, phi, rows)
                sharp = torch.func.grad(self.loss)(point, phi, rows)
            total = total + sharp * (rows.stop - rows.start) / n
        return total

    def rest(self, phi, start):
        t = start
        for _ in range(20):
            F = self.residual(t, phi)
            if float(F.norm()) < 1e-14:
                break
            H = torch.func.jacrev(lambda t: self.residual(t, phi))(t).reshape(t.numel(), -1)
            t = t - torch.linalg.solve(H, F.reshape(-1)).reshape_as(t)
        assert float(self.residual(t, phi).norm()) < 1e-13
        return t

    def retrained(self, start):
        problem = self.problem

        def outer(phi):
            at = self.rest(phi["w"], start)
            return problem.outer({"t": at}, phi, problem.outer_batch)

        return numeric_gradient(outer, {"w": self.phi}, 1e-4)

    def trained(self, steps=1500):
        """By the library's own steps."""
        theta = {"t": torch.zeros(4, 3, dtype=torch.float64)}
        problem, optimizer = self.problem, self.optimizer()
        grad_fn = Hessian()(problem.inner, {"w": self.phi}, problem.inner_batch)
        state = optimizer.init(theta)
        for _ in range(steps):
            theta, state, _ = step(optimizer, grad_fn, theta, state)
        return theta

    def implicit(self, theta, jacobian="exact", solver=None):
        problem = self.problem
        return Implicit(solver or Dense())(
            Bilevel(problem.inner, problem.outer),
            self.optimizer(jacobian),
            theta,
            {"w": self.phi},
            inner=[problem.inner_batch],
            outer=problem.outer_batch,
        )


@pytest.mark.parametrize("name", ["sam", "p=3", "asam", "two steps", "groups", "second order"])
def test_exact_is_the_slope_of_retraining(name):
    resting = Resting(name)
    theta = resting.trained()
    F = resting.residual(theta["t"], resting.phi)
    assert float(F.norm()) < 1e-10  # the steps stop where the hand-written F vanishes
    plain = torch.func.grad(resting.loss)(theta["t"], resting.phi, slice(None))
    assert float((plain + resting.problem.decay * theta["t"]).norm()) > 1e-2  # and SGD's does not
    slopes = resting.retrained(theta["t"])
    result = resting.implicit(theta)
    assert relative_error(result.value, slopes) < 1e-6
    assert float(result.diagnostics["stationarity"]) < 1e-10
    if not resting.options.get("second_order"):
        for jacobian in ("frozen", "plain"):
            result = resting.implicit(theta, jacobian)
            assert relative_error(result.value, slopes) > 1e-2


def test_the_jacobian_is_symmetric_only_with_the_second_order_term():
    for name, symmetric in (("sam", False), ("asam", False), ("second order", True)):
        resting = Resting(name)
        theta = resting.rest(resting.phi, resting.trained(300)["t"])
        H = torch.func.jacrev(lambda t, r=resting: r.residual(t, r.phi))(theta).reshape(12, 12)
        asymmetry = float((H - H.T).norm() / H.norm())
        assert asymmetry < 1e-14 if symmetric else asymmetry > 1e-2
        exact = resting.implicit({"t": theta})
        series = resting.implicit({"t": theta}, solver=Neumann(600, 0.3))
        assert relative_error(series.value, exact.value) < 1e-9


def test_climbing_now_and_then_has_no_single_point_of_rest():
    # Steps with and without a climb pull to different points: F says so, and unrolling is right.
    resting = Resting("sam")
    problem, phi, T = resting.problem, resting.phi, 120
    optimizer = SAM(SGD(0.3, weight_decay=problem.decay), RHO, every=2)
    grad_fn = Hessian()(problem.inner, {"w": phi}, problem.inner_batch)
    theta = {"t": torch.zeros(4, 3, dtype=torch.float64)}
    state = optimizer.init(theta)
    for _ in range(600):
        theta, state, _ = step(optimizer, grad_fn, theta, state)

    def learned(method, inner):
        return method(
            Bilevel(problem.inner, problem.outer),
            optimizer,
            theta,
            {"w": phi},
            inner=inner,
            outer=problem.outer_batch,
            state=state,
        )

    implicit = learned(Implicit(Dense()), [problem.inner_batch])
    assert float(implicit.diagnostics["stationarity"]) > 1e-2
    long = learned(Unrolled(), [problem.inner_batch] * T)
    longer = learned(Unrolled(), [problem.inner_batch] * 2 * T)
    assert relative_error(longer.value, long.value) < 0.01
    assert relative_error(implicit.value, longer.value) > 0.05
