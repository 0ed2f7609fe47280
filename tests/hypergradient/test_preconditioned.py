"""A preconditioner of the inner problem: the same hypergradient, from fewer products."""

import pytest
import torch
from oracles import relative_error, tanh_network
from torch import nn

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, judged, taught
from commentaries.curvature import KFAC, GaussNewton, Kept
from commentaries.hypergradient import Implicit
from commentaries.inner import SGD
from commentaries.problem import Bilevel
from commentaries.solvers import ConjugateGradient, Dense, Identity, Neumann
from commentaries.student import Student

pytestmark = pytest.mark.usefixtures("float64")
DECAY = 0.01


def call(**changes):
    network, theta, phi = tanh_network()
    student = Student(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))
    commentary = ExampleWeights(Table(12))
    names = commentary.init(torch.Generator())
    problem = Bilevel(taught(student, commentary), judged(student))
    return {
        "problem": problem,
        "optimizer": SGD(0.1, weight_decay=DECAY),
        "theta": theta,
        "phi": {name: phi["w"].reshape(value.shape) for name, value in names.items()},
        "inner": [network.everything],
        "outer": network.validation,
    } | changes


def test_it_reaches_the_solver():
    exact = Implicit(Dense(), GaussNewton())(**call())
    kept = Kept(KFAC(10 * DECAY), every=3)
    solver = ConjugateGradient(60, 1e-10)
    plain = Implicit(solver, GaussNewton())(**call())
    helped = Implicit(solver, GaussNewton(), precondition=kept)(**call())
    for result in (plain, helped):
        assert result.diagnostics["converged"]
        assert relative_error(result.value, exact.value) < 1e-7
    assert helped.diagnostics["products"] != plain.diagnostics["products"]
    few = ConjugateGradient(6, 1e-10)
    without = Implicit(few, GaussNewton())(**call())
    with_it = Implicit(few, GaussNewton(), precondition=kept)(**call())
    assert relative_error(with_it.value, exact.value) < relative_error(without.value, exact.value)


def test_kfac_alone_is_the_identity_solver_with_its_inverse():
    arguments = call()
    result = Implicit(Identity(), GaussNewton(), precondition=Kept(KFAC(DECAY)))(**arguments)
    inner, theta, phi = arguments["problem"].inner, arguments["theta"], arguments["phi"]
    inverse = KFAC(DECAY)(inner, theta, phi, arguments["inner"][0]).inverse()
    leaves = p.live(theta)
    b = p.gradients(arguments["problem"].outer(leaves, phi, arguments["outer"]), leaves)
    assert relative_error(result.adjoint, inverse(b)) < 1e-12
    exact = Implicit(Dense(), GaussNewton())(**arguments)
    one_term = Implicit(Neumann(1), GaussNewton())(**arguments)

    def cosine(found):
        return float(p.dot(found.value, exact.value) / p.norm(found.value) / p.norm(exact.value))

    assert cosine(result) > cosine(one_term)


def test_the_optimisers_own_step_is_still_there():
    steps = Implicit(Identity(), precondition=True)(**call())
    plain = Implicit(Identity())(**call())
    assert relative_error(steps.adjoint, p.scale(plain.adjoint, 0.1)) < 1e-12
