"""Sharpness-aware steps, each against a loop written out by hand.

Hand-written loops take their gradients from `torch.func.grad` and use nothing of the optimiser.
"""

import math

import pytest
import torch
from oracles import flat, numeric_gradient, relative_error, shaped, slope, tanh_network
from torch.nn import functional

from commentaries import params as p
from commentaries import tree
from commentaries.curvature import Hessian
from commentaries.errors import BadInput
from commentaries.inner import SAM, SGD, Adam, Adaptive, Momentum, Random, Steepest, step
from commentaries.training import checkpoint
from commentaries.types import Batch

RHO = 0.2


def gradient_at(network, theta, phi, batch):
    return torch.func.grad(network.inner)(theta, phi, batch)


def climbed(network, theta, phi, batch, rho=RHO):
    """ρ g / ‖g‖ and g."""
    g = gradient_at(network, theta, phi, batch)
    return p.scale(g, rho / flat(g).norm()), g


def sharp_at(network, theta, phi, batch, rho=RHO):
    """∇L(θ + ρ g / ‖g‖)."""
    epsilon, _ = climbed(network, theta, phi, batch, rho)
    return gradient_at(network, p.add(theta, epsilon), phi, batch)


def train(optimizer, network, theta, phi, batches, state=None):
    state = optimizer.init(theta) if state is None else state
    for batch in batches:
        theta, state, _ = step(optimizer, Hessian()(network.inner, phi, batch), theta, state)
    return theta, state


class Counted:
    """A gradient function that counts its calls and remembers where they were."""

    def __init__(self, network, phi, batch):
        self.inner, self.size, self.points = Hessian()(network.inner, phi, batch), batch.size, []

    def __call__(self, params, rows=None):
        self.points.append((flat(params).detach(), rows))
        return self.inner(params, rows)


# One step, and thirty.


def test_a_step_by_hand():
    network, theta, phi = tanh_network()
    batch = network.everything
    optimizer = SAM(SGD(0.1, weight_decay=0.3), rho=RHO)
    state = optimizer.init(theta)
    G, state, loss = optimizer.gradient(Hessian()(network.inner, phi, batch), theta, state)
    moved, _ = optimizer.update(G, theta, state)
    expected = sharp_at(network, theta, phi, batch)
    assert relative_error(G, expected) < 1e-14
    assert relative_error(G, gradient_at(network, theta, phi, batch)) > 1e-2
    assert float(loss) == pytest.approx(float(network.inner(theta, phi, batch)), rel=1e-15)
    # the decay is taken at θ
    by_hand = {k: v - 0.1 * (expected[k] + 0.3 * v) for k, v in theta.items()}
    assert relative_error(moved, by_hand) < 1e-15
    F = optimizer.stationarity(G, theta, state)
    assert relative_error(F, p.add(expected, theta, 0.3)) < 1e-15


def test_the_ascent_climbs_by_rho():
    network, theta, phi = tanh_network()
    for norm, order in ((1.5, 1.5), (2, 2), (3, 3), (math.inf, math.inf)):
        optimizer = SAM(SGD(0.1), rho=RHO, ascent=Steepest(norm))
        grad_fn = Hessian()(network.inner, phi, network.everything)
        epsilon, g, loss = optimizer.epsilon(grad_fn, theta, optimizer.init(theta))
        assert float(torch.linalg.vector_norm(flat(epsilon), order)) == pytest.approx(
            RHO, rel=1e-12
        )
        dual = 1 if norm == math.inf else norm / (norm - 1)
        gain = RHO * float(torch.linalg.vector_norm(flat(g), dual))
        assert float(flat(epsilon) @ flat(g)) == pytest.approx(gain, rel=1e-12)
        assert relative_error(g, gradient_at(network, theta, phi, network.everything)) < 1e-14
        assert float(loss) == float(network.inner(theta, phi, network.everything))
        above = float(network.inner(p.add(theta, epsilon), phi, network.everything))
        assert above > float(loss)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_thirty_steps_of_pytorch_optimizer(adaptive, base):
    theirs = pytest.importorskip("pytorch_optimizer").SAM
    network, theta, phi = tanh_network()
    batches = network.batches(30)
    torch_base, options, ours = {
        "sgd": (
            torch.optim.SGD,
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            SGD(0.1, momentum=0.9, weight_decay=0.01),
        ),
        "adam": (torch.optim.Adam, {"lr": 0.02}, Adam(0.02)),
    }[base]
    ascent = Adaptive(eta=0.0) if adaptive else Steepest()
    moving, _ = train(SAM(ours, 0.3, ascent), network, theta, phi, batches)
    leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}
    # their norm is rounded to float32, and has a constant added to it that is set to zero here
    other = theirs(
        [*leaves.values()], torch_base, rho=0.3, adaptive=adaptive, perturb_eps=0.0, **options
    )
    for batch in batches:

        def closure(batch=batch):
            other.zero_grad()
            loss = network.inner(leaves, phi, batch)
            loss.backward()
            return loss

        closure()
        other.step(closure)
    assert relative_error(moving, p.detach(leaves)) < 1e-7
    plain, _ = train(ours, network, theta, phi, batches)
    assert relative_error(plain, moving) > 1e-2
    swapped = Steepest() if adaptive else Adaptive(eta=0.0)
    assert relative_error(train(SAM(ours, 0.3, swapped), network, theta, phi, batches)[0],
                          moving) > 1e-2  # fmt: skip


