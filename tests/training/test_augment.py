"""Mirrored and moved images: which ones is a function of the seed."""

import pytest
import torch

from commentaries.errors import BadInput
from commentaries.networks import small_cnn
from commentaries.student import Student
from commentaries.training import Examples, Recipe, fit
from commentaries.training.augment import flip_crop


def numbered(n=60, channels=2, h=6, w=5):
    """Images in which every pixel is another number, none of them zero."""
    return torch.arange(1.0, 1 + n * channels * h * w).reshape(n, channels, h, w)


def window(image, top, left, mirrored, padding):
    """One image by hand."""
    _, h, w = image.shape
    out = torch.zeros_like(image)
    for row in range(h):
        for column in range(w):
            a = row + top - padding
            b = (w - 1 - column if mirrored else column) + left - padding
            if 0 <= a < h and 0 <= b < w:
                out[:, row, column] = image[:, a, b]
    return out


def test_every_image_is_a_window_of_itself():
    x, padding = numbered(), 2
    found = flip_crop(x, seed=3, padding=padding)
    assert found.shape == x.shape
    seen = []
    for image, changed in zip(x, found, strict=True):
        fits = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if torch.equal(window(image, top, left, mirrored, padding), changed)
        ]
        assert len(fits) == 1
        seen += fits
    # both ways up, and every shift occurs
    assert 15 < sum(mirrored for *_, mirrored in seen) < 45
    assert {top for top, *_ in seen} == {left for _, left, _ in seen} == set(range(5))


def test_the_seed_decides():
    x, state = numbered(), torch.get_rng_state()
    kept = x.clone()
    first = flip_crop(x, seed=1)
    assert torch.equal(first, flip_crop(x, seed=1))
    assert not torch.equal(first, flip_crop(x, seed=2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, kept)


def test_without_a_border_images_are_only_mirrored():
    x = numbered()
    found = flip_crop(x, seed=0, padding=0)
    same = (found == x).flatten(1).all(1)
    mirrored = (found == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())


def test_fit_augments_by_its_seed():
    x, y = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    student = Student(lambda: small_cnn(3))
    examples = Examples(x, y, torch.ones(30))

    def run(augment, seed=0):
        return fit(student, examples, Recipe(6, batch=10, augment=augment), seed=seed)["0.weight"]

    assert torch.equal(run("flip_crop"), run("flip_crop"))
    assert not torch.equal(run("flip_crop"), run("none"))
    assert not torch.equal(run("flip_crop"), run("flip_crop", 1))


def test_refusals():
    with pytest.raises(BadInput, match=r"flip_crop needs images.*\(4, 7\).*augment to 'none'"):
        flip_crop(torch.ones(4, 7), seed=0)
    with pytest.raises(BadInput, match="Did you mean 'flip_crop'"):
        Recipe(augment="flipcrop")  # pyright: ignore[reportArgumentType]
