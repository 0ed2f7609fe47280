"""Features to begin few-shot learning with: the training classes told apart all at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch

from ..data import LabelledImages
from ..student import Student
from ..training import Examples, Recipe, atomic, fit
from ..training.students import network_for
from ..types import Batch, Params
from .few_shot_options import FewShotJob

_BATCH = 128
_SEEN = 2_000


def pretrained(
    job: FewShotJob,
    train: LabelledImages,
    path: Path,
    *,
    on_share: Callable[[float], None] | None = None,
) -> Path:
    """Trains the job's network to classify the training classes, unless the file is there.

    Features of ordinary classification serve few-shot learning well (Chen et al. 2021,
    "Meta-Baseline"; Sun et al. 2019, "Meta-Transfer Learning").

    Args:
        job: Says which network, how many passes, and the seed.
        train: Examples of the training classes.
        path: Where the weights are kept, as `networks.build` and `networks.backbone` read them:
            parameters, and statistics of batch normalisation over some of the examples.
        on_share: Called now and then with the share of the steps that are done.

    Returns:
        The path.
    """
    if path.exists():
        return path
    student = Student(network_for(train, job.student, width=job.width))
    x, y = train.x.to(job.device), train.y.to(job.device)
    recipe = Recipe(
        steps=1, passes=job.pretrain, batch=min(_BATCH, len(y)), warm_up=0.2, weight_decay=5e-4
    )
    examples = Examples(x, y, torch.ones(len(y), device=x.device))
    steps = recipe.steps_for(len(y))

    def watch(done: int, _: Params) -> None:
        if on_share is not None:
            on_share(done / steps)

    theta = fit(student, examples, recipe, seed=job.seed, watch=watch)
    drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(job.seed))[:_SEEN]
    batches = (Batch(x[rows], y[rows], rows) for rows in drawn.to(x.device).split(256))
    module = student.module()
    module.load_state_dict(theta | student.statistics(theta, batches), strict=False)
    content = io.BytesIO()
    torch.save(module.state_dict(), content)
    atomic.write_bytes(path, content.getvalue())
    return path
