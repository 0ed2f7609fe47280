import re
from dataclasses import replace
from pathlib import Path

import pytest

from commentaries.errors import BadInput
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.solvers import Identity, Neumann
from commentaries.teaching.options import MARKED, MasksJob, MixupJob, Settings
from commentaries.training import Recipe, RunFolder
from commentaries.training.config import read_config

KINDS = {"mixup": MixupJob, "masks": MasksJob}


@pytest.mark.parametrize(
    "job",
    [
        MixupJob(),
        MixupJob(ratio="network", low=0, high=1, concentration=2, alphas=(1, 0.3), lr_scale=2),
        MixupJob(ratio="symmetric", knots=3, train=9, test=5, student="cbr"),
        MasksJob(),
        MasksJob(data="coloured_mnist", mask="window", entropy=0.1, correlation=1),
        MasksJob(settings=Settings(terms=0, restart_every=7), recipe=Recipe(augment="flip_crop")),
    ],
)
def test_jobs_come_back_from_their_folder(tmp_path, job):
    assert job.settled() == job
    found = read_config(RunFolder.create(tmp_path / "run", job), KINDS)
    assert found == job
    assert type(found) is type(job)


def test_paths_are_settled_and_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    job = MasksJob(data="photos", test=Path("../test"), root=Path("root"), size=12).settled()
    assert job.is_own
    assert job.data == str(tmp_path / "photos")
    assert (job.test, job.root) == (tmp_path.parent / "test", tmp_path / "root")
    folder = RunFolder.create(tmp_path / "run", job)
    monkeypatch.chdir(tmp_path.parent)
    assert read_config(folder, KINDS) == job


@pytest.mark.parametrize("name", MARKED)
def test_a_set_for_masks_is_no_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert not MasksJob(data=name).is_own
    assert MasksJob(data=f"./{name}").is_own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"controls": "some"}, "There is no choice of controls 'some'."),
        ({"train": 0}, "train is 0, but must be positive"),
        ({"validation": -1}, "validation is -1, but must be positive"),
        ({"test": 0}, "test is 0, but must be positive"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0, but must be positive"),
        ({"lr_scale": 0.0}, "lr_scale is 0.0, but must be positive"),
        ({"seed": -1}, "seed is -1, but must not be negative. Choose 0 or more."),
        ({"test": Path("mine")}, "test is 'mine', but digits is a data set by name, whose test"),
        ({"size": 16}, "size is for your own images, and digits is a data set by name."),
    ],
)
@pytest.mark.parametrize("kind", [MixupJob, MasksJob])
def test_options_of_both_jobs_that_cannot_be(kind, options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        kind(**{"data": "digits", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "tables"}, "There is no ratio 'tables'. Did you mean 'table'?"),
        ({"knots": 0}, "knots is 0, but must be positive"),
        ({"knots": 2, "ratio": "network"}, "knots is 2, but a network has no tables."),
        ({"low": 0.9, "high": 0.4}, "The ratios run from 0.9 to 0.4, but must run upwards"),
        ({"low": -0.1}, "The ratios run from -0.1 to 1.0"),
        ({"high": 1.5}, "The ratios run from 0.5 to 1.5"),
        ({"low": 1.0}, "The ratios run from 1.0 to 1.0"),
        ({"concentration": 0.0}, "concentration is 0.0, but must be positive"),
        ({"alphas": ()}, "alphas is empty, so there is no standard mixup."),
        ({"alphas": (0.2, -1.0)}, "alphas is -1.0, but must be positive"),
    ],
)
def test_ratios_that_cannot_be(options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        MixupJob(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "unett"}, "There is no mask 'unett'. Did you mean 'unet'?"),
        ({"background": 1.0}, "background is 1.0, but must be at least 0 and below 1."),
        ({"background": -0.2}, "background is -0.2, but must be at least 0 and below 1."),
        ({"deviation": 0.0}, "deviation is 0.0, but must be positive"),
        ({"area": -1.0}, "area is -1.0, but must be finite and not negative"),
        ({"area": 0.1, "mask": "window"}, "area is 0.1, but a window that keeps its size"),
        ({"entropy": float("inf")}, "entropy is inf, but must be finite"),
        ({"correlation": 1.2}, "correlation is 1.2, but must be from 0 to 1."),
    ],
)
def test_masks_that_cannot_be(options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        MasksJob(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"inner_steps": 0}, "inner_steps is 0"),
        ({"validation_batch": 0}, "validation_batch is 0"),
        ({"outer_lr": -1.0}, "outer_lr is -1.0"),
        ({"restart_every": 0}, "restart_every is 0"),
        ({"terms": -1}, "terms is -1"),
        ({"warm_up": -1}, "warm_up is -1"),
        ({"steps": 60, "warm_up": 60}, "warm_up is 60, but must be less than steps, which is 60"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"average": 1.5}, "average is 1.5"),
    ],
)
def test_settings_that_cannot_be(options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        Settings(**options)


def test_the_hypergradient_of_the_settings():
    settings = Settings(terms=3, lr=0.07)
    assert settings.hypergradient == Implicit(Neumann(3, step_size=0.07))
    assert replace(settings, terms=1).hypergradient == Implicit(Identity(scale=0.07))
    assert replace(settings, terms=0).hypergradient == Unrolled()
