"""A second device for machines without one: real numbers that claim to be on "meta".

Inside `Elsewhere()` a tensor that is moved to the device "meta" keeps its numbers in a hidden CPU
tensor, and every operation that mixes the two devices is refused as CUDA would refuse it. Only
zero-dimensional CPU tensors and CPU positions for indexing may be mixed in.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_aten = torch.ops.aten
_POSITIONS = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default,
              _aten._index_put_impl_.default}  # fmt: skip


class Far(torch.Tensor):
    """A tensor on the pretended device."""

    @staticmethod
    def __new__(cls, near):
        return torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=DEVICE,
        )  # fmt: skip

    def __init__(self, near):
        self.near = near

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} of a far tensor outside Elsewhere()")


class Elsewhere(TorchDispatchMode):
    """Runs every operation on the hidden tensors and refuses those that mix devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [
            leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)
        ]
        far = any(isinstance(leaf, Far) for leaf in tensors)
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        if far and func is not _aten._to_copy.default and func is not _aten.copy_.default:
            if func in _POSITIONS:  # those may be near, but not what is indexed or written
                tensors = [args[0], *args[2:3]]
            if any(not isinstance(leaf, Far) and leaf.dim() for leaf in tensors):
                raise RuntimeError(f"Expected all tensors to be on the same device in {func}")
        near = tree_map(lambda leaf: leaf.near if isinstance(leaf, Far) else leaf, (args, kwargs))
        out = func(*near[0], **near[1])
        if target is not None:
            far = torch.device(target) == DEVICE
        if func is _aten._efficientzerotensor.default and not out.dim():
            return out  # the tangent of a Python number, which torch wants on the CPU
        if not far:
            return out
        if func is _aten.copy_.default:
            return args[0]
        out = tree_map(lambda leaf: Far(leaf) if isinstance(leaf, torch.Tensor) else leaf, out)
        return return_and_correct_aliasing(func, args, kwargs, out)
