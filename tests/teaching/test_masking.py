"""What learned masks are compared with: each control is what its name says."""

from dataclasses import replace

import lessons
import pytest
import torch

from commentaries.errors import BadInput
from commentaries.teaching import masking
from commentaries.teaching.marked_sets import gather_marked
from commentaries.teaching.masking import (
    ALL,
    BALANCED,
    QUICK,
    Masking,
    _balanced,
    _Controls,
    _worst,
)
from commentaries.teaching.methods import plain, score
from commentaries.teaching.parts import gather
from commentaries.teaching.saliency import saliency
from commentaries.teaching.windows import centre_of, localisation
from commentaries.training import Recipe, log_probabilities
from commentaries.training.students import student_for
from commentaries.types import Batch

RECIPE = Recipe(steps=3, batch=32, lr=0.05)
SMALL = {"train": 60, "validation": 30, "test": 40, "data": "coloured_mnist"}


@pytest.fixture(scope="module")
def made():
    """Coloured digits with all that is known of them."""
    with pytest.MonkeyPatch.context() as patch:
        lessons.invent(patch)
        return gather_marked(lessons.masks(**SMALL))


@pytest.fixture(scope="module")
def student(made):
    return student_for(made[0].train, "small_cnn")


@pytest.fixture
def masked(made):
    """Masks that differ from image to image: a U-Net that was moved from where it began."""
    topic = Masking(lessons.masks(**SMALL, background=0.2), *made)
    phi = topic.commentary.init(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    moved = {
        name: value + 0.5 * torch.randn(value.shape, generator=generator)
        for name, value in phi.items()
    }
    return topic, moved


def constant(topic, logit):
    """φ of a U-Net whose masks are the same everywhere."""
    phi = topic.commentary.init(torch.Generator().manual_seed(0))
    return phi | {"last.bias": torch.full_like(phi["last.bias"], logit)}


def controls_of(masked, student, seed=4):
    topic, phi = masked
    return _Controls(topic, phi, student, RECIPE, seed)


# masks


def test_masks_are_what_is_learned_before_the_background_is_let_through(made, masked):
    topic, phi = masked
    x = made[0].test.x
    masks = topic.masks(phi, x)
    assert masks.shape == (40, 1, 24, 24)
    assert float(masks.flatten(1).std(1).min()) > 0.01
    assert float((masks[0] - masks[1]).abs().max()) > 0.01
    batch = Batch(x, made[0].test.y, made[0].test.y)
    torch.testing.assert_close(topic.commentary.masks(phi, batch), 0.2 + 0.8 * masks)
    shown = topic._seen(made[0].test, lambda images, part: masks, 2)
    torch.testing.assert_close(shown.x, topic.commentary(phi, batch).x)
    torch.testing.assert_close(shown.x, x * (0.2 + 0.8 * masks))
    torch.testing.assert_close(topic.masks(phi, x[7:8]), masks[7:8])  # each image alone


def test_methods_of_each_choice(made):
    parts, marks = made
    topic = Masking(lessons.masks(**SMALL), parts, marks)
    assert topic.methods("none") == ()
    assert topic.methods("quick") == QUICK
    assert topic.methods("all") == (*ALL, *BALANCED)
    # without a cue that misleads nothing is to be balanced
    assert Masking(lessons.masks(), parts).methods("all") == ALL
    assert Masking(lessons.masks(), parts, marks._replace(shifted=None)).methods("all") == ALL


def test_images_of_other_channels_or_below_the_stride_are_refused(masked):
    topic, phi = masked
    with pytest.raises(BadInput, match=r"takes images \(n, 3, h, w\).*Build it with the number"):
        topic.masks(phi, torch.rand(2, 1, 24, 24))
    with pytest.raises(BadInput, match=r"at least 8 x 8 pixels, and these are 7 x 24. Resize"):
        topic.masks(phi, torch.rand(2, 3, 7, 24))


# controls


def test_a_centre_window_has_the_learned_area_about_the_middle(made, student):
    """A tenth of the pixels fits into the image whole."""
    parts, marks = made
    topic = Masking(lessons.masks(**SMALL), parts, marks)
    controls = controls_of((topic, constant(topic, -3.0)), student)
    area = float(torch.tensor(-3.0).sigmoid())
    found = controls.masks("centre window")(parts.test, 2)
    assert found.shape == (40, 1, 24, 24)
    assert float(found.mean()) == pytest.approx(area, rel=1e-3)
    middle = torch.full((40, 2), 11.5)
    torch.testing.assert_close(centre_of(found), middle, atol=1e-3, rtol=0)


def test_random_windows_are_of_the_part_and_the_seed(made, masked, student):
    parts, _ = made
    controls = controls_of(masked, student)
    found = controls.masks("random window")(parts.test, 2)
    assert torch.equal(found, controls.masks("random window")(parts.test, 2))
    assert not torch.equal(found, controls.masks("random window")(parts.test, 3))
    assert not torch.equal(
        found, controls_of(masked, student, seed=5).masks("random window")(parts.test, 2)
    )
    # the peak is a pixel of the image, all over it
    peak = found.flatten(1).argmax(1)
    rows, columns = peak // 24, peak % 24
    assert float(found.flatten(1).amax(1).min()) > 0.8
    for place in (rows, columns):
        assert int(place.min()) <= 5
        assert int(place.max()) >= 18


def test_the_mean_mask_is_that_of_the_training_images(made, masked, student):
    parts, _ = made
    topic, phi = masked
    found = controls_of(masked, student).masks("mean mask")(parts.test, 2)
    expected = topic.masks(phi, parts.train.x).mean(0)
    assert found.shape == (40, 1, 24, 24)
    torch.testing.assert_close(found, expected.expand_as(found))


def test_shuffled_masks_are_those_of_other_images(made, masked, student):
    parts, _ = made
    topic, phi = masked
    found = controls_of(masked, student).masks("shuffled masks")(parts.test, 2)
    own = topic.masks(phi, parts.test.x)
    position = [int((own == mask).flatten(1).all(1).nonzero()[0]) for mask in found]
    assert len(set(position)) > 35  # but for images whose masks are equal
    assert sum(a != b for a, b in enumerate(position)) > 30
    torch.testing.assert_close(found.mean(0), own.mean(0))


@pytest.mark.parametrize("name", ["saliency window", "Grad-CAM window"])
def test_windows_about_what_an_unmasked_student_looks_at(made, masked, student, name, monkeypatch):
    parts, _ = made
    controls, fitted = controls_of(masked, student), []
    monkeypatch.setattr(
        masking, "plain", lambda *given, **more: fitted.append(1) or plain(*given, **more)
    )
    found = controls.masks(name)(parts.test, 2)
    controls.masks(name)(parts.train, 0)
    assert len(fitted) == 1  # one student for all of them
    unmasked = plain(student, parts.train, RECIPE, seed=4)
    attribute = saliency if name == "saliency window" else masking.grad_cam
    maps = attribute(student, unmasked, parts.test.x, seen=parts.train.x)
    torch.testing.assert_close(found, controls._window(centre_of(maps)))


def test_sampling_with_groups_alike(made):
    _, marks = made
    group = marks.train.group
    assert 0.05 < float((group == 1).double().mean()) < 0.2
    rows = _balanced(marks.train, seed=0)
    assert len(rows) == 60
    assert group[rows].bincount().tolist() == [30, 30]
    assert torch.equal(rows, _balanced(marks.train, seed=0))
    assert not torch.equal(rows, _balanced(marks.train, seed=1))


@pytest.mark.parametrize("sizes", [(10, 1, 0, 2), (3, 3, 3, 4), (7, 0, 0, 0)])
def test_groups_of_any_number_differ_by_rounding_only(made, sizes):
    _, marks = made
    group = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    marked = replace(marks.train.rows(torch.arange(sum(sizes))), group=group, groups=tuple("abcd"))
    counts = group[_balanced(marked, seed=0)].bincount(minlength=4)
    present = counts[torch.tensor(sizes) > 0]
    assert int(present.sum()) == sum(sizes)  # and so none of a group that is not there
    assert int(present.max() - present.min()) <= len(present) - 1


def test_what_each_method_trains_on(made, masked, student):
    parts, _ = made
    controls = controls_of(masked, student)
    assert controls.train("ours") is controls.train("no mask") is parts.train
    both = controls.train("with validation")
    assert torch.equal(both.x, torch.cat([parts.train.x, parts.validation.x]))
    assert torch.equal(both.y, torch.cat([parts.train.y, parts.validation.y]))
    assert len(controls.train("group balanced")) == 60
    for name in ("no mask", *BALANCED):
        assert controls.masks(name) is None


def test_the_worst_group():
    correct = torch.tensor([1.0, 0, 1, 1, 0, 1])
    group = torch.tensor([0, 0, 3, 3, 3, 5])
    assert _worst(correct, group) == 0.5
    assert _worst(correct, torch.tensor([0, 1, 0, 0, 1, 0])) == 0.0


# the comparison


def test_masks_of_ones_are_no_mask(made, student):
    parts, marks = made
    topic = Masking(lessons.masks(**SMALL, background=0.3), parts, marks)
    kept = {}
    found = topic.compare(
        constant(topic, 60.0), student, RECIPE, seed=1, names=("ours", "mean mask", "no mask"),
        on_student=kept.__setitem__,
    )  # fmt: skip
    plain_scores = found["no mask"]
    assert set(plain_scores) == {"accuracy", "loss", "validation", "shifted", "worst_group"}
    for name in ("ours", "mean mask"):
        assert {key: found[name][key] for key in plain_scores} == plain_scores
        assert all(torch.equal(kept[name][key], kept["no mask"][key]) for key in kept[name])
        area = float(marks.test.region().double().mean())
        assert found[name]["mass"] == pytest.approx(area)
        assert found[name]["pointing"] == pytest.approx(area)


def test_scores_by_hand(made, masked, student):
    parts, marks = made
    topic, phi = masked
    kept = {}
    (found,) = topic.compare(
        phi, student, RECIPE, seed=1, names=("ours",), on_student=kept.__setitem__
    ).values()

    def seen(x):
        mask = topic.masks(phi, x)
        return x * (mask + 0.2 * (1 - mask))

    def opinion(x):
        return log_probabilities(student, kept["ours"], seen(x), seen=seen(parts.train.x))

    theta = plain(student, replace(parts.train, x=seen(parts.train.x)), RECIPE, seed=1)
    assert all(torch.equal(theta[name], kept["ours"][name]) for name in theta)
    assert (found["accuracy"], found["loss"]) == score(opinion(parts.test.x), parts.test.y)
    held = parts.validation
    assert found["validation"] == score(opinion(held.x), held.y).accuracy
    assert marks.shifted is not None
    shifted = marks.shifted.images
    assert found["shifted"] == score(opinion(shifted.x), shifted.y).accuracy
    right = [
        (opinion(x).argmax(1) == y).double()
        for x, y in ((parts.test.x, parts.test.y), (shifted.x, shifted.y))
    ]
    groups = torch.cat([marks.test.group, marks.shifted.group])
    each = [float(torch.cat(right)[groups == group].mean()) for group in (0, 1)]
    assert found["worst_group"] == pytest.approx(min(each))
    where = localisation(topic.masks(phi, parts.test.x), marks.test)
    assert (found["mass"], found["pointing"]) == where


def test_random_windows_are_scored_where_they_are(made, masked, student):
    parts, marks = made
    topic, phi = masked
    name = "random window"
    (found,) = topic.compare(phi, student, RECIPE, seed=4, names=(name,)).values()
    windows = controls_of(masked, student).masks(name)(parts.test, 2)
    assert (found["mass"], found["pointing"]) == localisation(windows, marks.test)


def test_all_methods_of_all_kinds_run(made, masked, student):
    topic, phi = masked
    said = []
    names = ("ours", *topic.methods("all"))
    found = topic.compare(phi, student, RECIPE, seed=0, names=names, on_method=said.append)
    assert said == list(found) == list(names)
    masks = {name for name, scores in found.items() if "mass" in scores}
    assert masks == set(names) - {"no mask", *BALANCED}
    losses = [scores["loss"] for scores in found.values()]
    assert len(set(losses)) == len(names)  # no two are the same thing


def test_images_of_which_nothing_is_known(student):
    parts = gather(lessons.mixup(train=50, validation=20, test=30))
    topic = Masking(lessons.masks(data="digits"), parts)
    student = student_for(parts.train)
    phi = topic.commentary.init(torch.Generator())
    (found,) = topic.compare(phi, student, RECIPE, seed=0, names=("ours",)).values()
    assert set(found) == {"accuracy", "loss", "validation"}
    assert topic.metrics(phi, 0.0) == {"area": 0.5}
    assert topic.summary(phi) == {"area": 0.5}


def test_what_is_logged_and_summed_up(made, masked):
    parts, marks = made
    topic, phi = masked
    masks = topic.masks(phi, parts.train.x)
    where = localisation(masks, marks.train)
    expected = {"area": float(masks.mean()), "mass": where.mass, "pointing": where.pointing}
    assert topic.metrics(phi, 0.5) == pytest.approx(expected)
    summary = topic.summary(phi)
    assert summary["inside"] == "label"
    assert summary["area"] == pytest.approx(float(topic.masks(phi, parts.test.x).mean()))
    assert summary["box_area"] == pytest.approx(float(marks.test.region().double().mean()))


def test_a_window_starts_in_the_middle_with_its_deviation(made):
    parts, marks = made
    job = lessons.masks(**SMALL, mask="window", deviation=0.1)
    topic = Masking(job, parts, marks)
    phi = topic.commentary.init(torch.Generator())
    masks = topic.masks(phi, parts.test.x[:3])
    torch.testing.assert_close(centre_of(masks), torch.full((3, 2), 11.5), atol=1e-3, rtol=0)
    sigma = 0.1 * 24
    assert float(masks.sum((1, 2, 3)).mean()) == pytest.approx(2 * torch.pi * sigma**2, rel=1e-3)
