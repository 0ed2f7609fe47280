"""A student step and its hypergradient together: a ResNet-18 under example weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from commentaries.curvature import Curvature, GaussNewton, Hessian
from commentaries.hypergradient import Implicit
from commentaries.networks import build
from commentaries.solvers import Neumann

from ...store import Cell
from ..side_by_side import beside_best
from .peers import SERIES, Peer
from .plain import Ours, Plain, ours, without_running_statistics

CLASSES, CHANNELS, SIZE = 10, 3, 32
STEP_SIZE = 1e-3
TOLERANCE = 2e-2
"""Relative, in single precision, through 18 normalised layers."""

SHARED = "kept graph, gradient shared"
OURS: dict[str, Curvature] = {"ours, Hessian": Hessian(), "ours, Gauss-Newton": GaussNewton()}


def problem(batch: int, seed: int, device: str, *, network: str = "resnet18") -> Plain:
    """Random images and labels, and random weights of them."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> tuple[Tensor, Tensor]:
        x = torch.rand(batch, CHANNELS, SIZE, SIZE, generator=generator)
        return x.to(device), torch.randint(CLASSES, (batch,), generator=generator).to(device)

    torch.manual_seed(seed)
    built = build(network, CLASSES, channels=CHANNELS, size=SIZE).to(device)
    logits = torch.randn(batch, generator=generator).to(device).requires_grad_()
    x, y = drawn()
    outer_x, outer_y = drawn()
    return Plain(
        without_running_statistics(built), logits, x, y, outer_x, outer_y, decay=5e-4, lr=0.1
    )


def with_sharing(plain: Plain, products: int, step_size: float) -> tuple[Tensor, list[Tensor]]:
    """The loop with a kept graph, which gives its gradient to the student's step.

    No public package does so; it says how much of our time is that.
    """
    v = plain.outer_gradient()
    F = plain.residual()
    with torch.no_grad():
        moved = [value - plain.lr * g for value, g in zip(plain.theta, F, strict=True)]
    total = v
    for _ in range(products):
        product = torch.autograd.grad(F, plain.theta, v, retain_graph=True)
        v = [one - step_size * other for one, other in zip(v, product, strict=True)]
        total = [one + other for one, other in zip(total, v, strict=True)]
    (mixed,) = torch.autograd.grad(F, plain.logits, total)
    return -step_size * mixed, moved


def variants(plain: Plain, terms: int) -> dict[str, Callable[[], tuple[Tensor, Any]]]:
    """Each gives dL_V/dφ and the student one step further."""

    def of_peer(peer: Peer, products: int) -> tuple[Tensor, list[Tensor]]:
        return peer(plain, products, STEP_SIZE), plain.student_step()

    def of_ours(method: Implicit, at: Ours) -> tuple[Tensor, Any]:
        result = method(**at.arguments())
        return result.value["logits"], result.theta

    at = ours(plain)
    solver = Neumann(terms, STEP_SIZE, measure_residual=False)
    found: dict[str, Callable[[], tuple[Tensor, Any]]] = {
        name: functools.partial(of_ours, Implicit(solver, curvature), at)
        for name, curvature in OURS.items()
    }
    for name, peer in SERIES.items():
        products = terms if "fixed point" in name else terms - 1
        found[name] = functools.partial(of_peer, peer, products)
    found[SHARED] = lambda: with_sharing(plain, terms - 1, STEP_SIZE)
    return found


def measure(
    terms: int, *, batch: int, rounds: int, seed: int, device: str, network: str = "resnet18"
) -> list[Cell]:
    """Time and memory of every variant, and its ratio to the best peer.

    A peer that cannot run, or whose answer is another, is left out, and its cell says why.
    """
    plain = problem(batch, seed, device, network=network)
    steps = variants(plain, terms)
    expected, _ = steps["implicit-hyper-opt"]()
    agreement, cells = {}, []
    for name, step in list(steps.items()):
        try:
            value, _ = step()
        except (ImportError, RuntimeError) as error:
            cells.append({"variant": name, "seed": seed, "note": _first_line(error)})
            del steps[name]
            continue
        error = float((value - expected).norm() / expected.norm())
        cosine = float(value @ expected / (value.norm() * expected.norm()))
        agreement[name] = (error, cosine)
        if error > TOLERANCE and name != "ours, Gauss-Newton":
            if name in OURS:
                raise ArithmeticError(f"{name} differs from the loop by {error:.2g}.")
            note = f"left out: its answer differs by {error:.2g}"
            cells.append({"variant": name, "seed": seed, "note": note})
            del steps[name]
    peers = [name for name in steps if name in SERIES]
    costs = beside_best(steps, peers, rounds=rounds, warm_up=1, device=device, seed=seed)
    for name, cost in costs.items():
        error, cosine = agreement[name]
        products = terms if "fixed point" in name else terms - 1
        found = {"disagreement": error, "cosine": cosine, "products": products}
        cells.append({"variant": name, "seed": seed} | cost | found)
    return cells


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150]}"
