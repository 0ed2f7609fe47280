"""Backpropagation through training, against the Neumann series and central differences."""

import weakref

import pytest
import torch
from oracles import (
    normal,
    numeric_gradient,
    relative_error,
    slope,
    tanh_network,
    weighted_regression,
)
from torch import nn

from commentaries import tree
from commentaries.commentary import ExampleWeights, Table, judged, taught
from commentaries.curvature import FiniteDifference, Hessian
from commentaries.errors import BadInput, NonFinite
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD, Adam, step
from commentaries.problem import Bilevel
from commentaries.solvers import Neumann
from commentaries.student import Student

OPTIMIZERS = {
    "sgd": SGD(0.4),
    "momentum": SGD(0.1, momentum=0.9),
    "nesterov, decay": SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    "adam": Adam(0.05, eps=1e-3),
    "adam, decay": Adam(0.05, eps=1e-3, weight_decay=0.1),
    "adamw": Adam(0.05, eps=1e-3, weight_decay=0.1, decoupled=True),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def walk(network, optimizer, theta, phi, batches, state=None):
    """Plain steps, whose only derivative is ∇_θ by `torch.func.grad`."""
    state = optimizer.init(theta) if state is None else state
    for batch in batches:
        gradient = torch.func.grad(network.inner)(theta, phi, batch)
        theta, state = optimizer.update(gradient, theta, state)
    return theta, state


@pytest.mark.parametrize("terms", [1, 2, 7])
@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_unrolled_steps_from_the_optimum_are_the_neumann_series(kind, terms):
    problem, phi = weighted_regression(kind)
    call = {
        "problem": Bilevel(problem.inner, problem.outer),
        "optimizer": SGD(lr=0.1, weight_decay=problem.decay),
        "theta": problem.optimum(phi),
        "phi": {"w": phi},
        "outer": problem.outer_batch,
    }
    unrolled = Unrolled()(**call, inner=[problem.inner_batch] * terms)
    series = Implicit(Neumann(terms, 0.1))(**call, inner=[problem.inner_batch])
    preconditioned = Implicit(Neumann(terms, 1.0), precondition=True)(
        **call, inner=[problem.inner_batch]
    )
    other = Implicit(Neumann(terms + 1, 0.1))(**call, inner=[problem.inner_batch])
    assert relative_error(unrolled.value, series.value) < 1e-13
    assert relative_error(unrolled.value, preconditioned.value) < 1e-13
    assert relative_error(other.value, series.value) > 1e-2


def test_preconditioning_holds_for_one_rate_per_parameter():
    # Σ_i P (I - HP)^i b with P = diag(lr): what steps with those rates compute.
    problem, phi = weighted_regression("logistic")
    rates = {"t": torch.linspace(0.02, 0.2, 12, dtype=torch.float64).reshape(4, 3)}
    call = {
        "problem": Bilevel(problem.inner, problem.outer),
        "optimizer": SGD(lr=rates, weight_decay=problem.decay),
        "theta": problem.optimum(phi),
        "phi": {"w": phi},
        "outer": problem.outer_batch,
    }
    unrolled = Unrolled()(**call, inner=[problem.inner_batch] * 5)
    series = Implicit(Neumann(5, 1.0), precondition=True)(**call, inner=[problem.inner_batch])
    assert relative_error(unrolled.value, series.value) < 1e-13


@every_optimizer
def test_against_central_differences(optimizer):
    network, theta, phi = tanh_network()
    batches = network.batches(5)
    result = Unrolled()(
        Bilevel(network.inner, network.outer),
        optimizer,
        theta,
        phi,
        inner=batches,
        outer=network.validation,
    )

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


@every_optimizer
@pytest.mark.parametrize("every", [1, 2, 3, "sqrt"])
def test_recomputed_graphs_give_the_same(every, optimizer):
    network, theta, phi = tanh_network()
    call = {
        "problem": Bilevel(network.inner, network.outer),
        "optimizer": optimizer,
        "theta": theta,
        "phi": phi,
        "inner": network.batches(7),
        "outer": network.validation,
    }
    kept, recomputed = Unrolled()(**call), Unrolled(every=every)(**call)
    assert relative_error(recomputed.value, kept.value) < 1e-12
    assert relative_error(recomputed.adjoint, kept.adjoint) < 1e-12
    assert torch.equal(recomputed.outer_loss, kept.outer_loss)
    assert all(torch.equal(recomputed.theta[k], kept.theta[k]) for k in theta)
    for a, b in zip(tree.leaves(recomputed.state), tree.leaves(kept.state), strict=True):
        assert torch.equal(a, b)


@every_optimizer
@pytest.mark.parametrize("every", [None, 2, "sqrt"])
def test_the_last_steps_are_an_unroll_that_starts_later(optimizer, every):
    network, theta, phi = tanh_network()
    bilevel, batches = Bilevel(network.inner, network.outer), network.batches(7)
    truncated = Unrolled(last=3, every=every)(
        bilevel, optimizer, theta, phi, inner=batches, outer=network.validation
    )
    later, state = walk(network, optimizer, theta, phi, batches[:4])
    full = Unrolled()(
        bilevel, optimizer, later, phi, inner=batches[4:], outer=network.validation, state=state
    )
    assert relative_error(truncated.value, full.value) < 1e-12
    assert relative_error(truncated.adjoint, full.adjoint) < 1e-12
    whole = Unrolled()(bilevel, optimizer, theta, phi, inner=batches, outer=network.validation)
    assert relative_error(truncated.value, whole.value) > 1e-3
    capped = Unrolled(last=100)(
        bilevel, optimizer, theta, phi, inner=batches, outer=network.validation
    )
    assert torch.equal(capped.value["w"], whole.value["w"])


@every_optimizer
@pytest.mark.parametrize("method", [Unrolled(), Implicit(Neumann(2, 0.01))], ids=["unr", "imp"])
def test_theta_and_state_are_those_of_plain_steps(method, optimizer):
    network, theta, phi = tanh_network()
    batches = network.batches(6)
    _, state = walk(network, optimizer, theta, phi, batches[:2])
    result = method(
        Bilevel(network.inner, network.outer),
        optimizer,
        theta,
        phi,
        inner=batches[2:],
        outer=network.validation,
        state=state,
    )
    end, after = walk(network, optimizer, theta, phi, batches[2:], state)
    assert relative_error(result.theta, end) < 1e-13
    for a, b in zip(tree.leaves(result.state), tree.leaves(after), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    if isinstance(method, Unrolled):
        loss = network.outer(end, phi, network.validation)
        assert float(result.outer_loss) == pytest.approx(float(loss), rel=1e-13)


def test_the_start_is_a_whole_step_of_the_library():
    network, theta, phi = tanh_network()
    optimizer, batch = Adam(0.05), network.batches(1)[0]
    result = Unrolled()(
        Bilevel(network.inner, network.outer),
        optimizer,
        theta,
        phi,
        inner=[batch],
        outer=network.validation,
    )
    moved, _, loss = step(
        optimizer, Hessian()(network.inner, phi, batch), theta, optimizer.init(theta)
    )
    assert all(torch.equal(result.theta[k], moved[k]) for k in theta)
    assert torch.equal(result.diagnostics["inner_loss"], loss)


@pytest.mark.parametrize(("every", "states", "steps"), [("sqrt", 10 + 10, 3), (1, 100, 2)])
def test_how_many_states_are_alive_and_how_often_a_step_is_taken(every, states, steps):
    network, theta, phi = tanh_network()
    alive, most, taken = weakref.WeakSet(), [0], [0]

    class Counted(SGD):
        def update(self, gradient, params, state):
            moved, state = super().update(gradient, params, state)
            alive.add(moved["0.weight"])
            taken[0] += 1
            most[0] = max(most[0], len(alive))
            return moved, state

    Unrolled(every=every)(
        Bilevel(network.inner, network.outer),
        Counted(0.01),
        theta,
        phi,
        inner=network.batches(1) * 100,
        outer=network.validation,
    )
    assert states - 3 <= most[0] <= states + 3
    assert (steps - 0.3) * 100 <= taken[0] <= steps * 100


def test_a_thousand_steps():
    problem, phi = weighted_regression("logistic")
    result = Unrolled(every="sqrt")(
        Bilevel(problem.inner, problem.outer),
        SGD(0.5, weight_decay=problem.decay),
        {"t": torch.zeros(4, 3, dtype=torch.float64)},
        {"w": phi},
        inner=[problem.inner_batch] * 1000,
        outer=problem.outer_batch,
    )
    assert relative_error(result.value, problem.hypergradient(phi)) < 1e-12


def test_dropout_and_batch_statistics_are_replayed():
    student = Student(
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3))
    )
    network, _, phi = tanh_network()
    theta = {name: value.double() for name, value in student.init(torch.Generator()).items()}
    inner = taught(student, ExampleWeights(Table(12)))
    call = {
        "problem": Bilevel(inner, judged(student)),
        "optimizer": Adam(0.05, eps=1e-3),
        "theta": theta,
        "phi": {"logits": phi["w"]},
        "inner": network.batches(9),
        "outer": network.validation,
    }
    kept = Unrolled()(**call)
    torch.manual_seed(5)
    recomputed = Unrolled(every="sqrt")(**call)
    assert relative_error(recomputed.value, kept.value) < 1e-12
    other = call | {"inner": [batch._replace(seed=99) for batch in call["inner"]]}
    assert relative_error(Unrolled()(**other).value, kept.value) > 1e-2


