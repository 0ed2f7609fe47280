"""An ordinary ``nn.Module`` as a pure function of its parameters and buffers."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules import instancenorm

from .errors import BadInput
from .kernels.layout import channels_last
from .kernels.reverse_mode import reverse_only
from .primitives import Primitives
from .types import Batch, Inputs, Params


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers from a seed inside the block; the global generators end where they were."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


class Student:
    """A network whose parameters are an argument.

    The module is copied, so that the caller's own one is never touched. Parameters that do not
    require grad and buffers that no pass writes are constants: θ holds only what is trained, and
    the constants follow it to its device. Normalisation runs from primitives that can be
    differentiated any number of times, in any mode (`commentaries.primitives`). A part whose
    ``train()`` keeps it in evaluation mode, as `networks.Frozen`, stays in it.

    Args:
        module: A module, or a function that builds one. With a function, `init` draws the initial
            parameters as the module's own constructor does; with a module, by the
            ``reset_parameters`` of its parts.

    Raises:
        BadInput: Nothing requires grad, or an instance normalisation tracks running statistics.
    """

    def __init__(self, module: nn.Module | Callable[[], nn.Module]):
        self._build = None if isinstance(module, nn.Module) else module
        with seeded(0, torch.device("cpu")):
            built = copy.deepcopy(module) if isinstance(module, nn.Module) else module()
        for part in built.modules():
            if hasattr(part, "num_batches_tracked"):
                # it would count training passes in place
                part.register_buffer("num_batches_tracked", None)
            if isinstance(part, instancenorm._InstanceNorm) and part.track_running_stats:
                raise BadInput(
                    f"{type(part).__name__} with track_running_stats keeps running statistics that "
                    "no training pass uses. Build it with track_running_stats=False."
                )
        self._module = built
        self._elsewhere: dict[torch.device, nn.Module] = {}
        self._names = [name for name, value in built.named_parameters() if value.requires_grad]
        if not self._names:
            raise BadInput(
                "The module has no parameter that requires grad, so there is nothing to train. "
                "Call requires_grad_() on those that the student should learn."
            )
        # On a CPU these work through images several times faster if the channels come last;
        # convolutions are as fast either way, and what has none of these is better left alone.
        self._channels_last = any(
            isinstance(part, (nn.BatchNorm2d, nn.MaxPool2d)) for part in built.modules()
        )
        built.train()
        # Layers whose running statistics a training pass would move; a frozen one has gone back to
        # evaluation mode by itself.
        self._running = [
            name
            for name, part in built.named_modules()
            if isinstance(getattr(part, "running_mean", None), Tensor) and part.training
        ]

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a training pass normalises by the statistics of the batch."""
        self._module.train()
        return any(
            isinstance(part, nn.modules.batchnorm._BatchNorm)
            and (part.training or part.running_mean is None)
            for part in self.modules()
        )

    def modules(self) -> Iterator[nn.Module]:
        """The parts of the student's own copy of the module."""
        return self._module.modules()

    def module(self) -> nn.Module:
        """A copy of the module in training mode, for code that takes modules."""
        return copy.deepcopy(self._module).train()

    def parameters(self) -> Params:
        """The module's present parameters, as for a pretrained network: copies, without a graph."""
        current = dict(self._module.named_parameters())
        return {name: current[name].detach().clone() for name in self._names}

    def init(self, generator: torch.Generator) -> Params:
        """Fresh initial parameters, drawn from the generator alone, where the module is.

        They are drawn on the CPU (unless a function that builds the module draws elsewhere), so
        that they do not depend on the device.

        Raises:
            BadInput: A trained parameter belongs to a part without ``reset_parameters``.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        device = next(self._module.parameters()).device
        with seeded(seed, device):
            if self._build is not None:
                fresh = self._build()
            else:
                fresh = copy.deepcopy(self._module).cpu()
                self._reset(fresh)
        current = dict(fresh.named_parameters())
        return {name: current[name].detach().clone().to(device) for name in self._names}

    def _reset(self, module: nn.Module) -> None:
        """Draws every trained parameter of a module anew; frozen ones keep their values."""
        trained = set(self._names)
        for prefix, part in module.named_modules():
            own = {
                f"{prefix}.{name}" if prefix else name
                for name, _ in part.named_parameters(recurse=False)
            }
            if not own & trained:
                continue
            reset = getattr(part, "reset_parameters", None) or getattr(
                part, "_reset_parameters", None
            )
            if reset is None:
                raise BadInput(
                    f"{type(part).__name__} has no reset_parameters(), so {sorted(own)} cannot be "
                    "drawn anew. Give Student a function that builds the module."
                )
            if getattr(part, "num_batches_tracked", self) is None:
                # taken away in __init__, but reset_parameters sets it to zero
                part.register_buffer("num_batches_tracked", torch.zeros(()))
            reset()

    def __call__(
        self, theta: Params, x: Inputs, *, seed: int | None = None, buffers: Params | None = None
    ) -> Tensor:
        """The module's output.

        Args:
            theta: The trained parameters.
            x: One tensor, or keyword arguments of the module's ``forward`` by name.
            seed: Of dropout and anything else random in a training pass; None draws from the
                global generator as an ordinary module does.
            buffers: None for a training pass (batch statistics, dropout). For evaluation the
                result of `statistics`, or ``{}`` for a module without running statistics.

        Returns:
            (n, ...), whatever the module returns.

        Raises:
            BadInput: A training pass changed a buffer, so it is not a function of θ alone.
        """
        return self._forward(theta, x, seed, buffers, Primitives())

    def _forward(
        self,
        theta: Params,
        x: Inputs,
        seed: int | None,
        buffers: Params | None,
        primitives: Primitives,
    ) -> Tensor:
        training = buffers is None
        module = self._at(next(iter(theta.values())).device)
        if module.training != training:
            module.train(training)
        if self._channels_last and isinstance(x, Tensor) and x.dim() == 4:
            x = channels_last(x) if x.device.type == "cpu" and reverse_only(x) else x
        arguments = ((), x) if isinstance(x, dict) else ((x,), {})
        example = next(iter(x.values())) if isinstance(x, dict) else x
        random = (
            seeded(seed, example.device)
            if training and seed is not None
            else contextlib.nullcontext()
        )
        before = [(buffer, buffer._version) for buffer in module.buffers()]
        with random, primitives:
            z = functional_call(module, {**theta, **(buffers or {})}, *arguments)
        after = list(module.buffers())
        if len(after) != len(before) or any(
            new is not old or new._version != version
            for new, (old, version) in zip(after, before, strict=True)
        ):
            raise BadInput(
                "A training pass of this module writes to its buffers (as spectral_norm does), so "
                "two passes differ and no hypergradient is exact. Remove the layer that does so, "
                "or replace it by one without state."
            )
        return z

    def _at(self, device: torch.device) -> nn.Module:
        """The module with its constants on a device; a copy for each but the module's own."""
        if device == next(self._module.parameters()).device:
            return self._module
        if device not in self._elsewhere:
            self._elsewhere[device] = copy.deepcopy(self._module).to(device)
        return self._elsewhere[device]

    def statistics(self, theta: Params, batches: Iterable[Batch]) -> Params:
        """Running statistics for evaluation: those of the given batches, weighted by size.

        A training pass keeps no running average; this takes the exact mean and variance of every
        batch-normalised layer over the batches (each normalised by its own statistics).

        Returns:
            Buffers by name, to be passed as ``buffers``; ``{}`` without batch normalisation.
        """
        if not self._running:
            return {}
        module = self._at(next(iter(theta.values())).device)
        # By identity: how a recorded running mean is known to be this layer's.
        running = {id(module.get_submodule(name).running_mean): name for name in self._running}
        batch = None
        pooled: dict[str, tuple[int, Tensor, Tensor]] = {}  # values, mean, Σ(x - mean)²

        def record(own: Tensor | None, mean: Tensor, variance: Tensor, values: int) -> None:
            if own is None or id(own) not in running:
                return
            name = running[id(own)]
            # Chan, Golub and LeVeque 1983: a difference of squares would lose float32's digits
            zero = torch.zeros_like(mean)
            before, old, spread = pooled.get(name, (0, zero, zero))
            total, shift = before + values, mean - old
            pooled[name] = (
                total,
                old + shift * (values / total),
                spread + values * variance + shift.square() * (before * values / total),
            )

        with torch.no_grad():
            for batch in batches:
                self._forward(theta, batch.x, batch.seed, None, Primitives(record))
        if batch is None:
            raise BadInput("statistics needs at least one batch. Pass batches of the training set.")
        buffers: Params = {}
        for name, (values, mean, spread) in pooled.items():
            prefix = f"{name}." if name else ""
            buffers[f"{prefix}running_mean"] = mean
            buffers[f"{prefix}running_var"] = spread / max(values - 1, 1)
        return buffers
