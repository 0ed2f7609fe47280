"""Labels predicted from features, each without its own, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHARPNESS = 8.0
"""Factor of the predictions before they become shares; stacking scales them anew."""


def votes_of_others(x: Tensor, mass: Tensor, *, penalty: float = 1e-3) -> Tensor:
    """Class shares by weighted ridge regression of the labels, each example left out in turn.

    With A = Xᵀ W X + λ |W| I and leverage h_i = w_i x_iᵀ A⁻¹ x_i, the prediction for example i of
    the regression that has not seen it is (f_i - h_i y_i) / (1 - h_i).

    Args:
        x: (m, d) vectors of about unit length; a constant is added.
        mass: (m, classes) label mass: weight times label, zero rows for no label.
        penalty: λ, in units of the whole weight.

    Returns:
        (m, classes), rows sum to one.
    """
    weight = mass.sum(1, keepdim=True)
    label = mass / weight.clamp_min(1e-12)
    X = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    A = (weight * X).mT @ X
    A.diagonal().add_(penalty * weight.sum().clamp_min(1e-12))
    factor = torch.linalg.cholesky(A)
    fitted = X @ torch.cholesky_solve((weight * X).mT @ label, factor)
    leverage = weight * (X * (X @ torch.cholesky_inverse(factor))).sum(1, keepdim=True)
    left_out = (fitted - leverage * label) / (1 - leverage).clamp_min(1e-3)
    return functional.softmax(SHARPNESS * left_out, dim=1)
