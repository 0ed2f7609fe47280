"""Kronecker-factored approximate curvature: an inverse that costs no product with the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput, NonFinite, check_positive
from ..problem import Composed
from ..types import Batch, Loss, Params, Product
from .linear_layers import LinearLayers


class Block(NamedTuple):
    """One layer's curvature, inputs ⊗ outputs; a grouped convolution has a pair for each group.

    Attributes:
        weight: Name of the layer's weight.
        bias: Name of its bias, where it is trained: the last entry of the inputs is then 1.
        inputs: (groups, d, d), the mean of a aᵀ over what the weight multiplies.
        outputs: (groups, o, o), the sum of g gᵀ over the outputs, whose g carry the curvature of
            the loss.
    """

    weight: str
    bias: str | None
    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class KroneckerFactors:
    """An approximation of the Gauss–Newton matrix, block by block.

    Attributes:
        blocks: The layers that have Kronecker factors.
        rest: Every other parameter, with an estimate of the diagonal of its block.
        passes: Backward passes that were taken, beside one forward pass.
        damping: See `KFAC`.
        split: See `KFAC`.
    """

    blocks: tuple[Block, ...]
    rest: Params
    passes: int
    damping: float
    split: bool = False

    def inverse(self) -> Product:
        """v -> (K + damping · I)⁻¹ v, factorised once: symmetric and positive definite."""
        factorise = _split_inverse if self.split else _exact_inverse
        solves = [factorise(block, self.damping) for block in self.blocks]

        def apply(v: Params) -> Params:
            found = {name: v[name] / (value + self.damping) for name, value in self.rest.items()}
            for block, solve in zip(self.blocks, solves, strict=True):
                groups, o, _ = block.outputs.shape
                joint = v[block.weight].reshape(groups, o, -1)
                if block.bias is not None:
                    joint = torch.cat([joint, v[block.bias].reshape(groups, o, 1)], dim=2)
                joint = solve(joint)
                if block.bias is not None:
                    found[block.bias] = joint[:, :, -1].reshape_as(v[block.bias])
                    joint = joint[:, :, :-1]
                found[block.weight] = joint.reshape_as(v[block.weight])
            return {name: found[name] for name in v}

        return apply


@dataclass(frozen=True)
class KFAC:
    """K-FAC of a composed loss (Martens and Grosse 2015; convolutions: Grosse and Martens 2016).

    The Gauss–Newton block of a layer's weight, Σ_i (a_i a_iᵀ) ⊗ (g_i g_iᵀ), is taken to be
    mean(a aᵀ) ⊗ Σ_i g_i g_iᵀ. The g carry the Hessian of the loss at the outputs to the layer's
    own, and with it whatever the loss multiplies an example by: weights enter there. The inverse
    is a preconditioner for any solver, and by itself an approximate solution
    (`solvers.Identity`). For hypergradients: Liao, Dangel and Yu 2026.

    Layers are the calls of ``linear`` and ``conv2d`` with a trained weight, whichever module makes
    them; a weight that several calls share has one block. Every other parameter (normalisation,
    embeddings, the packed weights of `torch.nn.MultiheadAttention`) has an estimate of its
    diagonal. The loss must be a mean over the examples; where it is not convex in the outputs its
    negative part is left out, and what it holds (`Composed`) is held.

    Attributes:
        damping: δ > 0 added to every block. Alone: what the inner optimiser's weight decay and
            the solver's damping add to the curvature. As a preconditioner, ten times that: the
            first products gain as much, and the later ones more.
        samples: Random signs s for which Σ_c s_c S_c is propagated backwards, one pass each, where
            S Sᵀ is the Hessian of the loss at the outputs. None: every column of S, as many passes
            as there are outputs.
        sharing: Weights used at several positions of one example (convolutions): "expand" treats
            the positions as independent examples, "reduce" averages a and sums g over them first
            (Eschenhagen et al. 2023). Examples are the first dimension.
        split: Invert (inputs + π√δ) ⊗ (outputs + √δ/π), π² the ratio of their mean eigenvalues,
            by Cholesky factors, in place of inputs ⊗ outputs + δ by eigenvalues: faster, and
            damped more than asked.
        seed: Of the signs.
    """

    damping: float
    samples: int | None = None
    sharing: Literal["expand", "reduce"] = "expand"
    split: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("damping", self.damping)
        if self.samples is not None:
            check_positive("samples", self.samples)
        if self.sharing not in ("expand", "reduce"):
            raise BadInput(f"There is no sharing {self.sharing!r}. Choose 'expand' or 'reduce'.")

    def __call__(self, inner: Loss, theta: Params, phi: Params, batch: Batch) -> KroneckerFactors:
        """The factors at θ, on a batch: one forward pass and a backward pass for each column.

        Raises:
            BadInput: The loss is not `Composed`, so its outputs cannot be told from its loss.
            NonFinite: A factor is not finite.
        """
        if not isinstance(inner, Composed):
            raise BadInput(
                "KFAC needs to see the student's outputs. Make the inner loss a "
                "commentaries.Composed(outputs, loss), as commentaries.taught(...) does, or use "
                "solvers.Nystrom."
            )
        theta, phi = p.live(theta), p.detach(phi)
        recorder = LinearLayers(theta)
        with torch.enable_grad(), recorder:
            z, lesson = inner.outputs(theta, phi, batch)
        layers = recorder.layers()
        factored = {name for layer in layers for name in (layer.weight, layer.bias)}
        rest = {name: value for name, value in theta.items() if name not in factored}
        diagonal = p.zeros_like(rest)
        outputs: list[Tensor] = []
        for weight, _, (call, *_) in layers:
            o = theta[weight].shape[0] // call.groups
            outputs.append(theta[weight].new_zeros(call.groups, o, o))
        calls = [call for layer in layers for call in layer.calls]
        ends: list[Any] = [call.output for call in calls] + list(rest.values())
        passes = 0
        for column in self._columns(_output_root(inner, z, lesson)):
            found = torch.autograd.grad(
                z, ends, column.reshape_as(z).to(z), retain_graph=True, allow_unused=True
            )
            passes += 1
            # None: what the outputs do not see
            gradients = iter(found)
            for layer, covariance in zip(layers, outputs, strict=True):
                uses = [(call, next(gradients)) for call in layer.calls]
                seen = [call.spread(gradient) for call, gradient in uses if gradient is not None]
                if seen:
                    g = self._rows(seen, total=True).to(covariance)
                    covariance += g.mT @ g
            for value, gradient in zip(diagonal.values(), gradients, strict=True):
                if gradient is not None:
                    value += gradient.square()
        blocks = []
        for layer, covariance in zip(layers, outputs, strict=True):
            a = self._rows([call.inputs() for call in layer.calls], total=False).to(covariance)
            if layer.bias is not None:
                a = torch.cat([a, torch.ones_like(a[:, :, :1])], dim=2)
            blocks.append(Block(layer.weight, layer.bias, a.mT @ a / a.shape[1], covariance))
        factors = {f"{b.weight}.{i}": b[i] for b in blocks for i in (2, 3)}
        if not p.is_finite(factors | diagonal):
            raise NonFinite(
                "A Kronecker factor is not finite. Lower the student's learning rate, or look for "
                "inputs that are not finite."
            )
        return KroneckerFactors(tuple(blocks), diagonal, passes, self.damping, self.split)

    def _columns(self, root: Tensor):
        """What is propagated backwards, (n, outputs) each; Σ column columnᵀ ≈ root rootᵀ.

        The signs keep examples apart where a layer, as batch normalisation, mixes them: what one
        example's column does to another's then has mean zero.
        """
        n, _, columns = root.shape
        generator = torch.Generator().manual_seed(self.seed)

        def signs(*shape: int) -> Tensor:
            return (torch.randint(2, shape, generator=generator) * 2 - 1).to(root)

        if self.samples is None:
            for column in root.unbind(2):
                yield column * signs(n, 1)
            return
        for _ in range(self.samples):
            yield (root @ signs(n, columns, 1))[:, :, 0] / self.samples**0.5

    def _rows(self, uses: list[Tensor], *, total: bool) -> Tensor:
        """Each (groups, n, positions, d) -> (groups, rows of all, d)."""
        if self.sharing == "expand":
            return torch.cat([use.flatten(1, 2) for use in uses], dim=1)
        return torch.cat([use.sum(2) if total else use.mean(2) for use in uses], dim=1)


def _output_root(inner: Composed, z: Tensor, lesson: Any) -> Tensor:
    """S of shape (n, outputs, columns): S_i S_iᵀ is the Hessian of the loss at example i's outputs.

    One product of the loss alone gives a column of every example's Hessian, since no example's
    loss depends on another's outputs.
    """
    held = z.detach()
    alias = held.clone().requires_grad_()
    with torch.enable_grad():
        loss = inner.loss(alias, held, lesson)
        (gradient,) = torch.autograd.grad(loss, alias, create_graph=True)
    units = torch.eye(held[0].numel(), dtype=held.dtype, device=held.device)
    if not gradient.requires_grad:  # linear in the outputs: no curvature
        return held.new_zeros(*held.flatten(1).shape, 0)
    columns = [
        torch.autograd.grad(
            gradient, alias, unit.reshape(held[:1].shape).expand_as(held), retain_graph=True
        )[0]
        for unit in units
    ]
    hessian = torch.stack(columns, dim=-1).reshape(*held.flatten(1).shape, -1)
    values, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
    # ascending: a column that is rounding for every example is left out
    kept = (values > 10 * torch.finfo(values.dtype).eps * values.amax()).any(0)
    return vectors[:, :, kept] * values[:, kept].clamp_min(0).sqrt()[:, None, :]


Solve = Callable[[Tensor], Tensor]
"""(groups, o, d) -> (groups, o, d)."""


def _exact_inverse(block: Block, damping: float) -> Solve:
    """(inputs ⊗ outputs + damping · I)⁻¹."""
    of_inputs, U = torch.linalg.eigh(block.inputs)
    of_outputs, W = torch.linalg.eigh(block.outputs)
    product = of_outputs.clamp_min(0)[:, :, None] * of_inputs.clamp_min(0)[:, None, :]
    scales = 1 / (product + damping)
    return lambda V: W @ (scales * (W.mT @ V @ U)) @ U.mT


def _split_inverse(block: Block, damping: float) -> Solve:
    """(inputs + π√δ)⁻¹ ⊗ (outputs + √δ/π)⁻¹ (Martens and Grosse 2015, section 6.3)."""

    def mean(matrix: Tensor) -> Tensor:
        return matrix.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)[:, None, None]

    def inverse(matrix: Tensor, shift: Tensor) -> Tensor:
        identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
        return torch.cholesky_inverse(torch.linalg.cholesky(matrix + shift * identity))

    ratio = (mean(block.inputs) / mean(block.outputs)).sqrt()
    of_inputs = inverse(block.inputs, ratio * damping**0.5)
    of_outputs = inverse(block.outputs, damping**0.5 / ratio)
    return lambda V: of_outputs @ V @ of_inputs
