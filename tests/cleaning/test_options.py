import re
from dataclasses import replace
from pathlib import Path

import pytest

from commentaries.cleaning.options import Job
from commentaries.errors import BadInput
from commentaries.training import RunFolder
from commentaries.training.config import rebuild


def test_noise_is_made_in_sets_by_name_only(tmp_path):
    assert Job().noise_kind == "uniform"
    own = Job(data=str(tmp_path))
    assert own.is_own
    assert own.noise_kind == "none"
    assert replace(own, noise="pair").noise_kind == "pair"
    assert Job(noise="none").noise_kind == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trusted": 100}, "trusted is 100, but which of your own labels are right is not known. "
         "Give a folder of trusted images (./100 if it is called so), or a trusted list."),
        ({"test": 50}, "test is 50, but which of your own labels are right is not known. Give a "
         "folder of test images (./50 if it is called so)."),
        ({"trusted": Path("a"), "trusted_list": Path("b")}, "Both trusted and trusted_list are"),
        ({"trusted_per_class": 3}, "trusted_per_class is 3 without a trusted_list."),
        ({"trusted_list": Path("b"), "trusted_per_class": 0}, "trusted_per_class is 0"),
        ({"size": 0}, "size is 0, but must be positive"),
        ({"backbone_weights": Path("b")}, "Of backbone and backbone_weights only one is given."),
        ({"noise": "some"}, "There is no kind of noise 'some'."),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_own_data(tmp_path, options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        Job(data=str(tmp_path), **options)


def test_paths_are_settled_and_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    job = Job(
        data="./data",
        trusted=Path("trusted"),
        test=Path("../test"),
        root=Path("root"),
        backbone="torchvision:resnet18",
        backbone_weights=Path("weights.pt"),
        corrections=(("a/=1.png", "cat"), ("b/2.png", "")),
    ).settled()
    assert job.data == str(tmp_path / "data")
    assert job.trusted == tmp_path / "trusted"
    assert job.test == tmp_path.parent / "test"
    folder = RunFolder.create(tmp_path / "run", job)
    assert rebuild(Job, folder.config()) == job
    monkeypatch.chdir(tmp_path.parent)
    assert rebuild(Job, folder.config()).settled() == job


def test_sets_by_name_come_back(tmp_path):
    for number, job in enumerate((Job(), Job(trusted=20, test=5, train=9), Job(noise="pair"))):
        assert job.settled() == job
        assert rebuild(Job, RunFolder.create(tmp_path / f"{number}", job).config()) == job