def test_direct_dependence_of_the_outer_loss():
    network, theta, phi = tanh_network()

    def outer(theta, phi, batch):
        return network.outer(theta, phi, batch) + (phi["w"].exp() * theta["2.bias"].sum()).sum()

    batches = network.batches(3)
    result = Unrolled(every=1)(
        Bilevel(network.inner, outer),
        SGD(0.3),
        theta,
        phi,
        inner=batches,
        outer=network.validation,
    )
    slopes = numeric_gradient(
        lambda at: outer(walk(network, SGD(0.3), theta, at, batches)[0], at, network.validation),
        phi,
        1e-5,
    )
    assert relative_error(result.value, slopes) < 1e-7


def test_finite_difference_curvature_unrolls_too():
    network, theta, phi = tanh_network()
    call = {
        "problem": Bilevel(network.inner, network.outer),
        "optimizer": SGD(0.3, momentum=0.9),
        "theta": theta,
        "phi": phi,
        "inner": network.batches(4),
        "outer": network.validation,
    }
    exact, near = Unrolled()(**call), Unrolled(FiniteDifference(1e-4))(**call)
    assert relative_error(near.value, exact.value) < 1e-6
    assert relative_error(near.adjoint, exact.adjoint) < 1e-6


@pytest.mark.parametrize("method", [Unrolled(), Unrolled(every=1), Implicit(Neumann(2, 0.1))])
def test_no_graph_survives(method):
    network, theta, phi = tanh_network()
    theta = {k: v.requires_grad_() for k, v in theta.items()}
    phi = {k: v.requires_grad_() for k, v in phi.items()}
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    for optimizer in (Adam(rate), SGD(rate, momentum=0.5)):
        result = method(
            Bilevel(network.inner, network.outer),
            optimizer,
            theta,
            phi,
            inner=network.batches(3),
            outer=network.validation,
        )
        fields = [result.value, result.outer_loss, result.theta, result.state, result.adjoint]
        assert not any(leaf.requires_grad for leaf in tree.leaves([*fields, result.diagnostics]))
    assert all(v.grad is None for v in [*theta.values(), *phi.values()])


