"""Sets for masks: what the cue says in each part, and that no part shares an image."""

import lessons
import pytest
import torch

from commentaries.data import photo_crops
from commentaries.teaching import marked_sets
from commentaries.teaching.marked_sets import gather_marked
from commentaries.teaching.options import MARKED


@pytest.fixture(autouse=True)
def _invented(invented):
    """Nothing is read from the disk."""


def agreeing(marked):
    return float((marked.cue == marked.images.y).double().mean())


@pytest.mark.parametrize("name", MARKED)
def test_images_boxes_and_labels_stay_together(name):
    parts, marks = gather_marked(lessons.masks(data=name))
    assert torch.equal(parts.train.x, marks.train.images.x)
    assert torch.equal(parts.train.y, marks.train.images.y)
    assert torch.equal(parts.test.x, marks.test.images.x)
    sizes = [len(parts.train), len(parts.validation), len(parts.test)]
    assert sizes == [100, 40, 60]
    every = {name for images in parts[:3] for name in images.files}
    assert len(every) == sum(sizes)
    moved = marks.to("cpu")
    assert torch.equal(moved.test.box, marks.test.box)
    again, others = gather_marked(lessons.masks(data=name))
    assert torch.equal(again.train.x, parts.train.x)
    assert torch.equal(others.test.box, marks.test.box)
    assert not torch.equal(
        gather_marked(lessons.masks(data=name, seed=1))[0].train.x, parts.train.x
    )


@pytest.mark.parametrize("name", ["coloured_mnist", "pasted_digits", "pasted_photos"])
def test_the_cue_goes_with_the_label_in_training_and_misleads_when_shifted(name):
    job = lessons.masks(data=name, correlation=0.8, train=100, validation=40)
    parts, marks = gather_marked(job)
    assert agreeing(marks.train) == pytest.approx(0.8, abs=0.05)  # rounded in each class
    assert agreeing(marks.test) == pytest.approx(0.8, abs=0.06)
    assert marks.shifted is not None
    assert agreeing(marks.shifted) == 0
    # the same test examples at the same places
    assert torch.equal(marks.shifted.images.y, parts.test.y)
    if name == "pasted_digits":
        assert torch.equal(marks.shifted.box, marks.test.box)


def test_backgrounds_that_are_swapped_have_four_groups_alike_when_shifted():
    _, marks = gather_marked(lessons.masks(data="swapped_backgrounds", correlation=0.9))
    assert agreeing(marks.train) == pytest.approx(0.9, abs=0.02)
    assert marks.shifted is not None
    assert agreeing(marks.shifted) == pytest.approx(0.5, abs=0.02)
    for label in (0, 1):
        own = marks.shifted.group[marks.shifted.images.y == label].bincount(minlength=4)
        low, high = own[2 * label : 2 * label + 2].tolist()
        assert abs(low - high) <= 1
    assert torch.equal(marks.shifted.box, marks.test.box)


def test_examples_that_judge_have_a_cue_that_says_nothing():
    """Of coloured digits the colour is seen in the corner, which is never ink."""
    job = lessons.masks(data="coloured_mnist", correlation=1.0, train=90, validation=100)
    parts, marks = gather_marked(job)
    paint = {int(c): x[:, 0, 0] for c, x in zip(marks.train.cue, parts.train.x, strict=True)}
    own = [
        torch.equal(x[:, 0, 0], paint[int(y)])
        for x, y in zip(parts.validation.x, parts.validation.y, strict=True)
    ]
    assert sum(own) == pytest.approx(10, abs=3)  # a tenth of each class, rounded


def test_digits_on_photos_have_no_cue():
    parts, marks = gather_marked(lessons.masks())
    assert marks.shifted is None
    assert marks.train.inside == "label"
    assert parts.train.x.shape[1:] == (3, 32, 32)


def test_photographs_behind_digits_are_of_the_part_and_the_seed(monkeypatch):
    asked = []

    def noted(count, part="train", **options):
        asked.append((count, part, options["seed"]))
        return photo_crops(count, part, **options)

    monkeypatch.setattr(marked_sets, "photo_crops", noted)
    gather_marked(lessons.masks(seed=5))
    assert asked == [(60, "train", 5), (30, "train", 6), (30, "test", 7)]


@pytest.mark.parametrize("name", ["pasted_photos", "pasted_digits", "swapped_backgrounds"])
def test_what_images_are_put_together_with_is_disjoint_too(name, monkeypatch):
    """Every distractor is one number everywhere, by which it is known again."""
    original = lessons.made_up

    def numbered(name, part="train"):
        images = original(name, part)
        if name in ("cifar10", "cifar100"):
            offset = 0 if part == "train" else 500
            images.x[:] = (torch.arange(len(images)) + offset)[:, None, None, None] / 1000
        return images

    monkeypatch.setattr(lessons, "made_up", numbered)
    parts, marks = gather_marked(lessons.masks(data=name))
    if name == "pasted_photos":  # there the photos carry the label, and the split is `parted`'s
        seen = [each.x[:, 0, 0, 0] for each in parts[:3]]
    else:
        seen = [torch.cat([each.x[:, 0, 0, 0], each.x[:, 0, -1, -1]]) for each in parts[:3]]
    sets = [set((1000 * each).round().int().tolist()) for each in seen]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    if name != "swapped_backgrounds":  # a photo of the train part may cover a corner there
        assert not sets[0] & sets[1]
    assert marks.train.images.name
