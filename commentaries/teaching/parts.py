"""The examples of a job on lessons: what is trained on, judged by and tested on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..data import NAMES, LabelledImages, Preparation, has_test, load, read, some, split
from ..errors import BadInput, unknown
from .options import MARKED, LessonJob, MasksJob

SHARE = 5
"""A fifth of the images is for testing where nothing is said, and a fifth of the rest judges."""


class Parts(NamedTuple):
    """Disjoint examples.

    Attributes:
        train: What students train on.
        validation: By what the commentary is judged.
        test: By what the students of the comparison are scored.
        skipped: One sentence for each image that was left out.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    skipped: tuple[str, ...] = ()

    def to(self, device: str) -> Parts:
        """The same examples on a device."""
        return self._replace(
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def gather(job: LessonJob) -> Parts:
    """Reads and splits the data of a job: a function of the configuration and the data alone.

    Raises:
        BadInput: Data that cannot be used, or more examples asked for than there are.
    """
    skipped: list[str] = []
    if job.is_own:
        images, test = _own(job, skipped)
    else:
        images, test = by_name(job.data, job)
    return Parts(*parted(job, images, test), skipped=tuple(skipped))


def parted(
    job: LessonJob, images: LabelledImages, test: LabelledImages | None
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Training, validation and test examples.

    Args:
        job: The sizes and the seed.
        images: What they are drawn from.
        test: Test examples that lie apart; None to draw them as well.
    """
    images = images.named()
    images.check_two_classes()
    size = len(images)
    count = job.test if isinstance(job.test, int) else size // SHARE
    held = 0 if test is not None else count
    validation = job.validation or max((size - held) // SHARE, len(images.classes))
    train = job.train or size - held - validation
    if train < 1:
        raise BadInput(
            f"{images.name}: {validation} validation and {held} test examples leave none of "
            f"{size} to train on. Ask for fewer."
        )
    present = len(images.y.unique())
    if validation < present:
        raise BadInput(
            f"{images.name}: {validation} validation examples cannot cover {present} classes. "
            f"Ask for at least {present}."
        )
    if train + validation + held > size:
        raise BadInput(
            f"{images.name}: {train} training, {validation} validation and {held} test examples "
            f"are more than the {size} there are. Ask for fewer."
        )
    rows = split(images.y, train=train, trusted=validation, test=held, seed=job.seed)
    return (
        images.rows(rows.train),
        images.rows(rows.trusted),
        images.rows(rows.test) if test is None else test.named(),
    )


def by_name(name: str, job: LessonJob) -> tuple[LabelledImages, LabelledImages | None]:
    """A set by name, and of its test part as many examples as the job wants.

    Raises:
        BadInput: An unknown name, one for masks where there are none, or a set that is not there.
    """
    if name in MARKED:
        raise BadInput(
            f"{name} is made for masks. Choose {', '.join(NAMES)}, or images of your own; or use "
            "`learn masks`."
        )
    if name not in NAMES:
        known = (*NAMES, *MARKED) if isinstance(job, MasksJob) else NAMES
        raise BadInput(f"{unknown('data set', name, known)} Images of your own have a path.")
    images = load(name, root=job.root, download=job.download)
    if not has_test(name):
        return images, None
    test = load(name, "test", root=job.root, download=job.download)
    return images, some(test, job.test if isinstance(job.test, int) else None, seed=job.seed)


def _own(job: LessonJob, skipped: list[str]) -> tuple[LabelledImages, LabelledImages | None]:
    """A user's own images, and the test images where they lie apart."""

    def images_of(
        path: Path, preparation: Preparation | None, classes: tuple[str, ...] | None
    ) -> tuple[LabelledImages, Preparation]:
        return read(
            path,
            preparation=preparation,
            classes=classes,
            size=job.size if preparation is None else None,
            skip_unreadable=job.skip_unreadable,
            on_skip=skipped.append,
        )

    images, preparation = images_of(Path(job.data), None, None)
    if not isinstance(job.test, Path):
        return images, None
    if job.test.resolve() == Path(job.data).resolve():
        raise BadInput(
            f"The test images and the data are the same, {job.test}. Give other images, or a "
            "number of images to draw."
        )
    return images, images_of(job.test, preparation, images.classes)[0]
