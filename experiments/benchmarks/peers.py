"""Second-order MAML by the libraries that others use for it, each as its own manual has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from commentaries.fewshot import Episode
from commentaries.types import Params

Loss = Callable[[], tuple[Tensor, Params]]
"""The mean query loss after adaptation, and its gradient by the names of the parameters."""


class Peer(Protocol):
    """Makes the loss of a network and some tasks."""

    def __call__(
        self, module: nn.Module, episodes: Sequence[Episode], *, lr: float, steps: int
    ) -> Loss:
        """The peer's loss of these tasks, from the module's present parameters."""
        ...


def learn2learn() -> Peer:
    """learn2learn's `MAML`: clone, adapt, and backward task by task."""
    from learn2learn.algorithms import MAML

    def make(module: nn.Module, episodes: Sequence[Episode], *, lr: float, steps: int) -> Loss:
        maml: Any = MAML(module, lr=lr)

        def loss() -> tuple[Tensor, Params]:
            def task(episode: Episode) -> Tensor:
                learner = maml.clone()
                for _ in range(steps):
                    learner.adapt(_loss(learner, *episode.support[:2]))
                return _loss(learner, *episode.query[:2])

            return _accumulated(module, episodes, task)

        return loss

    return make


def higher() -> Peer:
    """higher's patched module and differentiable SGD."""
    from higher import innerloop_ctx

    def make(module: nn.Module, episodes: Sequence[Episode], *, lr: float, steps: int) -> Loss:
        optimizer = torch.optim.SGD(module.parameters(), lr=lr)

        def loss() -> tuple[Tensor, Params]:
            module.zero_grad()
            total = []
            for episode in episodes:
                with innerloop_ctx(module, optimizer, copy_initial_weights=False) as (
                    learner,
                    moved,
                ):
                    for _ in range(steps):
                        moved.step(_loss(learner, *episode.support[:2]))
                    value = _loss(learner, *episode.query[:2]) / len(episodes)
                    value.backward()
                    total.append(value.detach())
            return torch.stack(total).sum(), _gradients(module)

        return loss

    return make


def torchopt() -> Peer:
    """TorchOpt's `MetaSGD`, whose module is put back to its start after each task."""
    from torchopt import MetaSGD, extract_state_dict, recover_state_dict

    def make(module: nn.Module, episodes: Sequence[Episode], *, lr: float, steps: int) -> Loss:
        optimizer = MetaSGD(module, lr=lr)
        leaves: Params = dict(module.named_parameters())

        def loss() -> tuple[Tensor, Params]:
            begun = extract_state_dict(module, by="reference", detach_buffers=True)
            state = extract_state_dict(optimizer, by="reference")

            def task(episode: Episode) -> Tensor:
                for _ in range(steps):
                    optimizer.step(_loss(module, *episode.support[:2]))
                value = _loss(module, *episode.query[:2])
                recover_state_dict(module, begun)
                recover_state_dict(optimizer, state)
                return value

            return _accumulated(module, episodes, task, leaves)

        return loss

    return make


PEERS: dict[str, Callable[[], Peer]] = {
    "learn2learn": learn2learn,
    "higher": higher,
    "TorchOpt": torchopt,
}


def _loss(module: nn.Module, x: Any, y: Tensor) -> Tensor:
    return functional.cross_entropy(module(x), y)


def _accumulated(
    module: nn.Module,
    episodes: Sequence[Episode],
    task: Callable[[Episode], Tensor],
    leaves: Params | None = None,
) -> tuple[Tensor, Params]:
    """Backward after each task, so that one graph is kept at a time."""
    module.zero_grad()
    for value in (leaves or {}).values():
        value.grad = None
    total = []
    for episode in episodes:
        value = task(episode) / len(episodes)
        value.backward()
        total.append(value.detach())
    return torch.stack(total).sum(), _gradients(module, leaves)


def _gradients(module: nn.Module, leaves: Params | None = None) -> Params:
    found: Params = {}
    for name, value in (leaves or dict(module.named_parameters())).items():
        assert value.grad is not None
        found[name] = value.grad.detach().clone()
    return found
