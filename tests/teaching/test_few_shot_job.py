"""Jobs on few-shot learning: options, resumption, and what is found with wrong labels."""

from dataclasses import replace

import pytest
import torch
from made_up_classes import made_up

from commentaries.errors import BadInput
from commentaries.teaching import few_shot
from commentaries.teaching.few_shot import EQUAL, OURS, prepare, run
from commentaries.teaching.few_shot_options import FewShotJob
from commentaries.training import RunFolder, checkpoint

JOB = FewShotJob(
    data="cifar_fs",
    shot=3,
    query=4,
    way=3,
    wrong=0.3,
    steps=2,
    meta_steps=4,
    tasks=2,
    episodes=5,
    width=4,
    commentary="losses",
    learn_rates=True,
    checkpoint_every=2,
)


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    monkeypatch.setattr(few_shot, "few_shot", made_up)


def test_a_run_and_one_that_was_interrupted(tmp_path):
    whole = RunFolder.create(tmp_path / "whole", JOB)
    seen = []
    result = run(JOB, whole, on_step=lambda step, _: seen.append(step), on_method=seen.append)
    assert seen == [1, 2, 3, 4, OURS, EQUAL]
    found = result["methods"][OURS]
    assert len(found["accuracy"]) == len(found["interval"]) == 3
    assert len(found["clean_weight"]) == len(found["wrong_weight"]) == 2
    equal = result["methods"][EQUAL]
    assert equal["clean_weight"] == pytest.approx([1, 1], rel=1e-6)
    assert found["clean_weight"] != equal["clean_weight"]
    kept = checkpoint.load(whole.path / few_shot.EVALUATION, None)
    assert kept["weights"].shape == (5, 2, 9)
    assert kept["wrong"].sum(1).tolist() == [3] * 5

    stopped = RunFolder.create(tmp_path / "stopped", JOB)

    def stop(step, _):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(JOB, stopped, on_step=stop)
    assert not (stopped.path / "result.json").exists()
    assert run(JOB, stopped) == result
    assert stopped.metrics() == whole.metrics()
    for name in ("checkpoint.pt", "result.json", "evaluation.pt"):
        assert (whole.path / name).read_bytes() == (stopped.path / name).read_bytes()


def test_test_tasks_are_the_same_for_every_seed():
    one, other = (prepare(replace(JOB, seed=seed)) for seed in (0, 1))
    tasks = [few_shot.tasks_to_test(JOB, each.test)(0) for each in (one, other)]
    assert torch.equal(tasks[0].support.x, tasks[1].support.x)
    assert not torch.equal(one.episodes(0).support.x, other.episodes(0).support.x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shot": 1}, r"shot is 1, so no support example .* at least 2 shots"),
        ({"commentary": "magic"}, r"no commentary 'magic'"),
        ({"wrong": 1.0}, r"wrong is 1.0"),
        ({"meta_steps": 0}, r"meta_steps is 0"),
        ({"statistics": "running"}, r"kind of statistics 'running'"),
        ({"way": 9}, r"way is 9, but there are 5 classes\. Ask for at most 5 ways"),
        ({"query": 6}, r"3 support and 6 query examples .* has 8"),
        ({"device": "moon"}, r"There is no device 'moon'"),
        ({"seed": -1}, r"seed is -1"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(BadInput, match=message):
        prepare(replace(JOB, **options))
