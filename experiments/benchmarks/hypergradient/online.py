"""Online training: a hypergradient at every step, each from what the last one left."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from commentaries import params as p
from commentaries.curvature import KFAC, GaussNewton, Kept
from commentaries.hypergradient import Implicit
from commentaries.inner import Adam
from commentaries.solvers import ConjugateGradient

from ...store import Cell
from ..side_by_side import interleaved
from .peers import CONJUGATE, SERIES, Peer
from .plain import Plain, digits, ours

PEERS: dict[str, Peer] = {**SERIES, **CONJUGATE}
CONDITION = 1e4
OURS = "ours, warm start and K-FAC"
WARM = "ours, warm start"


def problem(*, examples: int, features: int, seed: int, device: str) -> Plain:
    """Logistic regression on random tanh features of digits: convex, one exact answer for all."""
    x, y, outer_x, outer_y = digits(examples, examples, 0.3, seed, device)
    generator = torch.Generator().manual_seed(seed)
    project = torch.randn(64, features, generator=generator, dtype=torch.float64).to(device) / 4
    torch.manual_seed(seed)
    network = nn.Linear(features, 10).to(device, torch.float64)
    logits = torch.zeros(examples, dtype=torch.float64, device=device, requires_grad=True)
    x, outer_x = torch.tanh(x @ project), torch.tanh(outer_x @ project)
    # H is at most a quarter of the largest eigenvalue of the features' second moment, and half of
    # it with two classes that share everything
    largest = float(torch.linalg.matrix_norm(x, 2) ** 2) / examples / 2
    return Plain(network, logits, x, y, outer_x, outer_y, decay=largest / CONDITION, lr=1 / largest)


def measure(
    *, examples: int, features: int, steps: int, rounds: int, seed: int, device: str
) -> list[Cell]:
    """The cosine with the exact hypergradient, averaged over one run that all of them follow.

    The run is led by the exact hypergradient. Every peer takes as many products in a step as make
    it at least as slow as our slower way, its student step included.
    """
    plain = problem(examples=examples, features=features, seed=seed, device=device)
    step_size = plain.lr / 2
    at = ours(plain)
    theta, phi = at.theta, at.phi
    methods = _ours(plain.decay)
    exactly = Implicit(ConjugateGradient(20_000, 1e-9), GaussNewton())
    teacher = Adam(0.05)
    memory = teacher.init(phi)

    budget, products = _equal_time(plain, step_size, rounds, seed, device)
    cosines: dict[str, list[float]] = {name: [] for name in [*methods, *products]}
    adjoints: dict[str, Any] = dict.fromkeys(methods)
    exact_adjoint = None
    for _ in range(steps):
        arguments: dict[str, Any] = at.arguments() | {"theta": theta, "phi": phi}
        truth = exactly(**arguments, adjoint=exact_adjoint)
        exact_adjoint = truth.adjoint
        exact = truth.value["logits"]
        for name, method in methods.items():
            result = method(**arguments, adjoint=adjoints[name])
            adjoints[name] = result.adjoint
            cosines[name].append(_cosine(result.value["logits"], exact))
        _put(plain, theta, phi)
        for name, k in products.items():
            cosines[name].append(_cosine(PEERS[name](plain, k, step_size), exact))
        phi, memory = teacher.update(truth.value, phi, memory)
        phi, theta = p.detach(phi), truth.theta
    best = max((statistics.mean(cosines[name]) for name in products), default=None)
    cells = []
    for name, values in cosines.items():
        mean = statistics.mean(values)
        cells.append(
            {
                "variant": name,
                "seed": seed,
                "ms": 1e3 * budget[name],
                "products": products.get(name, PRODUCTS),
                "cosine": mean,
                "above the best peer": None if best is None else mean - best,
            }
        )
    return cells


PRODUCTS = 3
"""That ours take in a step, one of them for the warm start."""


def _ours(decay: float) -> dict[str, Implicit]:
    solver = ConjugateGradient(PRODUCTS - 1, 1e-12)
    return {
        OURS: Implicit(solver, GaussNewton(), Kept(KFAC(decay), every=10)),
        WARM: Implicit(solver, GaussNewton()),
    }


def _equal_time(
    plain: Plain, step_size: float, rounds: int, seed: int, device: str
) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of each way's step, and the products that each peer may take."""
    at = ours(plain)
    few, many = 2, 22

    def of_peer(peer: Peer, k: int) -> Callable[[], object]:
        return lambda: (peer(plain, k, step_size), plain.student_step())

    steps: dict[str, Callable[[], object]] = {}
    for name, peer in PEERS.items():
        try:
            peer(plain, few, step_size)
        except (ImportError, RuntimeError) as error:
            print(f"{name} is left out: {type(error).__name__}: {str(error)[:150]}")
            continue
        steps |= {f"{name}, {k}": of_peer(peer, k) for k in (few, many)}
    for name, method in _ours(plain.decay).items():
        warm: dict[str, Any] = at.arguments() | {"adjoint": method(**at.arguments()).adjoint}
        steps[name] = lambda method=method, warm=warm: method(**warm)
    # in tens, so that factors that are made at every tenth step count once
    tens = {name: lambda step=step: [step() for _ in range(10)] for name, step in steps.items()}
    seconds = {
        name: statistics.median(values) / 10
        for name, values in interleaved(
            tens, rounds=rounds, warm_up=1, device=device, seed=seed
        ).items()
    }
    own = {name: seconds[name] for name in (OURS, WARM)}
    slower = max(own.values())
    products, budget = {}, dict(own)
    for name in PEERS:
        if f"{name}, {few}" not in seconds:
            continue
        least = seconds[f"{name}, {few}"]
        each = max((seconds[f"{name}, {many}"] - least) / (many - few), 1e-9)
        k = max(few, few + math.ceil((slower - least) / each))
        products[name], budget[name] = k, least + (k - few) * each
    return budget, products


def _put(plain: Plain, theta: dict[str, Tensor], phi: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in plain.network.named_parameters():
            value.copy_(theta[name])
        plain.logits.copy_(phi["logits"])


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))
