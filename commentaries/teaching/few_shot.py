"""A job on few-shot learning from configuration to results, in a folder that survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ..commentary import ExampleWeights
from ..data import LabelledImages, few_shot
from ..data.class_splits import ClassPart
from ..data.record import check_unchanged, record
from ..fewshot import (
    MAML,
    Episodes,
    Evaluation,
    FasterCommentary,
    MeanWeights,
    MetaState,
    MetaStep,
    SupportLosses,
    evaluate,
    meta_train,
    start,
)
from ..inner import SGD, Adam
from ..networks import build
from ..student import Student
from ..training import RunFolder, checkpoint
from ..training.recorded import Metrics, resumed, take
from ..training.students import check_device
from ..types import Params
from .few_shot_options import FewShotJob

SPLITS = "splits.json"
EVALUATION = "evaluation.pt"

OURS = "adapted"
EQUAL = "equal weights"
"""The same initialisation without the weights that it was learned with."""

TESTED = 7_919
"""Apart from the training tasks' seeds, those of the test tasks."""


class Prepared(NamedTuple):
    """What a job works on.

    Attributes:
        train: Examples of the training classes.
        test: Examples of other classes.
        maml: What is trained.
        outer: What moves it.
        episodes: Training tasks by number.
    """

    train: LabelledImages
    test: LabelledImages
    maml: MAML
    outer: FasterCommentary
    episodes: Episodes


def prepare(job: FewShotJob) -> Prepared:
    """Reads the data and builds what is learned.

    Raises:
        BadInput: Data or options that cannot be used.
    """
    check_device(job.device)
    train, test = (_read(job, part) for part in ("train", "test"))
    channels, size = train.x.shape[1:3]
    mean = train.x.mean((0, 2, 3)).tolist()
    std = train.x.std((0, 2, 3), correction=0).clamp_min(1e-3).tolist()

    def network() -> torch.nn.Module:
        return build(
            job.student, job.way, channels=channels, size=size, mean=mean, std=std, width=job.width
        )

    maml = MAML(
        Student(network),
        SGD(job.lr),
        steps=job.steps,
        commentary=ExampleWeights(SupportLosses()) if job.commentary == "losses" else None,
        learn_rates=job.learn_rates,
        first_order=job.first_order,
        statistics=job.statistics,
    )
    outer = FasterCommentary(Adam(job.meta_lr), job.commentary_factor)
    tasks_to_test(job, test)  # refuses too few examples before anything is trained
    return Prepared(train, test, maml, outer, _episodes(job, train, job.seed))


def prepare_again(job: FewShotJob, folder: RunFolder) -> Prepared:
    """The examples of a run that has begun, which must be those with which it began.

    Raises:
        BadInput: The data cannot be read any more.
        BadRun: They have changed.
    """
    prepared = prepare(job)
    if (folder.path / SPLITS).exists():
        check_unchanged(_splits(prepared), folder.read_json(SPLITS), job.data)
    return prepared


def begun(job: FewShotJob, prepared: Prepared) -> MetaState:
    """The state before the first meta-step."""
    return start(prepared.maml, prepared.outer, seed=job.seed, device=job.device)


def tasks_to_test(job: FewShotJob, test: LabelledImages) -> Episodes:
    """Test tasks by number: the same for every seed and method."""
    return _episodes(job, test, TESTED)


def run(
    job: FewShotJob,
    folder: RunFolder,
    prepared: Prepared | None = None,
    *,
    on_step: Callable[[int, Metrics], None] | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Does the whole job, or goes on from the folder's last checkpoint.

    An interrupted job that is run again ends with bitwise the same initialisation, metrics and
    results as one that was not, on the same machine with the same number of threads.

    Args:
        job: The configuration, the same each time.
        folder: Where checkpoints, metrics and results go.
        prepared: The examples; read anew unless given.
        on_step: Called with the meta-steps taken and their metrics.
        on_method: Called with the name of a method before it is tested.

    Returns:
        What ``result.json`` holds.
    """
    prepared = prepared or prepare_again(job, folder)
    if not (folder.path / SPLITS).exists():
        folder.write_json(SPLITS, _splits(prepared))
    state = resumed(folder, begun(job, prepared))
    state = take(
        folder,
        state,
        meta_train(
            prepared.maml,
            state,
            outer_optimizer=prepared.outer,
            episodes=prepared.episodes,
            steps=job.meta_steps,
            tasks=job.tasks,
            batched=batched_of(job),
        ),
        last=job.meta_steps,
        checkpoint_every=job.checkpoint_every,
        metrics=_metrics,
        on_step=on_step,
    )
    found = evaluated(job, prepared, state.phi, on_method=on_method)
    ours = found[OURS]
    weights = {} if ours.weights is None else {"weights": ours.weights}
    checkpoint.save(folder.path / EVALUATION, {"wrong": ours.wrong} | weights)
    result = {
        "methods": {name: summary(each) for name, each in found.items()},
        "episodes": job.episodes,
        "train": len(prepared.train.classes),
        "test": len(prepared.test.classes),
    }
    folder.write_json("result.json", result)
    return result


def evaluated(
    job: FewShotJob,
    prepared: Prepared,
    phi: Params,
    *,
    test: LabelledImages | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Evaluation]:
    """What was learned on tasks of new classes, and without its weights if it has any.

    Args:
        job: The configuration.
        prepared: What was trained.
        phi: What it learned.
        test: Examples of other classes, in place of the test classes of the data.
        on_method: Called with the name of a method before it is tested.
    """
    methods = {OURS: prepared.maml}
    if prepared.maml.commentary is not None:
        equal = MeanWeights(prepared.maml.commentary)
        methods[EQUAL] = replace(prepared.maml, commentary=equal)
    episodes = tasks_to_test(job, prepared.test if test is None else test)
    found: dict[str, Evaluation] = {}
    for name, maml in methods.items():
        if on_method is not None:
            on_method(name)
        found[name] = evaluate(
            maml,
            phi,
            episodes,
            count=job.episodes,
            steps=job.test_steps,
            batched=batched_of(job),
        )
    return found


def summary(found: Evaluation) -> dict[str, Any]:
    """Accuracy and 95 % interval before the first step and after each, and mean weights."""
    clean, wrong = found.clean_weight, found.wrong_weight
    return {
        "accuracy": found.mean.tolist(),
        "interval": found.interval.tolist(),
        "clean_weight": None if clean is None else clean.tolist(),
        "wrong_weight": None if wrong is None else wrong.tolist(),
    }


def batched_of(job: FewShotJob) -> bool | None:
    """Weights that are functions of the losses need one task after another."""
    return None if job.commentary == "none" else False


def _read(job: FewShotJob, part: ClassPart) -> LabelledImages:
    root, size = job.root, job.size
    return few_shot(job.data, part, root=root, download=job.download, size=size, seed=job.seed)


def _episodes(job: FewShotJob, images: LabelledImages, seed: int) -> Episodes:
    return Episodes(
        images.x,
        images.y,
        way=job.way,
        shot=job.shot,
        query=job.query,
        wrong=job.wrong,
        rotations=job.data == "omniglot",
        seed=seed,
        device=job.device,
    )


def _metrics(step: MetaStep) -> Metrics:
    return {"outer_loss": float(step.gradient.outer_loss)}


def _splits(prepared: Prepared) -> dict[str, Any]:
    return record({"train": prepared.train, "test": prepared.test}, skipped=())
