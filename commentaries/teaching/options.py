"""What the jobs that learn mixing ratios or attention masks are asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from tyro.conf import Suppress

from ..data import is_own
from ..errors import (
    BadInput,
    check_fraction,
    check_less,
    check_not_negative,
    check_positive,
    unknown,
)
from ..hypergradient import Hypergradient, Implicit, Unrolled
from ..solvers import Identity, Neumann
from ..training import Recipe

Controls = Literal["quick", "all", "none"]
Ratio = Literal["table", "symmetric", "network"]
MaskName = Literal["unet", "window"]

MARKED = (
    "digits_on_photos",
    "coloured_mnist",
    "pasted_digits",
    "pasted_photos",
    "swapped_backgrounds",
)
"""Sets for masks that are made of sets by name, and know where the student should look."""


@dataclass(frozen=True)
class Settings:
    """How a commentary on images is learned.

    Attributes:
        terms: Summands of the Neumann series, each but the first a Hessian product; 0 unrolls
            ``inner_steps`` steps instead.
        steps: Outer steps.
        inner_steps: Student steps for each outer step.
        batch: Training examples for each student step.
        validation_batch: Validation examples for each judgement.
        lr: Of the student's SGD, which is also the step size of the series.
        momentum: Of the student's SGD (Nesterov).
        weight_decay: Of the student.
        average: Decay of the averaged student.
        outer_lr: Of the commentary's Adam.
        warm_up: Outer steps before the commentary moves.
        restart_every: Draw the student anew every so many outer steps; never if not given.
    """

    terms: int = 1
    steps: int = 1000
    inner_steps: int = 1
    batch: int = 128
    validation_batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    average: float = 0.98
    outer_lr: float = 1e-2
    warm_up: int = 20
    restart_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "inner_steps", "batch", "validation_batch", "lr", "outer_lr"):
            check_positive(name, getattr(self, name))
        check_positive("restart_every", self.restart_every)
        for name in ("terms", "weight_decay", "warm_up"):
            check_not_negative(name, getattr(self, name))
        for name in ("momentum", "average"):
            check_fraction(name, getattr(self, name))
        check_less("warm_up", self.warm_up, "steps", self.steps)

    @property
    def hypergradient(self) -> Hypergradient:
        """The method that the settings describe."""
        if self.terms == 0:
            return Unrolled()
        if self.terms == 1:  # the same number as the series, without a product for its residual
            return Implicit(Identity(scale=self.lr))
        return Implicit(Neumann(self.terms, step_size=self.lr))


@dataclass(frozen=True)
class LessonJob:
    """What learning to mix and learning to mask have in common.

    Attributes:
        data: A data set by name, or your own images: a folder with one folder for each class, a
            .csv with the columns file and label, or an .npz with x and y.
        train: Number of training examples; if not given, all that are left.
        validation: Number of training examples by which the commentary is judged; of the students
            of the comparison only the control "with validation" trains on them. A fifth if not
            given.
        test: Number of test examples, drawn from the test part where there is one; or, of your
            own images, a folder. If not given, all of the test part, or a fifth of the images.
        student: The network: small_cnn, conv2, cbr, conv4, resnet18, resnet32, resnet34,
            wide_resnet, shake_shake, pyramidnet, pyramidnet_shakedrop, torchvision:NAME or
            timm:NAME. If not given, small_cnn for images of less than 16 pixels, else conv2.
        size: Side in pixels to which your own images are resized; if not given, their median
            shorter side, at most 64.
        skip_unreadable: Leave out images that cannot be read instead of refusing the data.
        root: Folder of the sets by name; if not given, $COMMENTARIES_DATA or a cache folder.
        download: Fetch a set by name where it is missing.
        device: Where to compute: cpu or cuda.
        seed: Of the split, the students and the commentary.
        threads: Of torch's kernels; one is fastest for small networks, and a run is bitwise
            repeatable for one number of threads.
        controls: "quick": those that answer the first questions. "all": all of them. "none".
        checkpoint_every: Outer steps between checkpoints, at most as many as a kill loses.
        settings: How the commentary is learned.
        recipe: How the students of the comparison are trained.
        lr_scale: Factor of the learning rates of both; if not given, 1 for small_cnn and a
            quarter for all others.
    """

    data: str = "digits"
    train: int | None = None
    validation: int | None = None
    test: int | Path | None = None
    student: str | None = None
    size: int | None = None
    skip_unreadable: bool = False
    root: Path | None = None
    download: bool = False
    device: str = "cpu"
    seed: int = 0
    threads: int = 1
    controls: Controls = "quick"
    checkpoint_every: int = 50
    settings: Settings = field(default_factory=Settings)
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=1000, weight_decay=5e-4))
    lr_scale: float | None = None

    def __post_init__(self) -> None:
        if self.controls not in get_args(Controls):
            raise unknown("choice of controls", self.controls, get_args(Controls))
        for name in ("train", "validation", "test", "size", "threads"):
            check_positive(name, getattr(self, name))
        check_positive("checkpoint_every", self.checkpoint_every)
        check_positive("lr_scale", self.lr_scale)
        if self.seed < 0:
            raise BadInput(f"seed is {self.seed}, but must not be negative. Choose 0 or more.")
        if isinstance(self.test, Path) and not self.is_own:
            raise BadInput(
                f"test is {str(self.test)!r}, but {self.data} is a data set by name, whose test "
                "examples are drawn. Give a number, or a folder as data."
            )
        if self.size is not None and not self.is_own:
            raise BadInput(
                f"size is for your own images, and {self.data} is a data set by name. Leave it "
                "out, or give a folder as data."
            )

    @property
    def is_own(self) -> bool:
        """Whether the data are a user's own and not a set by name."""
        return self.data not in MARKED and is_own(self.data)

    def settled(self) -> Self:
        """The same job with absolute paths, which mean the same from any folder."""
        changes: dict[str, Any] = {
            name: value.expanduser().resolve()
            for name in ("test", "root")
            if isinstance(value := getattr(self, name), Path)
        }
        if self.is_own:
            changes["data"] = str(Path(self.data).expanduser().resolve())
        return replace(self, **changes)


