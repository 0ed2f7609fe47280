"""Backpropagation through the training of a small convolutional network."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from commentaries.commentary import ExampleWeights, Table, judged, taught
from commentaries.hypergradient import Unrolled
from commentaries.inner import SGD
from commentaries.networks import build
from commentaries.problem import Bilevel
from commentaries.student import Student
from commentaries.types import Batch

from ...store import Cell
from ..side_by_side import beside_best

CLASSES, CHANNELS, SIZE = 10, 3, 32
LR, MOMENTUM = 0.05, 0.9
TOLERANCE = 1e-2
"""Relative, in single precision, after a hundred steps."""


class Problem(NamedTuple):
    """A network, what it is trained on, and what it is judged on.

    Attributes:
        network: Its parameters are where training starts.
        logits: φ, one for each example, which requires grad.
        batches: One for each step.
        outer: The validation batch.
    """

    network: nn.Module
    logits: Tensor
    batches: Sequence[Batch]
    outer: Batch


def problem(*, steps: int, batch: int, width: int, seed: int, device: str) -> Problem:
    """Random images in random order."""
    generator = torch.Generator().manual_seed(seed)
    total = 8 * batch
    x = torch.rand(total, CHANNELS, SIZE, SIZE, generator=generator).to(device)
    y = torch.randint(CLASSES, (total,), generator=generator).to(device)
    logits = torch.randn(total, generator=generator).to(device).requires_grad_()
    torch.manual_seed(seed)
    network = build("conv2", CLASSES, channels=CHANNELS, size=SIZE, width=width).to(device)

    def drawn() -> Batch:
        rows = torch.randperm(total, generator=generator)[:batch].to(device)
        return Batch(x[rows], y[rows], rows)

    return Problem(network, logits, [drawn() for _ in range(steps)], drawn())


def _loss(z: Tensor, logits: Tensor, batch: Batch) -> Tensor:
    weights = torch.sigmoid(logits[batch.index])
    losses = functional.cross_entropy(z, batch.y, reduction="none")
    return (weights / weights.sum() * losses).sum()


def with_loop(at: Problem) -> Tensor:
    """A loop over functional parameters that keeps every graph."""
    names = [name for name, _ in at.network.named_parameters()]
    theta = [value.detach().requires_grad_() for value in at.network.parameters()]
    buffer = [torch.zeros_like(value) for value in theta]

    def call(values: Sequence[Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(at.network, dict(zip(names, values, strict=True)), (x,))

    for batch in at.batches:
        assert isinstance(batch.x, Tensor)
        loss = _loss(call(theta, batch.x), at.logits, batch)
        gradient = torch.autograd.grad(loss, theta, create_graph=True)
        buffer = [MOMENTUM * b + g for b, g in zip(buffer, gradient, strict=True)]
        theta = [value - LR * b for value, b in zip(theta, buffer, strict=True)]
    assert isinstance(at.outer.x, Tensor)
    outer = functional.cross_entropy(call(theta, at.outer.x), at.outer.y)
    return torch.autograd.grad(outer, at.logits)[0]


def with_higher(at: Problem) -> Tensor:
    """higher's differentiable SGD."""
    import higher

    optimizer = torch.optim.SGD(at.network.parameters(), lr=LR, momentum=MOMENTUM)
    with higher.innerloop_ctx(at.network, optimizer, copy_initial_weights=True) as (model, steps):
        for batch in at.batches:
            steps.step(_loss(model(batch.x), at.logits, batch))
        outer = functional.cross_entropy(model(at.outer.x), at.outer.y)
        return torch.autograd.grad(outer, at.logits)[0]


def with_torchopt(at: Problem) -> Tensor:
    """TorchOpt's MetaSGD."""
    import torchopt

    before = torchopt.extract_state_dict(at.network, by="reference")
    optimizer = torchopt.MetaSGD(at.network, lr=LR, momentum=MOMENTUM)
    for batch in at.batches:
        optimizer.step(_loss(at.network(batch.x), at.logits, batch))
    outer = functional.cross_entropy(at.network(at.outer.x), at.outer.y)
    (found,) = torch.autograd.grad(outer, at.logits)
    torchopt.recover_state_dict(at.network, before)
    return found


PEERS: dict[str, Callable[[Problem], Tensor]] = {
    "loop, every graph kept": with_loop,
    "higher": with_higher,
    "TorchOpt, MetaSGD": with_torchopt,
}
OURS = {
    "ours, every graph kept": Unrolled(),
    "ours, 10 graphs at a time": Unrolled(every=10),
    "ours, √T states": Unrolled(every="sqrt"),
}


def with_ours(method: Unrolled, at: Problem) -> Tensor:
    """The library's, at the same tensors."""
    student = Student(at.network)
    result = method(
        Bilevel(taught(student, ExampleWeights(Table(len(at.logits)))), judged(student)),
        SGD(LR, momentum=MOMENTUM),
        {name: value.detach() for name, value in at.network.named_parameters()},
        {"logits": at.logits.detach()},
        inner=at.batches,
        outer=at.outer,
    )
    return result.value["logits"]


def measure(
    *, steps: int, batch: int, width: int, rounds: int, seed: int, device: str
) -> list[Cell]:
    """Time and memory of every way, beside the fastest and the leanest peer."""
    at = problem(steps=steps, batch=batch, width=width, seed=seed, device=device)
    ways: dict[str, Callable[[], Tensor]] = {}
    for name, peer in PEERS.items():
        ways[name] = functools.partial(peer, at)
    for name, method in OURS.items():
        ways[name] = functools.partial(with_ours, method, at)
    expected = with_loop(at)
    cells: list[Cell] = []
    errors = {}
    for name, way in list(ways.items()):
        try:
            value = way()
        except (ImportError, RuntimeError) as error:
            note = f"{type(error).__name__}: {str(error)[:150]}"
            cells.append({"variant": name, "seed": seed, "note": note})
            del ways[name]
            continue
        errors[name] = float((value - expected).norm() / expected.norm())
        if errors[name] > TOLERANCE:
            raise ArithmeticError(f"{name} differs from the loop by {errors[name]:.2g}.")
    peers = [name for name in ways if name in PEERS]
    costs = beside_best(ways, peers, rounds=rounds, warm_up=0, device=device, seed=seed)
    for name, cost in costs.items():
        found = {"variant": name, "seed": seed, "disagreement": errors[name]}
        cells.append(found | cost)
    return cells


def measure_long(*, steps: int, batch: int, width: int, seed: int, device: str) -> list[Cell]:
    """Ours alone, many steps, with the most memory that was held.

    On a CPU that is the whole process's, with everything it held before.
    """
    at = problem(steps=steps, batch=batch, width=width, seed=seed, device=device)
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    value = with_ours(Unrolled(every="sqrt"), at)
    finite: Any = torch.isfinite(value).all()
    if not bool(finite):
        raise ArithmeticError("The hypergradient of the long unroll is not finite.")
    seconds = time.perf_counter() - began
    if on_gpu:
        held = torch.cuda.max_memory_allocated(device)
    else:
        held = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    return [
        {
            "variant": "ours, √T states",
            "seed": seed,
            "ms": 1e3 * seconds,
            "peak MiB": held / 2**20,
        }
    ]