# ρ.


def test_one_rho_for_each_parameter_under_one_norm():
    network, theta, phi = tanh_network()
    batch = network.everything
    rhos = {k: torch.tensor(0.1 * (i + 1), dtype=torch.float64) for i, k in enumerate(theta)}
    optimizer = SAM(SGD(0.1), rho=rhos)
    grad_fn = Hessian()(network.inner, phi, batch)
    G, _, _ = optimizer.gradient(grad_fn, theta, optimizer.init(theta))
    g = gradient_at(network, theta, phi, batch)
    norm = flat(g).norm()  # of all parameters, not of each
    point = {k: v + rhos[k] * g[k] / norm for k, v in theta.items()}
    assert relative_error(G, gradient_at(network, point, phi, batch)) < 1e-14
    apart = {k: v + rhos[k] * g[k] / g[k].norm() for k, v in theta.items()}
    assert relative_error(G, gradient_at(network, apart, phi, batch)) > 1e-2
    for steps in (1, 3):
        named = {k: torch.full_like(v, RHO) for k, v in theta.items()}
        alike, one = (SAM(SGD(0.1), rho=rho, steps=steps) for rho in (named, RHO))
        G, _, _ = alike.gradient(grad_fn, theta, alike.init(theta))
        expected, _, _ = one.gradient(grad_fn, theta, one.init(theta))
        assert relative_error(G, expected) < 1e-14


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"second_order": True}, {"every": 2}])
def test_rho_can_be_differentiated(options):
    network, theta, phi = tanh_network()
    batches = network.batches(3)

    def end(rho):
        at, _ = train(SAM(SGD(0.5), rho=rho["rho"], **options), network, theta, phi, batches)
        return network.outer(at, phi, network.validation)

    rho = {"rho": torch.tensor(RHO, dtype=torch.float64)}
    (found,) = torch.autograd.grad(end(live := p.live(rho)), live["rho"])
    expected = slope(lambda rho: end(rho).detach(), rho, {"rho": torch.ones(()).double()}, 1e-5)
    assert float(found) == pytest.approx(expected, rel=1e-7)


# Other directions.


class TwoLayers:
    """A ReLU network; the same function results if W, b are multiplied and V divided by a."""

    def __init__(self):
        g = torch.Generator().manual_seed(2)

        def draw(*shape):
            return torch.randn(shape, generator=g, dtype=torch.float64)

        self.theta = {"W": draw(6, 3), "b": draw(6), "V": draw(2, 6)}
        self.batch = Batch(draw(20, 3), draw(20, 2), torch.arange(20))
        self.probe = draw(9, 3)

    def __call__(self, theta, x):
        return torch.relu(x @ theta["W"].mT + theta["b"]) @ theta["V"].mT

    def inner(self, theta, phi, batch):
        return (self(theta, batch.x) - batch.y).square().mean()


