"""What a job on few-shot learning is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import Suppress

from ..data import FEW_SHOT_NAMES, FEW_SHOT_SIZE
from ..errors import BadInput, check_fraction, check_not_negative, check_positive, unknown
from ..fewshot.maml import Statistics

CommentaryName = Literal["none", "losses", "agreement"]


@dataclass(frozen=True)
class FewShotJob:
    """Learn an initialisation that a few steps adapt to new classes.

    Attributes:
        data: omniglot, cifar_fs, or a folder: with train, val and test, each of class folders (as
            miniImageNet); with images, train.csv, val.csv and test.csv; CUB-200-2011; or class
            folders alone.
        way: Classes of a task.
        shot: Support examples of each class, to adapt to.
        query: Query examples of each class, to be judged on.
        wrong: Share of wrong labels among the support examples, in training and in testing.
        train_wrong: Least and greatest share in training instead, drawn for each task. A
            commentary that has always seen as many expects as many, also where all are right.
        steps: Adaptation steps.
        lr: Their size, or where learned sizes begin.
        learn_rates: Learn one size for each step and parameter tensor (MAML++).
        commentary: "losses": weigh each support example at each step, by how its loss compares
            with those of the others. "agreement": also by how it fits the others of its label, in
            features that pretraining gave; with one shot it has no others of its label unless
            labels are wrong. "none": all count the same.
        first_order: Leave out second derivatives.
        statistics: Of batch normalisation for query examples: "transductive", their own, as the
            MAML paper's code has it; "support", those of the support set.
        meta_steps: Steps of the initialisation.
        tasks: Tasks for each of them.
        meta_lr: Of the initialisation's Adam.
        commentary_factor: How many times as far the commentary moves in each.
        episodes: Test tasks.
        test_steps: Adaptation steps in testing; as many as in training if not given.
        student: The network: conv4, conv2, resnet18 or another of `learn mixup`.
        width: Channels of its blocks; its own default if not given.
        pretrain: Passes over the training classes, to tell all of them apart, before anything
            else: the initialisation begins with these features. 10 to 30 spare most meta-steps.
        weights: A local file of pretrained weights of the network to begin with instead.
        size: Side in pixels of the images of a folder.
        root: Folder of the sets by name; if not given, $COMMENTARIES_DATA or a cache folder.
        download: Fetch a set by name where it is missing.
        device: Where to compute: cpu or cuda.
        seed: Of the tasks, the initialisation and the commentary.
        threads: Of torch's kernels; a run is bitwise repeatable for one number of threads.
        checkpoint_every: Meta-steps between checkpoints, at most as many as a kill loses.
        kind: What a run of this job is called.
    """

    data: str = "omniglot"
    way: int = 5
    shot: int = 1
    query: int = 15
    wrong: float = 0.0
    train_wrong: tuple[float, float] | None = None
    steps: int = 5
    lr: float = 0.1
    learn_rates: bool = False
    commentary: CommentaryName = "none"
    first_order: bool = False
    statistics: Statistics = "transductive"
    meta_steps: int = 1000
    tasks: int = 4
    meta_lr: float = 1e-3
    commentary_factor: float = 10.0
    episodes: int = 600
    test_steps: int | None = None
    student: str = "conv4"
    width: int | None = None
    pretrain: int = 0
    weights: Path | None = None
    size: int = FEW_SHOT_SIZE
    root: Path | None = None
    download: bool = False
    device: str = "cpu"
    seed: int = 0
    threads: int = 1
    checkpoint_every: int = 50
    kind: Annotated[Literal["fewshot"], Suppress] = "fewshot"

    def __post_init__(self) -> None:
        for name in (
            *("way", "shot", "query", "steps", "meta_steps", "tasks", "episodes", "test_steps"),
            *("lr", "meta_lr", "commentary_factor", "width", "size", "threads"),
            "checkpoint_every",
        ):
            check_positive(name, getattr(self, name))
        check_fraction("wrong", self.wrong)
        check_not_negative("seed", self.seed)
        check_not_negative("pretrain", self.pretrain)
        if self.commentary not in get_args(CommentaryName):
            raise unknown("commentary", self.commentary, get_args(CommentaryName))
        if self.pretrain and self.weights is not None:
            raise BadInput(
                "Both pretrain and weights are given, and the student can begin from one of them. "
                "Leave one out."
            )
        if self.commentary == "agreement" and not self.pretrain and self.weights is None:
            raise BadInput(
                "The commentary compares features, and there are none before anything is learned. "
                "Ask for pretraining, such as pretrain = 10, give a file of weights, or choose the "
                "commentary losses."
            )

    @property
    def is_own(self) -> bool:
        """Whether the data are a user's own and not a set by name."""
        return self.data not in FEW_SHOT_NAMES

    def settled(self) -> FewShotJob:
        """The same job with absolute paths, which mean the same from any folder."""

        def absolute(path: Path | None) -> Path | None:
            return None if path is None else path.expanduser().resolve()

        path = Path(self.data).expanduser()
        data = str(path.resolve()) if self.is_own and path.is_dir() else self.data
        return replace(self, root=absolute(self.root), weights=absolute(self.weights), data=data)
