"""Episodes: drawn by number and seed alone, support and query apart, wrong labels recorded."""

import pytest
import torch

from commentaries.errors import BadInput
from commentaries.fewshot import Episodes, stacked


def drawings(classes=6, each=8, side=4):
    """Images whose pixels tell their row and class, and no turn of which equals another."""
    y = torch.arange(classes).repeat(each)
    x = torch.rand(classes * each, 1, side, side, generator=torch.Generator().manual_seed(1))
    return x, y


def make(**options):
    x, y = drawings()
    return Episodes(x, y, **({"way": 3, "shot": 2, "query": 4} | options))


def test_what_an_episode_holds():
    x, y = drawings()
    episode = make()(5)
    assert episode.support.x.shape == (6, 1, 4, 4)
    assert episode.query.x.shape == (12, 1, 4, 4)
    assert episode.support.y.tolist() == [0, 0, 1, 1, 2, 2] == episode.truth.tolist()
    assert episode.query.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for batch in (episode.support, episode.query):
        assert torch.equal(batch.x, x[batch.index])
        assert torch.equal(episode.classes[batch.y], y[batch.index])
    assert len(set(episode.classes.tolist())) == 3
    assert not episode.wrong.any()


def test_support_and_query_are_apart():
    episodes = make()
    for number in range(50):
        episode = episodes(number)
        rows = torch.cat([episode.support.index, episode.query.index]).tolist()
        assert len(set(rows)) == len(rows) == 18


def test_an_episode_depends_on_seed_and_number_alone():
    state = torch.get_rng_state()
    a = make(seed=3)
    a(0)
    assert torch.equal(a(7).support.index, make(seed=3)(7).support.index)
    assert a(7).support.seed == make(seed=3)(7).support.seed
    assert not torch.equal(a(7).support.index, a(8).support.index)
    assert not torch.equal(a(7).support.index, make(seed=4)(7).support.index)
    assert torch.equal(state, torch.get_rng_state())


def test_classes_and_examples_are_drawn_evenly():
    episodes = make()
    classes = torch.zeros(6)
    rows = torch.zeros(48)
    for number in range(400):
        episode = episodes(number)
        classes[episode.classes] += 1
        rows[episode.support.index] += 1
    assert (classes - 200).abs().max() < 45  # 4.5 standard deviations of 10
    assert (rows - 50).abs().max() < 33


def test_all_classes_and_all_examples():
    episode = make(way=6, shot=5, query=3)(0)
    assert sorted(episode.classes.tolist()) == list(range(6))
    rows = torch.cat([episode.support.index, episode.query.index])
    assert sorted(rows.tolist()) == list(range(48))


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.2, 3), (0.4, 6), (0.99, 15)])
def test_wrong_labels_are_within_the_ways_and_recorded(rate, count):
    episodes = make(way=5, shot=3, wrong=rate)
    moves = set()
    for number in range(30):
        episode = episodes(number)
        assert int(episode.wrong.sum()) == count
        assert episode.support.y.min() >= 0
        assert episode.support.y.max() < 5
        assert torch.equal(episode.query.y, make(way=5, shot=3)(number).query.y)
        moves |= set((episode.support.y - episode.truth).remainder(5).tolist())
    assert moves == ({0, 1, 2, 3, 4} if 0 < count < 15 else {0} if not count else {1, 2, 3, 4})


def test_a_share_of_wrong_labels_drawn_for_each_episode():
    episodes = make(way=5, shot=4, wrong=(0.1, 0.35))
    counts = [int(episodes(number).wrong.sum()) for number in range(200)]
    assert set(counts) == {2, 3, 4, 5, 6, 7}
    assert counts == [int(episodes(number).wrong.sum()) for number in range(200)]
    fixed, same = make(wrong=0.25), make(wrong=(0.25, 0.25))
    assert all(torch.equal(fixed(i).support.y, same(i).support.y) for i in range(5))


def test_wrong_labels_change_nothing_else():
    clean, noisy = make()(4), make(wrong=0.5)(4)
    assert torch.equal(clean.support.x, noisy.support.x)
    assert torch.equal(clean.truth, noisy.truth)
    assert not torch.equal(clean.support.y, noisy.support.y)


def test_turned_classes_are_classes_of_their_own():
    x, y = drawings()
    episodes = make(way=24, shot=1, query=2, rotations=True)
    assert episodes.classes == 24
    episode = episodes(0)
    assert sorted(episode.classes.tolist()) == list(range(24))
    for batch in (episode.support, episode.query):
        for image, label, row in zip(batch.x, batch.y, batch.index, strict=True):
            turns, original = divmod(int(episode.classes[label]), 6)
            assert int(y[row]) == original
            assert torch.equal(image, torch.rot90(x[row], turns, (1, 2)))


def test_labels_may_be_any_whole_numbers_and_images_a_list():
    x, y = drawings()
    numbers = (3 * y + 10).tolist()
    episode = Episodes(list(x), numbers, way=3, shot=2, query=4)(5)
    assert torch.equal(episode.support.x, make()(5).support.x)
    assert episode.classes.tolist() == (3 * make()(5).classes + 10).tolist()


def test_stacked_episodes():
    episodes = [make()(number) for number in range(3)]
    many = stacked(episodes)
    assert many.support.x.shape == (3, 6, 1, 4, 4)
    for i, each in enumerate(episodes):
        assert torch.equal(many.query.x[i], each.query.x)
        assert torch.equal(many.support.index[i], each.support.index)
    with pytest.raises(BadInput, match=r"different sizes.*batched=False"):
        stacked([make()(0), make(shot=1)(0)])
    with pytest.raises(BadInput, match="no episodes"):
        stacked([])


def single():
    x, y = drawings()
    return x[:43], torch.cat([y[:42], torch.tensor([9])])


def uneven():
    x, y = drawings()
    return [*x[:20], x[20][:, :3], *x[21:]], y


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (drawings, {"way": 7}, r"way is 7, but there are 6 classes.*at most 6"),
        (drawings, {"way": 1}, r"way is 1.*at least 2"),
        (drawings, {"shot": 5}, r"5 support and 4 query.*class 0 has 8.*at most 8 together"),
        (drawings, {"shot": 0}, r"shot is 0"),
        (drawings, {"wrong": 1.0}, r"wrong is 1.0"),
        (drawings, {"wrong": (0.1, 1.5)}, r"wrong is 1.5"),
        (drawings, {"wrong": (0.3, 0.1)}, r"from 0.3 to 0.1. Give the least share first"),
        (single, {}, r"Class 9 has a single example.*Add"),
        (uneven, {}, r"unequal sizes: \(1, 4, 4\) at position 0 and \(1, 3, 4\) at position 20"),
        (lambda: (drawings()[0], drawings()[1].float()), {}, r"type torch.float32.*whole numbers"),
        (lambda: (drawings()[0], drawings()[1] > 2), {}, r"type torch.bool"),
        (lambda: (drawings()[0], drawings()[1][:-1]), {}, r"48 images and labels of shape \(47,\)"),
        (lambda: ([], []), {}, r"There are no images"),
        (
            lambda: (drawings()[0][:, :, :3], drawings()[1]),
            {"rotations": True},
            r"\(1, 3, 4\) cannot be turned.*square",
        ),
    ],
)
def test_bad_input(data, options, message):
    x, y = data()
    with pytest.raises(BadInput, match=message):
        Episodes(x, y, **({"way": 3, "shot": 2, "query": 4} | options))