@pytest.mark.parametrize("a", [0.3, 4.0])
def test_only_asam_does_not_see_which_layer_holds_the_scale(a):
    network = TwoLayers()
    stretch = {"W": a, "b": a, "V": 1 / a}

    def outputs(optimizer, factors, ascent):
        # The rates follow the square of the scale, so that the steps of SGD alone are the same
        # function too: what is left is the ascent.
        theta = {k: factors[k] * v for k, v in network.theta.items()}
        rates = {k: torch.tensor(0.02 * f**2, dtype=torch.float64) for k, f in factors.items()}
        base = SGD(rates)
        optimizer = base if ascent is None else SAM(base, rho=0.5, ascent=ascent)
        theta, _ = train(optimizer, network, theta, {}, [network.batch] * 20)
        return network(theta, network.probe)

    def change(ascent):
        as_is = outputs(None, dict.fromkeys(stretch, 1.0), ascent)
        return relative_error(outputs(None, stretch, ascent), as_is)

    assert change(None) < 1e-12
    assert change(Adaptive(eta=0.0)) < 1e-12
    assert change(Steepest()) > 1e-2
    assert change(Adaptive(eta=0.1)) > 1e-4
    moved = outputs(None, dict.fromkeys(stretch, 1.0), Adaptive(eta=0.0))
    assert relative_error(moved, network(network.theta, network.probe)) > 0.1


def test_a_random_direction_costs_one_gradient_at_a_distance_of_rho():
    network, theta, phi = tanh_network()
    optimizer = SAM(SGD(0.1), rho=RHO, ascent=Random(seed=1))
    state, seen = optimizer.init(theta), []
    for batch in network.batches(5):
        counted = Counted(network, phi, batch)
        last = flat(theta)
        theta, state, loss = step(optimizer, counted, theta, state)
        ((point, _),) = counted.points
        seen.append(point - last)
        assert float(seen[-1].norm()) == pytest.approx(RHO, rel=1e-12)
        there = gradient_at(network, shaped(point, theta), phi, batch)
        torch.testing.assert_close(flat(theta), last - 0.1 * flat(there), rtol=1e-13, atol=1e-15)
        assert float(loss) == float(network.inner(shaped(point, theta), phi, batch))
    assert all(abs(float(a @ b)) < 0.9 * RHO**2 for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("jacobian", ["exact", "frozen", "plain"])
def test_momentum_sam_by_hand(jacobian):
    network, theta, phi = tanh_network()
    batches = network.batches(6)
    base = SGD(0.1, momentum=0.8, weight_decay=0.2)
    optimizer = SAM(base, RHO, Momentum(0.8), jacobian=jacobian)
    at, v, buffer = theta, p.zeros_like(theta), p.zeros_like(theta)
    moving, state = theta, optimizer.init(theta)
    for batch in batches:
        norm = flat(v).norm()
        point = p.add(at, v, -RHO / norm) if norm > 0 else at
        G = gradient_at(network, point, phi, batch)
        v = p.add(G, v, 0.8)  # of gradients alone, where the base's has the decay as well
        buffer = p.add(p.add(G, at, 0.2), buffer, 0.8)
        at = p.add(at, buffer, -0.1)
        counted = Counted(network, phi, batch)
        with torch.no_grad():
            moving, state, _ = step(optimizer, counted, moving, state)
        assert len(counted.points) == 1
    assert relative_error(moving, at) < 1e-13
    assert relative_error(state.ascent.momentum, v) < 1e-13
    assert relative_error(train(base, network, theta, phi, batches)[0], at) > 1e-2


# Several ascent steps, groups, and climbs now and then.


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("norm", [2.0, math.inf])
def test_ascent_steps_by_hand(steps, norm):
    network, theta, phi = tanh_network()
    batch = network.everything
    optimizer = SAM(SGD(0.1), rho=1.0, ascent=Steepest(norm), steps=steps)
    counted = Counted(network, phi, batch)
    G, _, loss = optimizer.gradient(counted, theta, optimizer.init(theta))
    assert len(counted.points) == steps + 1
    at = theta
    for _ in range(steps):
        g = gradient_at(network, at, phi, batch)
        unit = p.scale(g, 1 / flat(g).norm()) if norm == 2 else {k: v.sign() for k, v in g.items()}
        at = p.add(at, unit, 1.0 / steps)
    assert relative_error(G, gradient_at(network, at, phi, batch)) < 1e-13
    reached = flat(at) - flat(theta)
    torch.testing.assert_close(counted.points[-1][0] - flat(theta), reached, rtol=1e-12, atol=1e-14)
    assert float(torch.linalg.vector_norm(reached, norm)) <= 1 + 1e-12
    assert float(loss) == float(network.inner(theta, phi, batch))


def test_adaptive_steps_stay_within_rho_too():
    network, theta, phi = tanh_network()
    optimizer = SAM(SGD(0.1), rho=1.0, ascent=Adaptive(0.01), steps=4)
    grad_fn = Hessian()(network.inner, phi, network.everything)
    epsilon, _, _ = optimizer.epsilon(grad_fn, theta, optimizer.init(theta))
    length = float((flat(epsilon) / (flat(theta).abs() + 0.01)).norm())
    assert 0.5 < length <= 1


def in_groups(batch, m):
    """The parts of a batch, and the share of each."""
    parts = [batch.rows(slice(i, min(i + m, batch.size))) for i in range(0, batch.size, m)]
    return [(part, part.size / batch.size) for part in parts]


@pytest.mark.parametrize("m", [1, 3, 5, 11])
@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"second_order": True}])
def test_groups_by_hand(m, options):
    network, theta, phi = tanh_network()
    batch = network.everything  # 12 examples: 5 and 11 leave an uneven last group
    optimizer = SAM(SGD(0.1), rho=RHO, group=m, **options)
    counted = Counted(network, phi, batch)
    G, _, loss = optimizer.gradient(counted, theta, optimizer.init(theta))
    expected, total = p.zeros_like(theta), 0.0
    for part, share in in_groups(batch, m):
        if "second_order" in options:
            sharp = torch.func.grad(lambda at, part=part: whole(network, at, phi, part))(theta)
        elif "steps" in options:
            half, _ = climbed(network, theta, phi, part, RHO / 2)
            point = p.add(theta, half)
            half, _ = climbed(network, point, phi, part, RHO / 2)
            sharp = gradient_at(network, p.add(point, half), phi, part)
        else:
            sharp = sharp_at(network, theta, phi, part)
        expected = p.add(expected, sharp, share)
        total += float(network.inner(theta, phi, part)) * share
    assert relative_error(G, expected) < 1e-13
    assert float(loss) == pytest.approx(total, rel=1e-13)
    assert total == pytest.approx(float(network.inner(theta, phi, batch)), rel=1e-13)
    assert len(counted.points) == (optimizer.steps + 1) * math.ceil(12 / m)
    assert relative_error(G, sharp_at(network, theta, phi, batch)) > 1e-3


