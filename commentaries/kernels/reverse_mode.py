"""Which derivatives are being taken."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore
from torch.autograd import forward_ad


def reverse_only(*values: Tensor) -> bool:
    """Whether nothing but reverse mode in one precision is asked of some tensors.

    That is: neither `torch.func`, nor forward mode, nor autocast. Kernels with derivatives of their
    own serve there.
    """
    first = values[0]
    device = first.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return False
    return not any(
        value.dtype != first.dtype
        or is_functorch_wrapped_tensor(value)
        or forward_ad.unpack_dual(value).tangent is not None
        for value in values
    )
