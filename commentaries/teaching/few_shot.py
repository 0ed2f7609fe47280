"""A job on few-shot learning from configuration to results, in a folder that survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from ..networks import backbone
from ..student import Student
from ..training import RunFolder, checkpoint
from ..training.recorded import Metrics, resumed, take
from ..training.students import check_device, network_for
from ..types import Params
from .few_shot_options import FewShotJob
from .pretraining import pretrained

SPLITS = "splits.json"
EVALUATION = "evaluation.pt"
PRETRAINED = "pretrained.pt"

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
        episodes: Training tasks by number.
    """

    train: LabelledImages
    test: LabelledImages
    episodes: Episodes


def prepare(job: FewShotJob) -> Prepared:
    """Reads the data; refuses options that cannot work before anything is trained.

    Raises:
        BadInput: Data or options that cannot be used.
    """
    check_device(job.device)
    train, test = (_read(job, part) for part in ("train", "test"))
    tasks_to_test(job, test)
    episodes = _episodes(job, train, job.seed, job.train_wrong or job.wrong)
    if job.weights is not None or not job.pretrain:
        maml_of(job, train, job.weights)
    else:
        network_for(train, job.student, width=job.width)()
    return Prepared(train, test, episodes)


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


def maml_of(job: FewShotJob, train: LabelledImages, weights: Path | None) -> MAML:
    """What is trained.

    Args:
        job: The configuration.
        train: Examples of the training classes.
        weights: The file that the student begins with, and whose features the commentary compares.

    Raises:
        BadInput: Options that do not go together, or a file that does not fit.
    """
    build_one = network_for(train, job.student, outputs=job.way, width=job.width, weights=weights)
    return MAML(
        Student(build_one),
        SGD(job.lr),
        steps=job.steps,
        commentary=_commentary(job, train, weights),
        learn_rates=job.learn_rates,
        first_order=job.first_order,
        statistics=job.statistics,
    )


def outer_of(job: FewShotJob) -> FasterCommentary:
    """What moves the initialisation, its rates and the commentary."""
    return FasterCommentary(Adam(job.meta_lr), job.commentary_factor)


def begun(job: FewShotJob, maml: MAML) -> MetaState:
    """The state before the first meta-step."""
    return start(maml, outer_of(job), seed=job.seed, device=job.device)


def tasks_to_test(job: FewShotJob, test: LabelledImages) -> Episodes:
    """Test tasks by number: the same for every seed and method."""
    return _episodes(job, test, TESTED, job.wrong)


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
    results as one that was not, on the same machine with the same number of threads. Pretraining
    that was interrupted begins again.

    Args:
        job: The configuration, the same each time.
        folder: Where checkpoints, metrics and results go.
        prepared: The examples; read anew unless given.
        on_step: Called with the meta-steps taken and their metrics; while pretraining with 0 and
            the share of it that is done.
        on_method: Called with the name of a method before it is tested.

    Returns:
        What ``result.json`` holds.
    """
    prepared = prepared or prepare_again(job, folder)
    if not (folder.path / SPLITS).exists():
        folder.write_json(SPLITS, _splits(prepared))
    weights = job.weights
    if job.pretrain:

        def on_share(share: float) -> None:
            if on_step is not None:
                on_step(0, {"pretrained": share})

        path = folder.path / PRETRAINED
        weights = pretrained(job, prepared.train, path, on_share=on_share)
    maml = maml_of(job, prepared.train, weights)
    state = resumed(folder, begun(job, maml))
    state = take(
        folder,
        state,
        meta_train(
            maml,
            state,
            outer_optimizer=outer_of(job),
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
    found = evaluated(job, maml, state.phi, prepared.test, on_method=on_method)
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
    maml: MAML,
    phi: Params,
    test: LabelledImages,
    *,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Evaluation]:
    """What was learned on tasks of new classes, and without its weights if it has any.

    Args:
        job: The configuration.
        maml: What was trained.
        phi: What it learned.
        test: Examples of the new classes.
        on_method: Called with the name of a method before it is tested.
    """
    methods = {OURS: maml}
    if maml.commentary is not None:
        methods[EQUAL] = replace(maml, commentary=MeanWeights(maml.commentary))
    episodes = tasks_to_test(job, test)
    found: dict[str, Evaluation] = {}
    for name, each in methods.items():
        if on_method is not None:
            on_method(name)
        found[name] = evaluate(
            each,
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


def _commentary(
    job: FewShotJob, train: LabelledImages, weights: Path | None
) -> ExampleWeights | None:
    if job.commentary == "none":
        return None
    if job.commentary == "losses":
        return ExampleWeights(SupportLosses())
    assert weights is not None
    channels, size = train.x.shape[1:3]
    features = backbone(job.student, weights, channels=channels, size=size, width=job.width)
    return ExampleWeights(SupportLosses(features))


def _read(job: FewShotJob, part: ClassPart) -> LabelledImages:
    root, size = job.root, job.size
    return few_shot(job.data, part, root=root, download=job.download, size=size, seed=job.seed)


def _episodes(
    job: FewShotJob, images: LabelledImages, seed: int, wrong: float | tuple[float, float]
) -> Episodes:
    return Episodes(
        images.x,
        images.y,
        way=job.way,
        shot=job.shot,
        query=job.query,
        wrong=wrong,
        rotations=job.data == "omniglot",
        seed=seed,
        device=job.device,
    )


def _metrics(step: MetaStep) -> Metrics:
    return {"outer_loss": float(step.gradient.outer_loss)}


def _splits(prepared: Prepared) -> dict[str, Any]:
    return record({"train": prepared.train, "test": prepared.test}, skipped=())
