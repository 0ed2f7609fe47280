"""Hypergradients into ``.grad``, for a teacher that an ordinary ``torch.optim`` loop trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import BadInput
from ..problem import Bilevel
from ..types import Batch, Params
from .result import Hypergradient, HypergradientResult, Optimizer


def backward(
    method: Hypergradient,
    problem: Bilevel,
    optimizer: Optimizer,
    theta: Params,
    teacher: nn.Module,
    *,
    inner: Sequence[Batch],
    outer: Batch,
    state: Any = None,
    adjoint: Params | None = None,
) -> HypergradientResult:
    """Adds dL_V/dφ to the ``.grad`` of a module's parameters, as ``loss.backward()`` does.

    φ are those parameters of the module that require grad, by their names: what the problem's
    losses get as φ, to call the module with (`torch.func.functional_call`, or `Student`).
    Hyper-parameters are a module too: an `nn.ParameterDict`.

    Args:
        method: Such as `Implicit` or `Unrolled`.
        problem: The inner and the outer loss.
        optimizer: How the student steps.
        theta: Student parameters.
        teacher: The module whose parameters are learned.
        inner: One batch a training step.
        outer: The validation batch.
        state: The student's optimiser's state; fresh by default.
        adjoint: Of the last call.

    Returns:
        The method's result: the student one stretch of training further, and its state.

    Raises:
        BadInput: No parameter of the module requires grad.
    """
    own: dict[str, nn.Parameter] = {
        name: value for name, value in teacher.named_parameters() if value.requires_grad
    }
    if not own:
        raise BadInput(
            "No parameter of the teacher requires grad, so there is nothing to learn. Call "
            "requires_grad_() on those that should be learned."
        )
    phi: Params = {**own}
    result = method(
        problem, optimizer, theta, phi, inner=inner, outer=outer, state=state, adjoint=adjoint
    )
    for name, parameter in own.items():
        found = result.value[name].to(parameter.dtype)
        parameter.grad = found if parameter.grad is None else parameter.grad + found
    return result
