"""The self-check against references that are worked out by hand here."""

import pytest
import torch
from oracles import numeric_gradient, tanh_network, weighted_regression
from torch.nn import functional

from commentaries.curvature import Hessian
from commentaries.errors import BadInput, NotConverged
from commentaries.hypergradient import Implicit, Unrolled, check
from commentaries.inner import SAM, SGD
from commentaries.problem import Bilevel, Composed
from commentaries.solvers import Dense, Identity, Neumann

pytestmark = pytest.mark.usefixtures("float64")


def regression(count=40, **options):
    problem, phi = weighted_regression("logistic")
    start = {"t": torch.zeros(4, 3)}
    call = {"inner": [problem.inner_batch] * count, "outer": problem.outer_batch} | options
    bilevel = Bilevel(problem.inner, problem.outer)
    found = check(bilevel, SGD(0.5, weight_decay=problem.decay), start, {"w": phi}, **call)
    return problem, phi, found


def test_the_dense_reference_and_the_numbers_beside_it():
    problem, phi, found = regression(200)
    theta = problem.optimum(phi)["t"]
    truth = problem.hypergradient(phi)["w"]
    H = problem.hessian(theta, phi)
    largest = torch.linalg.eigvalsh(H)[-1]
    assert found.reference == "dense"
    assert 0.8 * largest <= found.largest <= largest * (1 + 1e-9)
    assert found.step_size == 1 / found.largest
    assert [row.steps for row in found.rows] == sorted([50, 100, 200] * 4)
    one = found.rows[-4]
    assert one.method == "Neumann, 1"
    b = problem.outer_gradient(theta)
    weight = torch.sigmoid(phi)
    g = problem._gradients(theta, problem.x, problem.y)
    by_hand = -weight * (1 - weight) * ((problem.x @ (found.step_size * b)) * g).sum(1) / len(g)
    cosine = by_hand @ truth / by_hand.norm() / truth.norm()
    assert one.cosine == pytest.approx(float(cosine), rel=1e-6)
    assert one.norm_ratio == pytest.approx(float(by_hand.norm() / truth.norm()), rel=1e-6)
    assert found.rows[-1].cosine == pytest.approx(1, abs=1e-9)
    assert found.rows[-1].relative_residual < 1e-6
    falling = [row.stationarity for row in found.rows if row.method == "Neumann, 1"]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 1e-6 < falling[0]


@pytest.mark.parametrize("reference", ["differences", "longer", Unrolled()])
def test_other_references_agree_where_training_has_ended(reference):
    def wrong(*arguments, **keywords):
        result = Implicit(Dense())(*arguments, **keywords)
        result.value["w"].neg_().mul_(2)
        return result

    methods = {"exact": Implicit(Dense()), "wrong": wrong}
    _, _, found = regression(150, reference=reference, methods=methods, steps=[150])
    exact, opposite = found.rows
    assert exact.cosine == pytest.approx(1, abs=1e-7)
    assert exact.norm_ratio == pytest.approx(1, abs=1e-5)
    assert opposite.cosine == pytest.approx(-1, abs=1e-7)
    assert opposite.norm_ratio == pytest.approx(2, abs=1e-5)


def test_differences_are_those_of_training():
    # few steps, far from rest, and a momentum that Implicit knows nothing of
    network, theta, phi = tanh_network()
    bilevel, optimizer = Bilevel(network.inner, network.outer), SAM(SGD(0.2, momentum=0.8), 0.1)
    call = {"inner": network.batches(6), "outer": network.validation}
    found = check(
        bilevel,
        optimizer,
        theta,
        phi,
        methods={"unrolled": Unrolled(), "identity": Implicit(Identity(0.2))},
        reference="differences",
        **call,
    )
    slopes = numeric_gradient(
        lambda at: Unrolled()(bilevel, optimizer, theta, at, **call).outer_loss, phi, 1e-5
    )
    assert [row.steps for row in found.rows] == [2, 2, 3, 3, 6, 6]
    unrolled, identity = found.rows[-2:]
    assert unrolled.cosine == pytest.approx(1, abs=1e-8)
    assert unrolled.norm_ratio == pytest.approx(1, abs=1e-6)
    assert unrolled.stationarity is None
    assert slopes["w"].norm() > 0
    assert identity.cosine < 0.99


def test_a_method_that_fails_has_a_row_that_says_why():
    network, theta, phi = tanh_network()
    found = check(
        Bilevel(network.inner, network.outer),
        SGD(0.5),
        theta,
        phi,
        inner=[network.everything] * 3,
        outer=network.validation,
        methods={"series": Implicit(Neumann(500, 1.0)), "unrolled": Unrolled()},
        reference=Unrolled(),
        steps=[3],
    )
    series, unrolled = found.rows
    assert series.cosine is None
    assert "diverges" in series.failure
    assert unrolled.failure is None
    text = str(found)
    assert "series, 3 steps: The Neumann series diverges" in text
    assert text.endswith(f"a Neumann step size up to {found.step_size:.3g}.")


def test_the_table_has_a_line_for_each_row():
    _, _, found = regression(8)
    lines = str(found).splitlines()
    assert len(lines) == 1 + len(found.rows) + 1
    assert lines[0].split("  ")[0] == "method"
    assert all(
        line.startswith(row.method) for row, line in zip(found.rows, lines[1:], strict=False)
    )
    assert all(
        f"{row.cosine:.3g}" in line for row, line in zip(found.rows, lines[1:], strict=False)
    )


def test_gauss_newton_is_used_where_the_outputs_show():
    # The Hessian of a network is indefinite, and its series diverges where that of its
    # Gauss–Newton matrix does not.
    network, theta, phi = tanh_network()

    def outputs(theta, phi, batch):
        return network.outputs(theta, batch.x), (torch.sigmoid(phi["w"])[batch.index], batch.y)

    def loss(z, held, lesson):
        weights, y = lesson
        return (weights * functional.cross_entropy(z, y, reduction="none")).mean()

    call = {"inner": [network.everything] * 2, "outer": network.validation, "reference": Unrolled()}
    bilevel = Bilevel(Composed(outputs, loss), network.outer)
    shown = check(bilevel, SGD(0.1), theta, phi, **call)
    hessian = check(bilevel, SGD(0.1), theta, phi, curvature=Hessian(), **call)
    assert not any(row.failure for row in shown.rows)
    assert any(row.failure for row in hessian.rows)
    assert shown.largest != pytest.approx(hessian.largest, rel=1e-3)


def test_bad_inputs():
    for bad, message in (
        ({"steps": [0, 2]}, "must be from 1 to 40"),
        ({"steps": [41]}, "must be from 1 to 40"),
        ({"directions": 0}, "directions is 0"),
        ({"iterations": 0}, "iterations is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            regression(**bad)
    network, theta, phi = tanh_network()
    with pytest.raises(NotConverged, match=r"[Aa]dd damping"):
        check(
            Bilevel(network.inner, network.outer),
            SGD(0.1),
            theta | {"idle": torch.ones(2)},
            phi,
            inner=[network.everything],
            outer=network.validation,
        )
