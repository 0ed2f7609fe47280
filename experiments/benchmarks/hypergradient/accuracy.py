"""Time until the cosine with the exact hypergradient reaches 0.99."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from commentaries import params as p
from commentaries.curvature import KFAC, GaussNewton, Kept
from commentaries.hypergradient import Implicit
from commentaries.hypergradient.implicit import Preconditioner
from commentaries.solvers import (
    ConjugateGradient,
    LinearSolver,
    Nystrom,
    Preconditioned,
    largest_eigenvalue,
)

from ...store import Cell
from ..side_by_side import interleaved, ratio
from .peers import CONJUGATE, SERIES, Peer, curvlinops_kfac
from .plain import Ours, Plain, digits, ours

WANTED = 0.99

KFAC_ALONE = "curvlinops, K-FAC"
PEERS: dict[str, Peer] = {**SERIES, **CONJUGATE, KFAC_ALONE: curvlinops_kfac}


class Trained(NamedTuple):
    """A student near its optimum.

    Attributes:
        plain: The problem there.
        largest: The largest eigenvalue of its Gauss-Newton matrix, without decay.
    """

    plain: Plain
    largest: float


def train(*, examples: int, hidden: tuple[int, int], seed: int, device: str, steps: int) -> Trained:
    """A tanh network on digits, 30 % of the training labels wrong, by L-BFGS in double precision.

    It has 105,546 parameters with 320 and 256 hidden units.
    """
    x, y, outer_x, outer_y = digits(examples, examples, 0.3, seed, device)
    torch.manual_seed(seed)
    wide, narrow = hidden
    network = nn.Sequential(
        nn.Linear(64, wide), nn.Tanh(), nn.Linear(wide, narrow), nn.Tanh(), nn.Linear(narrow, 10)
    ).to(device, torch.float64)
    logits = torch.randn(examples, dtype=torch.float64).to(device).requires_grad_()
    plain = Plain(network, logits, x, y, outer_x, outer_y, 1e-3, lr=0.1, matrix="Gauss-Newton")
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = plain.inner()
        loss.backward(inputs=list(network.parameters()))
        return float(loss.detach())

    optimizer.step(closure)
    optimizer.zero_grad()
    at = ours(plain)
    theta = p.live(at.theta)
    F, _ = GaussNewton()(at.problem.inner, p.live(at.phi), at.inner)(theta)
    start = p.random_like(at.theta, torch.Generator().manual_seed(seed))
    found = largest_eigenvalue(lambda v: p.pull_back(F, v, theta), start, 20)
    return Trained(plain, found.value)


def our_ways(
    decay: float,
) -> dict[str, Callable[[int], tuple[LinearSolver, Preconditioner | None]]]:
    """By the products of the solver; the last one's factors are those of an earlier call."""

    def factors(every: int) -> Preconditioner:
        # ten times the system's damping, as `KFAC` recommends for a preconditioner
        return Kept(KFAC(10 * decay, samples=1), every)

    kept = factors(10**9)
    return {
        "ours, CG": lambda k: (ConjugateGradient(k, 1e-12), None),
        "ours, CG with Nyström, half of the products": lambda k: (
            Preconditioned(ConjugateGradient(k - k // 2, 1e-12), Nystrom(max(k // 2, 1), decay)),
            None,
        ),
        "ours, CG with K-FAC": lambda k: (ConjugateGradient(k, 1e-12), factors(1)),
        "ours, CG with K-FAC, factors kept": lambda k: (ConjugateGradient(k, 1e-12), kept),
    }


def measure(
    trained: Trained, condition: float, *, limit: int, rounds: int, seed: int, device: str
) -> list[Cell]:
    """Every way at the fewest products that reach the cosine, and its time there.

    Args:
        trained: The student.
        condition: Of the system: its decay is the largest eigenvalue over this.
        limit: Products after which a way has not reached it.
        rounds: Timed repetitions.
        seed: Of the order of the repetitions.
        device: Where to compute.
    """
    plain = trained.plain
    plain.decay = trained.largest / condition
    step_size = 1 / (trained.largest + plain.decay)
    at = ours(plain)
    exact = _call(ConjugateGradient(5_000, 1e-10), None, at)
    found: dict[str, Callable[[int], Tensor]] = {
        name: lambda k, peer=peer: peer(plain, k, step_size) for name, peer in PEERS.items()
    }
    for name, way in our_ways(plain.decay).items():
        found[name] = lambda k, way=way: _call(*way(k), at)
    cells, steps, products, cosines = [], {}, {}, {}
    for name, way in found.items():
        cell: Cell = {"variant": name, "seed": seed}
        try:
            k, cosine = _fewest(way, exact, 1 if name == KFAC_ALONE else limit)
        except (ImportError, RuntimeError) as error:
            cells.append(cell | {"note": f"{type(error).__name__}: {str(error)[:150]}"})
            continue
        if cosine < WANTED:
            cells.append(cell | {"cosine": cosine, "note": f"not reached with {k} products"})
            continue
        steps[name] = lambda way=way, k=k: way(k)
        products[name], cosines[name] = (0 if name == KFAC_ALONE else k), cosine
    seconds = interleaved(steps, rounds=rounds, warm_up=1, device=device, seed=seed)
    peers = [name for name in steps if name in PEERS]
    fastest = min(peers, key=lambda name: statistics.median(seconds[name]), default=None)
    for name in steps:
        cell = {
            "variant": name,
            "seed": seed,
            "ms": 1e3 * statistics.median(seconds[name]),
            "products": products[name],
            "cosine": cosines[name],
        }
        if fastest is not None:
            beside = ratio(seconds[name], seconds[fastest])
            cell |= {
                "time": beside.of_medians,
                "lower quartile": beside.lower,
                "upper quartile": beside.upper,
            }
        cells.append(cell)
    return cells


def _call(solver: LinearSolver, precondition: Preconditioner | None, at: Ours) -> Tensor:
    method = Implicit(solver, GaussNewton(), precondition or False)
    return method(**at.arguments()).value["logits"]


def _fewest(way: Callable[[int], Tensor], exact: Tensor, limit: int) -> tuple[int, float]:
    """The fewest products that reach the cosine, found by halving; the limit where none do."""

    def cosine(k: int) -> float:
        value = way(k)
        return float(value @ exact / (value.norm() * exact.norm()))

    failed, reached, found = 0, limit, cosine(limit)
    while found >= WANTED and reached - failed > 1:
        middle = (failed + reached) // 2
        at_middle = cosine(middle)
        if at_middle >= WANTED:
            reached, found = middle, at_middle
        else:
            failed = middle
    return reached, found
