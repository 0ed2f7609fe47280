"""Wrong labels: SGD, mixup, SAM and ASAM, and SAM students under learned example weights.

    python -m experiments.sam_label_noise                  # Fashion-MNIST, half an hour on 2 cores
    python -m experiments.sam_label_noise --preset smoke   # one short cell
    python -m experiments.sam_label_noise --preset gpu --device cuda --workers 6   # CIFAR-10

Uniform noise. All methods get the same few examples with right labels. "mixup" picks α by them, as
do SAM and ASAM ρ where several are given; for each method "picked" is its accuracy where it did
best on them, which for SGD is early stopping. "bootstrap + SAM" trains anew on what the SAM student
answers on the training images. "learned weights" trains on the given labels, each with the weight
that a bilevel problem on the right labels has found (`cleaning`), and on the right labels, which
have a share of the loss; "trusted + SAM" is that with equal weights, so that the two together say
what the weights do. "cleaned + SAM" is the last student of `commentaries learn weights`, on the
labels that the weights make likely. Every (rate, method, seed) is kept as soon as it is measured,
and skipped from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import tyro

from commentaries.cleaning.learner import Settings
from commentaries.errors import unknown
from commentaries.training import Recipe

from .flat import Against, print_verdict
from .parallel import measure_all
from .sam_noisy import UNITS, Bench, Planned, Sizes
from .store import Cell, Store

RATES = (0.4, 0.2, 0.6, 0.8)

SHORT = Recipe(steps=1_200, batch=64, weight_decay=5e-4, warm_up=0.1, average=0.0, anchors=16)
LEARNING = Settings(
    steps=150, batch=64, trusted_batch=48, weight_decay=5e-3, refresh_every=50, warm_up=30
)
SMALL = Sizes(
    "fashion_mnist",
    3_000,
    200,
    None,
    "small_cnn",
    SHORT,
    LEARNING,
    "small_cnn",
    rhos=(0.05, 0.1, 0.2),
    asam_rhos=(0.1, 0.2, 0.5),
)
SMOKE = replace(
    SMALL,
    train=200,
    trusted=50,
    test=200,
    recipe=replace(SHORT, steps=20, batch=32),
    settings=replace(LEARNING, steps=6, warm_up=2, batch=32, refresh_every=3),
    rhos=(0.05, 0.1),
    asam_rhos=(0.2,),
)


def on_accelerator(epochs: int) -> Sizes:
    """All of CIFAR-10 with ResNet-32, as in Foret et al. 2021, section 3.3, with fewer epochs."""
    recipe = replace(
        SHORT, steps=1, passes=epochs, batch=128, warm_up=0.0, anchors=32, augment="flip_crop"
    )
    settings = replace(LEARNING, steps=1_000, batch=128, refresh_every=100, warm_up=50)
    return Sizes("cifar10", 49_000, 1_000, None, "resnet32", recipe, settings, "conv2")


def published_rho(rate: float) -> float:
    """SAM's radius for a noise rate (Foret et al. 2021, appendix)."""
    return 0.05 if rate == 0.8 else 0.1


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": 3,000 images of Fashion-MNIST, all methods of a rate and seed together.
            "smoke": one short cell. "gpu": all of CIFAR-10 in bfloat16, each method by itself.
        seeds: Of the cells.
        rates: Of wrong labels.
        methods: Which to run; see `UNITS`.
        rhos: SAM's radii to choose from; the preset's if empty: 0.05, 0.1 and 0.2 for "small", the
            paper's own for each rate for "gpu".
        asam_rhos: ASAM's; the preset's if empty: 0.1, 0.2 and 0.5, or ten times SAM's.
        epochs: Of the preset "gpu"; the paper has 200.
        name: Of the result file.
        workers: Processes of one thread; on an accelerator several share it.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "gpu"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = RATES
    methods: tuple[str, ...] = ()
    rhos: tuple[float, ...] = ()
    asam_rhos: tuple[float, ...] = ()
    epochs: int = 30
    name: str = "sam_label_noise"
    workers: int = 2
    device: str = "cpu"


FIRST = ("SGD", "SAM", "learned weights + SAM")


def cells(arguments: Arguments, done: Callable[[Planned], Sequence[str]]) -> list[Planned]:
    """The cells of a preset.

    On an accelerator SGD, SAM and learned weights of all rates come before the other methods.

    Args:
        arguments: Of the command.
        done: The methods of a cell that are measured already.

    Raises:
        BadInput: An unknown method.
    """
    presets = {"small": SMALL, "smoke": SMOKE, "gpu": on_accelerator(arguments.epochs)}
    sizes = presets[arguments.preset]
    names = arguments.methods or tuple(UNITS)
    for name in names:
        if name not in UNITS:
            raise unknown("method", name, UNITS)
    if arguments.preset == "gpu":
        first = [(name,) for name in names if name in FIRST]
        groups = [first, [(name,) for name in names if name not in FIRST]]
    else:
        groups = [[names]]
    planned = [
        _planned(arguments, sizes, rate, methods, seed)
        for seed in arguments.seeds
        for group in groups
        for rate in arguments.rates
        for methods in group
    ]
    if arguments.preset == "smoke":
        planned = planned[:1]
    left = [
        each._replace(methods=tuple(name for name in each.methods if name not in done(each)))
        for each in planned
    ]
    return [each for each in left if each.methods]


def _planned(
    arguments: Arguments, sizes: Sizes, rate: float, methods: tuple[str, ...], seed: int
) -> Planned:
    rhos = arguments.rhos or sizes.rhos or (published_rho(rate),)
    asam_rhos = arguments.asam_rhos or sizes.asam_rhos or tuple(10 * rho for rho in rhos)
    return Planned(rate, methods, seed, rhos, asam_rhos, sizes, arguments.device)


def measure(planned: Planned) -> list[Cell]:
    """All methods of a cell."""
    bench = Bench(planned)
    labels = planned.labels | {"seed": planned.seed}
    return [
        labels | {"method": method} | scores
        for name in planned.methods
        for method, scores in UNITS[name](bench).items()
    ]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("data", "student", "train", "steps", "rate", "method"),
        metrics=("accuracy", "picked", "training accuracy", "right labels", "rho", "minutes"),
        preset=arguments.preset,
        device=arguments.device,
    )

    def done(planned: Planned) -> list[str]:
        return [n for n in UNITS if kept.has(planned.seed, method=n, **planned.labels)]

    measure_all(measure, cells(arguments, done), kept, workers=arguments.workers)
    pairs = [Against("SAM", base) for base in ("SGD", "SGD, stopped early", "mixup")]
    pairs += [
        Against("ASAM", "SAM"),
        Against("bootstrap + SAM", "SAM"),
        Against("learned weights + SAM", "SAM"),
        Against("learned weights + SAM", "trusted + SAM"),
        Against("learned weights + SAM", "learned weights"),
        Against("learned weights + SAM", "bootstrap + SAM"),
        Against("cleaned + SAM", "learned weights + SAM"),
    ]
    print_verdict(kept, ("data", "student", "steps", "rate"), pairs)


if __name__ == "__main__":
    main()
