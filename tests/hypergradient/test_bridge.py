"""Unrolling through torch.optim by higher: parity with our steps, torch's own, and slopes."""

import pytest
import torch
from oracles import normal, relative_error, slope, tanh_network

from commentaries import tree
from commentaries.errors import BadInput
from commentaries.hypergradient import Implicit, TorchOptimizer, Unrolled
from commentaries.inner import SGD, Adam
from commentaries.problem import Bilevel
from commentaries.solvers import Neumann

optim = torch.optim

PAIRS = {
    "sgd": (SGD(0.3), lambda q: optim.SGD(q, lr=0.3)),
    "nesterov": (
        SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        lambda q: optim.SGD(q, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    ),
    # higher adds ε before the bias correction: the smaller ε, the less of a difference
    "adam": (
        Adam(0.05, eps=1e-16, weight_decay=0.1),
        lambda q: optim.Adam(q, lr=0.05, eps=1e-16, weight_decay=0.1),
    ),
}
OTHERS = {
    "adadelta": lambda q: optim.Adadelta(q, lr=0.5),
    "adagrad": lambda q: optim.Adagrad(q, lr=0.1, eps=1e-16),
    "adamax": lambda q: optim.Adamax(q, lr=0.05),
    "rmsprop": lambda q: optim.RMSprop(q, lr=0.05, momentum=0.5, centered=True),
    "asgd": lambda q: optim.ASGD(q, lr=0.05),
    "dampened": lambda q: optim.SGD(q, lr=0.1, momentum=0.9, dampening=0.5),
    "groups": lambda q: optim.SGD([{"params": q[:1], "lr": 0.5}, {"params": q[1:]}], lr=0.1),
}


def run(optimizer, method=None, count=7, **changes):
    network, theta, phi = tanh_network()
    call = {"theta": theta, "phi": phi, "inner": network.batches(count)} | changes
    return (method or Unrolled())(
        Bilevel(network.inner, network.outer), optimizer, outer=network.validation, **call
    )


@pytest.mark.parametrize("method", [Unrolled(), Unrolled(every=2), Implicit(Neumann(3, 0.05))])
@pytest.mark.parametrize("name", PAIRS)
def test_parity_with_our_own(name, method):
    own, build = PAIRS[name]
    ours, found = run(own, method), run(TorchOptimizer(build), method)
    assert relative_error(found.value, ours.value) < 1e-10
    assert relative_error(found.adjoint, ours.adjoint) < 1e-10
    assert relative_error(found.theta, ours.theta) < 1e-10


@pytest.mark.parametrize("name", OTHERS)
def test_steps_are_torchs_and_hypergradients_slopes(name):
    network, theta, phi = tanh_network()
    optimizer = TorchOptimizer(OTHERS[name])
    result = run(optimizer)
    leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}
    plain = OTHERS[name](list(leaves.values()))
    for batch in network.batches(7):
        plain.zero_grad()
        network.inner(leaves, phi, batch).backward()
        plain.step()
    assert relative_error(result.theta, {k: v.detach() for k, v in leaves.items()}) < 1e-8
    along = normal(phi, 1)
    expected = slope(lambda at: run(optimizer, phi=at).outer_loss, phi, along, 1e-5)
    assert float((result.value["w"] * along["w"]).sum()) == pytest.approx(expected, rel=1e-6)
    assert relative_error(run(optimizer, Unrolled(every="sqrt")).value, result.value) < 1e-12


@pytest.mark.parametrize("name", ["adam", "nesterov"])
def test_the_state_carries_on_and_is_rebuilt_from_its_leaves(name):
    network, _, _ = tanh_network()
    optimizer = TorchOptimizer(PAIRS[name][1])
    batches = network.batches(7)
    whole = run(optimizer, Unrolled(last=3))
    first = run(optimizer, inner=batches[:4])
    leaves = iter(list(tree.leaves(first.state)))
    state = tree.map_tensors(lambda _: next(leaves), optimizer.init(first.theta))
    second = run(optimizer, theta=first.theta, state=state, inner=batches[4:])
    assert relative_error(second.value, whole.value) < 1e-12
    assert relative_error(second.theta, whole.theta) < 1e-13
    assert not any(leaf.requires_grad for leaf in tree.leaves(second))


def test_settings_are_learned():
    _, _, phi = tanh_network()
    phi = phi | {"log lr": torch.tensor(-2.0, dtype=torch.float64)}

    def optimizer(phi):
        return TorchOptimizer(PAIRS["nesterov"][1], {"lr": phi["log lr"].exp()})

    result = run(optimizer, phi=phi)
    along = {"w": torch.zeros(12), "log lr": torch.ones(())}
    expected = slope(lambda at: run(optimizer, phi=at).outer_loss, phi, along, 1e-5)
    assert float(result.value["log lr"]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda q: optim.AdamW(q), r"cannot differentiate AdamW\..*is AdamW\.$"),
        (lambda q: optim.SGD(q, lr=0.1, maximize=True), "SGD has maximize=True"),
        (lambda q: optim.Adam(q, decoupled_weight_decay=True), "decoupled_weight_decay=True"),
    ],
)
def test_what_higher_does_not_know_is_refused(build, message):
    with pytest.raises(BadInput, match=message):
        run(TorchOptimizer(build))