@dataclass(frozen=True)
class MixupJob(LessonJob):
    """Learn in which ratio examples of two classes are mixed, beside standard mixup.

    Attributes:
        ratio: "table": one ratio for each ordered pair of classes. "symmetric": for each pair.
            "network": a function of both images and both labels.
        knots: Tables at so many equally spaced times of the training, linear in between.
        centred: Hold the tables' mean in the middle of the range: learn which pairs are mixed
            more than others, not how much is mixed on the whole.
        low: The least share of an example itself; the paper has ½.
        high: The greatest.
        concentration: Draw each ratio from a Beta distribution with the learned mean and this sum
            of its two parameters; if not given, the ratio is the mean itself.
        alphas: Of standard mixup, Beta(α, α), of which the one that does best on the validation
            examples is the control.
        kind: What a run of this job is called.
    """

    ratio: Ratio = "table"
    knots: int = 1
    centred: bool = False
    low: float = 0.5
    high: float = 1.0
    concentration: float | None = None
    alphas: tuple[float, ...] = (0.2, 0.5, 1.0)
    kind: Annotated[Literal["mixup"], Suppress] = "mixup"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio not in get_args(Ratio):
            raise unknown("ratio", self.ratio, get_args(Ratio))
        check_positive("knots", self.knots)
        check_positive("concentration", self.concentration)
        if not 0 <= self.low < self.high <= 1:
            raise BadInput(
                f"The ratios run from {self.low} to {self.high}, but must run upwards within 0 "
                "and 1. The paper has 0.5 and 1."
            )
        if not self.alphas:
            raise BadInput("alphas is empty, so there is no standard mixup. Name at least one.")
        for alpha in self.alphas:
            check_positive("alphas", alpha)
        for name, without in (("knots", 1), ("centred", False)):
            if self.ratio == "network" and getattr(self, name) != without:
                raise BadInput(
                    f"{name} is {getattr(self, name)}, but a network has no tables. Leave {name} "
                    "out, or choose the ratio 'table'."
                )


@dataclass(frozen=True)
class MasksJob(LessonJob):
    """Learn where a student should look, beside fixed and shuffled masks and saliency.

    Attributes:
        mask: "unet": a free mask of each image. "window": a Gaussian window about a learned
            centre.
        deviation: Of the window, in shares of the image's side.
        resize: Learn one deviation for all windows too, from ``deviation`` on. Where the student
            is misled it shrinks to nothing, because seeing nothing misleads less.
        background: What is left of the image outside the mask, in [0, 1).
        area: Price of a mask's mean, which keeps it from being one everywhere where nothing
            misleads. A high one, or a student that knows nothing yet, closes the mask for good. Not
            for a window that keeps its size, which it would only drive out of the image.
        entropy: Price of a mask's spread over the pixels.
        correlation: Of the misleading cue with the label, in the sets that are made here.
        recipe: How the students of the comparison are trained: with a smaller learning rate than
            elsewhere, which rises in the first twentieth of the steps. With a larger one, students
            that see little of an image lose units for good, some so many that all answers are
            alike.
        kind: What a run of this job is called.
    """

    data: str = "digits_on_photos"
    settings: Settings = field(
        default_factory=lambda: Settings(steps=1200, outer_lr=3e-3, warm_up=400)
    )
    recipe: Recipe = field(
        default_factory=lambda: Recipe(steps=1000, lr=0.08, weight_decay=5e-4, warm_up=0.05)
    )
    mask: MaskName = "window"
    deviation: float = 0.2
    resize: bool = False
    background: float = 0.0
    area: float = 0.0
    entropy: float = 0.0
    correlation: float = 0.9
    kind: Annotated[Literal["masks"], Suppress] = "masks"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask not in get_args(MaskName):
            raise unknown("mask", self.mask, get_args(MaskName))
        check_positive("deviation", self.deviation)
        check_fraction("background", self.background)
        check_not_negative("entropy", self.entropy)
        check_not_negative("area", self.area)
        if self.keeps_size and self.area:
            raise BadInput(
                f"area is {self.area}, but a window that keeps its size has no smaller area to "
                "choose. Leave area out, or learn the size too (--resize)."
            )
        if not 0 <= self.correlation <= 1:
            raise BadInput(
                f"correlation is {self.correlation}, but must be from 0 to 1. Choose 0.9 for a "
                "cue that misleads, or less."
            )

    @property
    def keeps_size(self) -> bool:
        """Whether all masks are windows of one size that is given."""
        return self.mask == "window" and not self.resize
