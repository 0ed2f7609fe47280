"""The peers of the hypergradient benchmark reproduce closed forms, and its rows come out."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from commentaries.curvature import GaussNewton, Hessian
from commentaries.hypergradient import Implicit
from commentaries.solvers import ConjugateGradient, Neumann
from experiments import store
from experiments.benchmarks.hypergradient import unrolled
from experiments.benchmarks.hypergradient.__main__ import Arguments, run, verdict
from experiments.benchmarks.hypergradient.peers import CONJUGATE, SERIES
from experiments.benchmarks.hypergradient.plain import Plain, ours

LOOPS = ("implicit-hyper-opt", "hypertorch, fixed point", "hypertorch, CG")
N = 7


@pytest.fixture(params=["Hessian", "Gauss-Newton"])
def plain(request):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    y = torch.arange(N) % 3
    logits = drawn(N).requires_grad_()
    return Plain(network, logits, drawn(N, 3), y, drawn(N, 3), y, 0.5, 0.1, matrix=request.param)


def dense(plain):
    """H, ∂F/∂φ and b, from the definitions."""
    shapes = [value.shape for value in plain.theta]
    start = torch.cat([value.detach().reshape(-1) for value in plain.theta])
    x, phi = plain.x, plain.logits.detach()

    def split(vector):
        pieces = vector.split([shape.numel() for shape in shapes])
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def data(vector, logits):
        return plain.data_loss(plain.outputs(split(vector)), logits)

    def residual(vector, logits):
        return torch.func.grad(data)(vector, logits) + plain.decay * vector

    decay = plain.decay * torch.eye(len(start), dtype=start.dtype)
    if plain.matrix == "Hessian":
        H = torch.func.jacrev(residual)(start, phi)
    else:
        z = plain.outputs(split(start)).detach()
        J = torch.func.jacrev(lambda v: plain.outputs(split(v)).reshape(-1))(start)
        of_loss = torch.func.hessian(lambda flat: plain.data_loss(flat.reshape(z.shape), phi))
        H = J.mT @ of_loss(z.reshape(-1)) @ J + decay
    plain.x = plain.outer_x
    b = torch.func.grad(lambda v: functional.cross_entropy(plain.outputs(split(v)), plain.outer_y))
    b = b(start)
    plain.x = x
    return H, torch.func.jacrev(residual, argnums=1)(start, phi), b


def error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["implicit-hyper-opt", "hypertorch, fixed point"])
def test_series_are_the_truncated_series(plain, name):
    H, mixed, b = dense(plain)
    products = 4 + (name == "hypertorch, fixed point")
    rest = torch.eye(len(b), dtype=b.dtype) - 0.3 * H
    x = 0.3 * sum(torch.linalg.matrix_power(rest, i) @ b for i in range(5))
    found = SERIES[name](plain, products, 0.3)
    assert error(found, -mixed.mT @ x) < 1e-12
    curvature = Hessian() if plain.matrix == "Hessian" else GaussNewton()
    result = Implicit(Neumann(5, 0.3), curvature)(**ours(plain).arguments())
    assert error(result.value["logits"], found) < 1e-12


def test_conjugate_gradients_end_at_the_exact_hypergradient(plain):
    H, mixed, b = dense(plain)
    expected = -mixed.mT @ torch.linalg.solve(H, b)
    # the Hessian may be indefinite here, and conjugate gradients still end after n products
    found = CONJUGATE["hypertorch, CG"](plain, 45, 0.2)
    assert error(found, expected) < 1e-6
    if plain.matrix == "Gauss-Newton":
        result = Implicit(ConjugateGradient(60, 1e-12), GaussNewton())(**ours(plain).arguments())
        assert error(result.value["logits"], expected) < 1e-9


@pytest.mark.parametrize("name", [name for name in SERIES if name not in LOOPS])
def test_packages_take_the_same_series(plain, name):
    pytest.importorskip("betty" if "betty" in name else "torchopt")
    expected = SERIES["implicit-hyper-opt"](plain, 4, 0.3)
    assert error(SERIES[name](plain, 4, 0.3), expected) < 1e-12


def test_every_unroll_is_the_same():
    at = unrolled.problem(steps=5, batch=3, width=2, seed=0, device="cpu")
    expected = unrolled.with_loop(at)
    for method in unrolled.OURS.values():
        assert error(unrolled.with_ours(method, at), expected) < 1e-4
    assert error(unrolled.with_higher(at), expected) < 1e-4


def test_smoke_rows_come_out(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    kept = run(Arguments(preset="smoke", cases=("accuracy",)))
    content = json.loads((tmp_path / "benchmark_hypergradient_smoke.json").read_text())
    rows = {(row["case"], row["variant"], row["metric"]): row["value"] for row in content["rows"]}
    reached = {key[1] for key in rows if key[0] == "cosine 0.99, condition 1e2"}
    assert {"ours, CG", "ours, CG with K-FAC", "hypertorch, CG"} <= reached
    assert rows["cosine 0.99, condition 1e2", "ours, CG", "cosine"] >= 0.99
    assert [row[2:4] for row in verdict(kept)] == [["ours, CG with K-FAC", "time"]]