@pytest.mark.parametrize("m", [12, 50])
def test_a_group_of_the_whole_batch_is_no_group(m):
    network, theta, phi = tanh_network()
    counted = Counted(network, phi, network.everything)
    found = [
        optimizer.gradient(counted, theta, optimizer.init(theta))
        for optimizer in (SAM(SGD(0.1), RHO), SAM(SGD(0.1), RHO, group=m))
    ]
    for a, b in zip(*(tree.leaves(f) for f in found), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert all(rows is None for _, rows in counted.points)


@pytest.mark.parametrize("reuse", [0.0, 0.7])
@pytest.mark.parametrize(("every", "m"), [(2, 6), (3, 6), (3, 4)])
def test_climbing_now_and_then_by_hand(every, m, reuse):
    network, theta, phi = tanh_network()
    batches = network.batches(7)
    optimizer = SAM(SGD(0.2), rho=RHO, every=every, reuse=reuse, group=m)
    at, turn = theta, None
    moving, state = theta, optimizer.init(theta)
    assert not any(value.any() for value in state.turn.values())
    for i, batch in enumerate(batches):
        g = gradient_at(network, at, phi, batch)
        if i % every == 0:
            G = p.zeros_like(at)
            for part, share in in_groups(batch, m):
                G = p.add(G, sharp_at(network, at, phi, part), share)
            cosine = flat(G) @ flat(g) / (flat(G).norm() * flat(g).norm())
            turn = flat(G) - flat(G).norm() * cosine * flat(g) / flat(g).norm()
            assert abs(float(turn @ flat(g))) < 1e-12
        else:
            G = shaped(flat(g) + reuse * flat(g).norm() * turn / turn.norm(), theta)
        at = p.add(at, G, -0.2)
        counted = Counted(network, phi, batch)
        moving, state, loss = step(optimizer, counted, moving, state)
        assert len(counted.points) == (2 * math.ceil(6 / m) if i % every == 0 else 1)
        start = shaped(counted.points[0][0], theta)
        assert float(loss) == pytest.approx(float(network.inner(start, phi, batch)), rel=1e-14)
    assert relative_error(moving, at) < 1e-12
    assert int(state.step) == 7
    always, _ = train(SAM(SGD(0.2), rho=RHO), network, theta, phi, batches)
    assert relative_error(always, moving) > 1e-3


def test_a_turn_has_the_second_order_term_in_it():
    network, theta, phi = tanh_network()
    optimizer = SAM(SGD(0.2), RHO, every=2, second_order=True)
    grad_fn = Hessian()(network.inner, phi, network.everything)
    G, state, _ = optimizer.gradient(grad_fn, theta, optimizer.init(theta))
    g = flat(gradient_at(network, theta, phi, network.everything))
    by_hand = flat(G) - (flat(G) @ g) / (g @ g) * g
    assert relative_error(flat(state.turn), by_hand) < 1e-12


def test_without_reuse_steps_in_between_are_those_of_the_base():
    network, theta, phi = tanh_network()
    first, *others = network.batches(4)
    base = Adam(0.05, weight_decay=0.1)
    optimizer = SAM(base, rho=RHO, every=4, reuse=0.0)
    at, state = train(optimizer, network, theta, phi, [first])
    assert state.turn == {}
    found, _ = train(optimizer, network, at, phi, others, state)
    expected, _ = train(base, network, at, phi, others, state.base)
    assert torch.equal(flat(found), flat(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_turn_that_is_only_rounding_is_not_reused(dtype):
    # With one parameter there is nothing orthogonal to the gradient: no step can be turned.
    x = torch.linspace(-1, 1.3, 20, dtype=dtype)

    def inner(theta, phi, batch):
        return (x * theta["t"] - 2 * x - 0.3 * x.square()).square().mean()

    network, _, phi = tanh_network()
    grad_fn = Hessian()(inner, phi, network.everything)
    optimizer = SAM(SGD(0.1), 0.05, every=2)
    theta = {"t": torch.tensor([3.7], dtype=dtype)}
    state = optimizer.init(theta)
    for i in range(20):
        G, state, _ = optimizer.gradient(grad_fn, theta, state)
        if i % 2:
            assert torch.equal(G["t"], grad_fn(theta)[0]["t"])
        theta, state = optimizer.update(G, theta, state)


# The second-order term.


def whole(network, theta, phi, batch, optimizer=None, state=None):
    """L(θ + ε(θ)), differentiable, by `torch.func` alone; p = 2 by hand without an optimiser."""
    if optimizer is None:
        epsilon, _ = climbed(network, theta, phi, batch)
        return network.inner(p.add(theta, epsilon), phi, batch)

    def grad_fn(params, rows=None):
        return gradient_at(network, params, phi, batch), None

    epsilon, _, _ = optimizer.epsilon(grad_fn, theta, state)
    return network.inner(p.add(theta, epsilon), phi, batch)


SECOND_ORDER = {
    "p=2": {},
    "p=3": {"ascent": Steepest(3.0)},
    "asam": {"ascent": Adaptive(0.1)},
    "asam, some": {"ascent": Adaptive(0.1, only=lambda name: "weight" in name)},
    "three steps": {"steps": 3},
}


@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("grad_mode", [False, True])
def test_the_second_order_gradient_is_that_of_the_loss_uphill(name, grad_mode):
    network, theta, phi = tanh_network()
    batch = network.everything
    options = {"rho": 1.0, **SECOND_ORDER[name]}
    optimizer = SAM(SGD(0.1), second_order=True, **options)
    state = optimizer.init(theta)
    assert bool(state.cosine.isnan())
    counted = Counted(network, phi, batch)
    with torch.set_grad_enabled(grad_mode):
        G, after, loss = optimizer.gradient(counted, p.live(theta) if grad_mode else theta, state)
    assert len(counted.points) == optimizer.steps + 1
    assert float(loss) == float(network.inner(theta, phi, batch))

    def uphill(theta):
        return whole(network, theta, phi, batch, optimizer, state)

    G = p.detach(G)
    assert relative_error(G, numeric_gradient(uphill, theta, 1e-5)) < 1e-8
    by_func = torch.func.grad(uphill)(theta)
    assert relative_error(G, by_func) < 1e-12
    dropped = SAM(SGD(0.1), **options)
    plain, _, _ = dropped.gradient(counted, theta, dropped.init(theta))
    assert relative_error(plain, G) > 1e-2
    cosine = flat(plain) @ flat(by_func) / (flat(plain).norm() * flat(by_func).norm())
    assert float(after.cosine) == pytest.approx(float(cosine), rel=1e-12)
    assert float(after.cosine) < 0.999


def test_the_second_order_gradient_by_hand():
    network, theta, phi = tanh_network()
    batch = network.everything
    optimizer = SAM(SGD(0.1), RHO, second_order=True)
    grad_fn = Hessian()(network.inner, phi, batch)
    G, _, _ = optimizer.gradient(grad_fn, theta, optimizer.init(theta))
    assert relative_error(G, torch.func.grad(lambda at: whole(network, at, phi, batch))(theta)) < (
        1e-13
    )


def test_without_the_term_there_is_no_cosine():
    network, theta, phi = tanh_network()
    _, state = train(SAM(SGD(0.1)), network, theta, phi, network.batches(2))
    assert bool(state.cosine.isnan())
    assert state.turn == {}


def test_signs_do_not_bend():
    # the derivative of a sign is zero; a parameter that the loss ignores has not even that
    network, theta, phi = tanh_network()
    theta["unused"] = torch.ones(2, dtype=torch.float64)
    grad_fn = Hessian()(network.inner, phi, network.everything)
    both = [SAM(SGD(0.1), RHO, Steepest(math.inf), second_order=second) for second in (0, 1)]
    (plain, _, _), (G, state, _) = (o.gradient(grad_fn, theta, o.init(theta)) for o in both)
    assert torch.equal(flat(G), flat(plain))
    assert float(state.cosine) == pytest.approx(1, rel=1e-12)
    assert not G["unused"].any()


@pytest.mark.parametrize("of_theta", [False, True])
def test_no_graph_is_kept_that_nobody_asks_for(of_theta):
    network, theta, phi = tanh_network()
    grad_fn = Hessian()(network.inner, phi, network.everything)
    for options in ({}, {"every": 2}, {"group": 5}, {"steps": 2}, {"ascent": Adaptive()}):
        optimizer = SAM(SGD(0.1, momentum=0.5), second_order=True, **options)
        for grad_mode in (False, True):
            if grad_mode and of_theta:
                continue
            at, state = (p.live(theta) if of_theta else theta), optimizer.init(theta)
            with torch.set_grad_enabled(grad_mode):
                for _ in range(3):
                    at, state, loss = step(optimizer, grad_fn, at, state)
            assert not any(leaf.requires_grad for leaf in tree.leaves([at, state, loss]))


# Zero, small, and what is kept.

VARIANTS = {
    "sam": {},
    "p=3": {"ascent": Steepest(3.0)},
    "signs": {"ascent": Steepest(math.inf)},
    "asam": {"ascent": Adaptive()},
    "momentum": {"ascent": Momentum()},
    "steps": {"steps": 2},
    "groups": {"group": 5},
    "every": {"every": 2},
    "second order": {"second_order": True},
    "second order, every": {"second_order": True, "every": 2},
    "frozen": {"jacobian": "frozen"},
    "plain": {"jacobian": "plain"},
}
every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_zero_climbs_nowhere(options, dtype):
    # weights of zero: no loss, no gradient, and yet a φ to be learned
    network, theta, _ = tanh_network()
    theta = {k: v.to(dtype) for k, v in theta.items()}
    batch = network.everything
    batch = batch._replace(x=batch.x.to(dtype))

    def inner(theta, phi, batch):
        return (phi["w"][batch.index] * network.losses(theta, batch.x, batch.y)).mean()

    phi = {"w": torch.zeros(12, dtype=dtype, requires_grad=True)}
    optimizer = SAM(SGD(0.1), **options)
    live, state = p.live(theta), optimizer.init(theta)
    at = live
    for _ in range(3):
        at, state, _ = step(optimizer, Hessian()(inner, phi, batch), at, state)
    assert all(torch.equal(at[k], theta[k]) for k in theta)
    first, second = p.joint_gradients(network.outer(at, {}, batch), live, phi)
    assert p.is_finite(first)
    assert p.is_finite(second)
    assert second["w"].any()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_ascent_does_not_see_the_scale_of_the_loss_in_float32(scale):
    network, theta, phi = tanh_network()
    theta = {k: v.float() for k, v in theta.items()}
    batch = network.everything
    batch = batch._replace(x=batch.x.float())

    def inner(theta, phi, batch):
        return network.losses(theta, batch.x, batch.y).mean() * scale

    for ascent in (Steepest(), Steepest(3.0), Steepest(math.inf), Adaptive()):
        optimizer, as_is = SAM(SGD(0.1), RHO, ascent), SAM(SGD(0.1), RHO, ascent)
        found, _, _ = optimizer.epsilon(Hessian()(inner, phi, batch), theta, optimizer.init(theta))
        expected, _, _ = as_is.epsilon(
            Hessian()(lambda *a: inner(*a) / scale, phi, batch), theta, as_is.init(theta)
        )
        assert relative_error(found, expected) < 1e-5
        assert {v.dtype for v in found.values()} == {torch.float32}


def test_all_jacobians_train_alike():
    network, theta, phi = tanh_network()
    for options in ({}, {"ascent": Adaptive()}, {"group": 4}, {"ascent": Momentum()}):
        ends = []
        for jacobian in ("exact", "frozen", "plain"):
            optimizer = SAM(SGD(0.1, momentum=0.9), RHO, jacobian=jacobian, **options)
            for at in (theta, p.live(theta)):
                end, _ = train(optimizer, network, at, phi, network.batches(4))
                ends.append(flat(end).detach())
        for end in ends[1:]:
            torch.testing.assert_close(end, ends[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ascent", [Steepest(), Momentum(), Random()], ids=["sam", "m", "random"])
def test_a_saved_state_goes_on_bit_for_bit(tmp_path, ascent):
    network, theta, phi = tanh_network()
    batches = network.batches(7)
    every = 3 if ascent.needs_gradient else 1
    optimizer = SAM(Adam(0.05), RHO, ascent, every=every)
    expected = train(optimizer, network, theta, phi, batches)
    half = train(optimizer, network, theta, phi, batches[:4])
    checkpoint.save(tmp_path / "checkpoint.pt", half)
    loaded = checkpoint.load(tmp_path / "checkpoint.pt", (theta, optimizer.init(theta)))
    found = train(optimizer, network, loaded[0], phi, batches[4:], loaded[1])
    for a, b in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert type(loaded[1]) is type(half[1])
    assert type(loaded[1].ascent) is type(half[1].ascent)
    # the control: what is kept matters
    again, _ = train(optimizer, network, half[0], phi, batches[4:])
    assert relative_error(again, expected[0]) > 1e-4


@every_variant
def test_states_are_trees(options):
    network, theta, phi = tanh_network()
    optimizer = SAM(Adam(0.05), RHO, **options)
    _, state = train(optimizer, network, p.live(theta), p.live(phi), network.batches(2))
    alive = tree.live(state)
    for leaf in tree.leaves(alive):
        assert leaf.is_leaf
        assert leaf.requires_grad == leaf.is_floating_point()
    cut = tree.detach(state)
    assert not any(leaf.requires_grad for leaf in tree.leaves(cut))
    assert type(cut) is type(alive) is type(state) is type(optimizer.init(theta))
    shapes = [[leaf.shape for leaf in tree.leaves(s)] for s in (cut, optimizer.init(theta))]
    assert shapes[0] == shapes[1]


class Functional:
    """A gradient function by `torch.func`, as a task inside a transform has it."""

    def __init__(self, network, phi, batch):
        self.inner, self.phi, self.batch, self.size = network.inner, phi, batch, batch.size

    def __call__(self, params, rows=None):
        batch = self.batch if rows is None else self.batch.rows(rows)
        return torch.func.grad_and_value(self.inner)(params, self.phi, batch)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "second" not in name])
def test_tasks_under_vmap(name):
    network, theta, phi = tanh_network()
    batches = network.batches(3)
    optimizer = SAM(SGD(0.3, momentum=0.5), RHO, **VARIANTS[name])

    def task(theta, phi):
        state = optimizer.init(theta)
        for batch in batches:
            theta, state, _ = step(optimizer, Functional(network, phi, batch), theta, state)
        return network.outer(theta, phi, network.validation), theta

    thetas = [p.scale(theta, factor) for factor in (1.0, 0.5, -1.5)]
    phis = [p.scale(phi, factor) for factor in (1.0, -2.0, 0.3)]
    stacked = [{k: torch.stack([a[k] for a in many]) for k in many[0]} for many in (thetas, phis)]
    slopes, ends = torch.func.vmap(torch.func.grad(task, argnums=(0, 1), has_aux=True))(*stacked)
    for i in range(3):
        live, weights = p.live(thetas[i]), p.live(phis[i])
        loss, end = task(live, weights)
        for found, leaves in zip(slopes, (live, weights), strict=True):
            expected = p.gradients(loss, leaves, retain_graph=True)
            assert relative_error({k: v[i] for k, v in found.items()}, expected) < 1e-10
        assert relative_error({k: v[i] for k, v in ends.items()}, p.detach(end)) < 1e-13


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 0.0}, r"^rho is 0\.0, .*Choose rho > 0\.$"),
        ({"rho": -0.1}, r"^rho is -0\.1"),
        ({"rho": math.nan}, r"^rho is nan"),
        ({"rho": math.inf}, r"^rho is inf"),
        ({"rho": {"a": 0.1, "b": -1.0}}, r"^rho of 'b' is -1\.0"),
        ({"steps": 0}, r"^steps is 0"),
        ({"steps": -1}, r"^steps is -1"),
        ({"steps": 1.5}, r"^steps is 1\.5"),
        ({"group": 0}, r"^group is 0"),
        ({"group": -4}, r"^group is -4"),
        ({"every": 0}, r"^every is 0"),
        ({"reuse": -0.7}, r"^reuse is -0\.7"),
        ({"jacobian": "exakt"}, r"There is no jacobian 'exakt'\. Did you mean 'exact'\?$"),
        ({"jacobian": "frozen", "second_order": True}, r"^jacobian is 'frozen'.*second_order"),
        ({"jacobian": "plain", "second_order": True}, r"^jacobian is 'plain'.*second_order"),
        ({"ascent": Random(), "steps": 2}, r"^steps is 2, but Random .*choose Steepest\.$"),
        ({"ascent": Momentum(), "every": 5}, r"^every is 5, but Momentum"),
        ({"ascent": Random(), "second_order": True}, r"^second_order is True, but Random"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        SAM(SGD(0.1), **options)


def test_a_radius_for_each_parameter_leaves_none_out():
    with pytest.raises(BadInput, match=r"^rho has no value for the parameter 'b'"):
        SAM(SGD(0.1), {"a": 0.1}).init({"a": torch.ones(2), "b": torch.ones(2)})


def test_what_is_not_finite_is_not_hidden():
    network, theta, phi = tanh_network()

    def inner(theta, phi, batch):
        return functional.cross_entropy(network.outputs(theta, batch.x), batch.y) * math.nan

    for options in VARIANTS.values():
        optimizer = SAM(SGD(0.1), **options)
        state = optimizer.init(theta)
        G, _, loss = optimizer.gradient(Hessian()(inner, phi, network.everything), theta, state)
        assert not p.is_finite(G)
        assert not bool(torch.isfinite(loss))
