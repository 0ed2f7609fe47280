"""Every experiment on flat minima measures what it says, on a few made-up images."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from commentaries.data import LabelledImages
from commentaries.inner import SAM, SGD
from commentaries.student import Student
from commentaries.training import Recipe
from experiments import (
    fine_tuning,
    flat,
    m_sharpness,
    sam,
    sam_label_noise,
    sam_noisy,
    sam_variants,
    store,
)
from experiments.store import Store

CLASSES = 4
TINY = Recipe(steps=3, batch=16, lr=0.04, average=0.0, anchors=8)


def photographs(name, part="train", count=120, size=32):
    """Colour noise with a patch that says the class, whatever is asked for."""
    drawn = torch.Generator().manual_seed(len(part))
    x = 0.5 * torch.rand(count, 3, size, size, generator=drawn)
    y = torch.arange(count) % CLASSES
    for label in range(CLASSES):
        x[y == label, :, 8 * label : 8 * label + 8] += 0.1
    return LabelledImages(x, y, tuple("abcd"))


@pytest.fixture
def photos(monkeypatch):
    monkeypatch.setattr(flat, "load", photographs)
    return flat.Sizes(80, 20, 40, TINY)


def test_sgd_sam_and_asam(photos):
    found = sam.measure(sam.Planned(sam.Row("cifar10", "cutout"), 0, photos, "cpu"))
    assert [cell["method"] for cell in found] == [sam.BASE, "SAM", "ASAM"]
    check(found, {"accuracy", "picked"})


def test_variants(photos):
    found = [
        cell
        for method in ("SGD", "SAM, second order")
        for cell in sam_variants.measure(
            sam_variants.Planned(method, 0, 0.05, "small_cnn", photos, "cpu")
        )
    ]
    check(found, {"accuracy", "picked"})
    assert found[0]["cosine"] is None
    assert 0 < found[1]["cosine"] <= 1


def test_noting_the_cosine_changes_no_step(photos):
    images = flat.images_of("any", photos, 0)
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, CLASSES)))
    climbing = SAM(SGD(0.01), 0.05, second_order=True)
    cosines = []
    noted = sam_variants.Noted(climbing, cosines)
    found, plain = (
        flat.trained(student, images, TINY, lambda lr, one=one: one, seed=0).theta
        for one in (noted, climbing)
    )
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert len(cosines) == TINY.steps
    assert all(-1 <= float(each) <= 1 for each in cosines)


def test_label_noise():
    sizes = replace(
        sam_label_noise.SMOKE,
        data="digits",
        train=100,
        recipe=replace(TINY, steps=20),
        settings=replace(sam_label_noise.SMOKE.settings, steps=3),
    )
    rhos = sizes.rhos
    methods = tuple(sam_label_noise.UNITS)
    planned = sam_label_noise.Planned(0.4, methods, 0, rhos, (0.5,), sizes, "cpu")
    found = {cell["method"]: cell for cell in sam_label_noise.measure(planned)}
    assert set(methods) < set(found)
    check(found.values(), {"accuracy"})
    assert found["SGD, stopped early"]["accuracy"] == found["SGD"]["picked"]
    assert found["bootstrap + SAM"]["rho"] == found["SAM"]["rho"] in rhos
    assert found["mixup"]["alpha"] in sam_noisy.ALPHAS


def test_m_sharpness_of_a_grid_and_what_it_says(photos, tmp_path, monkeypatch, capsys):
    grid = replace(m_sharpness.SMOKING, sizes=photos, rhos=(0.1,), examples=16, measured=(4, 16))
    found = [
        cell
        for decay in (0.0, 0.1)
        for cell in m_sharpness.measure(m_sharpness.Planned(decay, 0, grid, "cpu"))
    ]
    assert [cell["method"] for cell in found] == 2 * ["SGD", "SAM, m = 8", "SAM, m = 32"]
    check(found, {"accuracy", "error", "sharpness, m = 4"})
    assert all(cell["sharpness, m = 4"] > cell["sharpness, m = 16"] > 0 for cell in found)
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    kept = Store("trial", labels=m_sharpness.ROW, metrics=["error"], preset="test")
    kept.add(found)
    says = m_sharpness.what_it_says(kept, grid)
    assert [cell["method"] for cell in says] == ["sharpness, m = 4", "sharpness, m = 16"]
    assert all(0 <= cell["plain"] <= 1 for cell in says)
    m_sharpness.print_curves(kept)
    assert "SAM, m = 8" in capsys.readouterr().out


def test_fine_tuning(photos):
    plan = fine_tuning.Plan("conv4", 4, photos, photos)
    found = fine_tuning.measure(fine_tuning.Planned(0, plan, "cpu"))
    assert [cell["method"] for cell in found[1:]] == ["SGD", fine_tuning.BASE, "SAM", "ASAM"]
    check(found, {"accuracy", "picked"})


def check(cells, metrics):
    for cell in cells:
        assert cell["seed"] == 0
        assert all(math.isfinite(cell[name]) for name in metrics), cell
        assert 0 <= cell["accuracy"] <= 1