@pytest.mark.parametrize("every", [None, 2, "sqrt"])
def test_twice_the_same_is_bitwise_equal_and_leaves_its_inputs(every):
    network, theta, phi = tanh_network()
    before = {k: v.clone() for k, v in (theta | phi).items()}
    results = [
        Unrolled(every=every)(
            Bilevel(network.inner, network.outer),
            Adam(0.05),
            theta,
            phi,
            inner=network.batches(5),
            outer=network.validation,
        )
        for _ in range(2)
    ]
    assert torch.equal(results[0].value["w"], results[1].value["w"])
    assert all(torch.equal(before[k], v) for k, v in (theta | phi).items())


def test_bad_inputs():
    network, theta, phi = tanh_network()
    for bad in ({"every": 0}, {"every": -2}, {"every": "log"}, {"last": 0}):
        with pytest.raises(BadInput, match=next(iter(bad))):
            Unrolled(**bad)
    with pytest.raises(BadInput, match="holds no batch"):
        Unrolled()(
            Bilevel(network.inner, network.outer),
            SGD(0.1),
            theta,
            phi,
            inner=[],
            outer=network.validation,
        )
    with pytest.raises(NonFinite, match=r"smaller one\.$"):
        Unrolled()(
            Bilevel(network.inner, network.outer),
            SGD(0.1),
            theta,
            {"w": torch.full((12,), torch.nan)},
            inner=network.batches(3),
            outer=network.validation,
        )
