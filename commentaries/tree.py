"""Nested states: NamedTuples, tuples and dicts whose leaves are tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors of a nested state, depth first; anything that is no tensor is passed over."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, tuple | list):
        for value in tree:
            yield from leaves(value)


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same state with a function applied to every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: map_tensors(function, value) for name, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree


def detach(tree: Any) -> Any:
    """The same values, cut from any graph."""
    return map_tensors(Tensor.detach, tree)


def live(tree: Any) -> Any:
    """Detached aliases whose floating-point tensors require grad."""
    return map_tensors(
        lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()),
        tree,
    )
