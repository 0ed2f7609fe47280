"""Jobs on few-shot learning: options, resumption, and what is found with wrong labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_classes import made_up

from commentaries.errors import BadInput
from commentaries.fewshot import part
from commentaries.networks.weights import read_weights
from commentaries.teaching import few_shot
from commentaries.teaching.few_shot import EQUAL, OURS, prepare, run
from commentaries.teaching.few_shot_options import FewShotJob
from commentaries.teaching.pretraining import pretrained
from commentaries.training import RunFolder, checkpoint
from commentaries.training.config import read_config
from commentaries.training.students import network_for

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


def stopped_at_step_3(job, path):
    folder = RunFolder.create(path, job)

    def stop(step, _):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, folder, on_step=stop)
    return folder


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

    stopped = stopped_at_step_3(JOB, tmp_path / "stopped")
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


FEATURES = replace(JOB, pretrain=40, commentary="agreement", width=8)


def test_pretraining_is_done_once_and_its_features_are_the_start(tmp_path):
    whole = RunFolder.create(tmp_path / "whole", FEATURES)
    seen = []
    result = run(FEATURES, whole, on_step=lambda step, metrics: seen.append((step, metrics)))
    shares = [metrics["pretrained"] for step, metrics in seen if step == 0]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    found = result["methods"][OURS]
    assert found["clean_weight"] != result["methods"][EQUAL]["clean_weight"]

    prepared = prepare(FEATURES)
    path = whole.path / few_shot.PRETRAINED
    weights = read_weights(path)
    phi = few_shot.begun(FEATURES, few_shot.maml_of(FEATURES, prepared.train, path)).phi
    body = {k: v for k, v in part(phi, "start.").items() if not k.startswith("network.13.")}
    assert len(body) == 16
    for name, value in body.items():
        assert torch.equal(value, weights[name]), name
    head = part(phi, "start.")["network.13.weight"]
    assert head.shape == (3, 8)  # of the ways, and not pretrained
    train = prepared.train
    module = network_for(train, "conv4", width=8)()
    module.load_state_dict(weights)
    with torch.no_grad():
        right = (module.eval()(train.x).argmax(1) == train.y).double().mean()
    assert float(right) > 0.8

    stopped = stopped_at_step_3(FEATURES, tmp_path / "stopped")
    seen.clear()
    again = run(FEATURES, stopped, on_step=lambda step, metrics: seen.append((step, metrics)))
    assert again == result
    assert [step for step, _ in seen] == [3, 4]  # no pretraining


@pytest.mark.parametrize("wrong", [0.0, 0.4])
@pytest.mark.parametrize("commentary", ["losses", "agreement"])
def test_one_shot_weights_add_up_to_the_examples(tmp_path, commentary, wrong):
    job = replace(FEATURES, shot=1, pretrain=1, wrong=wrong, commentary=commentary)
    folder = RunFolder.create(tmp_path / "run", job)
    run(job, folder)
    weights = checkpoint.load(folder.path / few_shot.EVALUATION, None)["weights"]
    assert weights.shape == (5, 2, 3)
    assert torch.allclose(weights.mean(2), torch.ones(5, 2).double())


def test_shares_of_wrong_labels_in_training_are_their_own(tmp_path):
    job = replace(JOB, train_wrong=(0.0, 0.5))
    assert read_config(RunFolder.create(tmp_path / "run", job), {"fewshot": FewShotJob}) == job
    prepared = prepare(job)
    trained = {int(prepared.episodes(number).wrong.sum()) for number in range(60)}
    assert trained == {0, 1, 2, 3, 4}
    tested = few_shot.tasks_to_test(job, prepared.test)
    assert {int(tested(number).wrong.sum()) for number in range(20)} == {3}


def test_a_file_of_weights_serves_like_pretraining(tmp_path):
    prepared = prepare(FEATURES)
    path = pretrained(FEATURES, prepared.train, tmp_path / "weights.pt")
    from_file = replace(FEATURES, pretrain=0, weights=path)
    folder = RunFolder.create(tmp_path / "run", from_file)
    other = RunFolder.create(tmp_path / "other", FEATURES)
    assert run(from_file, folder) == run(FEATURES, other)
    with pytest.raises(BadInput, match=r"do not fit conv4"):
        prepare(replace(from_file, width=6))
    with pytest.raises(BadInput, match=r"no weights file"):
        prepare(replace(from_file, weights=tmp_path / "none.pt"))


def test_paths_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settled = replace(JOB, weights=Path("w.pt"), root=Path("data")).settled()
    assert (settled.weights, settled.root) == (tmp_path / "w.pt", tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_wrong": (0.4, 0.2)}, r"wrong is from 0.4 to 0.2"),
        ({"pretrain": -1}, r"pretrain is -1"),
        ({"pretrain": 2, "weights": Path("w.pt")}, r"Both pretrain and weights .* Leave one out"),
        ({"commentary": "agreement"}, r"compares features, and there are none .* pretrain = 10"),
        ({"student": "conv9", "pretrain": 1}, r"no student 'conv9'"),
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
