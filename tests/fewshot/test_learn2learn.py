"""Task sets and models of learn2learn; loss and meta-gradient beside learn2learn and higher."""

import pytest
import tasks
import torch
from oracles import relative_error
from torch import nn

from commentaries.errors import BadInput
from commentaries.fewshot import part, under
from commentaries.fewshot.learn2learn import TaskSetEpisodes, episode_of, from_learn2learn
from experiments.benchmarks import peers

REASON = "not installed: the README says how to build it"


@pytest.fixture
def learn2learn():
    return pytest.importorskip("learn2learn", reason=REASON)


@pytest.fixture(params=["learn2learn", "higher", "torchopt"])
def peer(request):
    pytest.importorskip(request.param, reason=REASON)
    return getattr(peers, request.param)()


def test_same_loss_and_meta_gradient_as_the_peers(peer):
    model = tasks.maml()
    some = [tasks.episodes()(number) for number in range(2)]
    phi = tasks.drawn(model)
    module = tasks.build()
    module.load_state_dict(part(phi, "start."), strict=False)
    way = peer(module, some, lr=0.3, steps=3)
    found = model.meta_gradient(phi, some)
    for _ in range(2):  # a second time, the peer's module is where it was
        loss, gradient = way()
        assert float(loss) == pytest.approx(float(found.outer_loss), rel=1e-12)
        assert relative_error(under("start.", gradient), found.value) < 1e-10


@pytest.mark.parametrize("first_order", [False, True])
def test_a_wrapped_model_trains_here(learn2learn, first_order):
    module = tasks.build()
    wrapped = learn2learn.algorithms.MAML(module, lr=0.3, first_order=first_order)
    model = from_learn2learn(wrapped, steps=3)
    episode = tasks.episodes()(0)
    learner = wrapped.clone()
    for _ in range(3):
        learner.adapt(nn.functional.cross_entropy(learner(episode.support.x), episode.support.y))
    loss = nn.functional.cross_entropy(learner(episode.query.x), episode.query.y)
    loss.backward()
    found = model.meta_gradient(under("start.", model.student.parameters()), [episode])
    expected = {f"start.{name}": value.grad for name, value in module.named_parameters()}
    assert float(found.outer_loss) == pytest.approx(loss.item(), rel=1e-12)
    assert relative_error(found.value, {name: expected[name] for name in found.value}) < 1e-10


def test_tasks_of_a_task_set(learn2learn):
    from learn2learn.data import MetaDataset, Taskset, transforms

    x = torch.arange(40.0).view(40, 1)
    data = MetaDataset(torch.utils.data.TensorDataset(x, torch.arange(40) // 10))
    transform = [
        transforms.NWays(data, n=3),
        transforms.KShots(data, k=5),
        transforms.LoadData(data),
        transforms.RemapLabels(data),
        transforms.ConsecutiveLabels(data),
    ]
    episodes = TaskSetEpisodes(Taskset(data, transform, num_tasks=-1), shot=2)
    support, query, truth, classes = episodes(0)
    assert support.y.tolist() == truth.tolist() == [0, 0, 1, 1, 2, 2]
    assert query.y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(classes) == 3
    # one class of the data stands behind each number, and no example on both sides
    origin = [(each.x.flatten() // 10).view(3, -1) for each in (support, query)]
    assert all((row == row[0]).all() for row in torch.cat(origin, 1))
    assert not set(support.x.flatten().tolist()) & set(query.x.flatten().tolist())


def test_a_task_in_any_order_and_numbering():
    y = torch.tensor([7, 3, 7, 3, 3, 7])
    support, query, _, classes = episode_of(torch.arange(6.0)[:, None], y, shot=1)
    assert support.x.flatten().tolist() == [1, 0]
    assert support.y.tolist() == [0, 1]
    assert query.x.flatten().tolist() == [3, 4, 2, 5]
    assert query.y.tolist() == [0, 0, 1, 1]
    assert classes.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("y", "shot", "message"),
    [
        (torch.tensor([0, 0, 1]), 1, r"1 to 2 examples, and shot is 1\. Give each class"),
        (torch.tensor([0, 0, 1, 1]), 2, r"2 to 2 examples, and shot is 2\."),
        (torch.tensor([0.0, 1.0]), 1, r"float32 labels"),
    ],
)
def test_refuses_other_tasks(y, shot, message):
    with pytest.raises(BadInput, match=message):
        episode_of(torch.zeros(len(y), 2), y, shot=shot)


def test_refuses_a_model_that_is_not_wrapped():
    with pytest.raises(BadInput, match=r"Sequential has no module, lr and first_order"):
        from_learn2learn(tasks.build(), steps=1)
