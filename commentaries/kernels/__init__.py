"""Layers by PyTorch's kernels, with derivatives of any order of reverse mode.

A hypergradient differentiates gradients. PyTorch's own second derivatives of these layers are slow
or keep more than they need; here they are a few calls of the same kernels.
"""
