import pytest
import torch

from commentaries.training import order


@pytest.mark.parametrize(("size", "batch"), [(12, 4), (13, 4), (7, 7), (5, 9), (3, 1)])
def test_an_epoch_sees_every_example_once_but_those_of_the_incomplete_batch(size, batch):
    drawn = order(size, batch, seed=0)
    steps = size // min(batch, size)
    epochs = []
    for epoch in range(3):
        pieces = [drawn(epoch * steps + step) for step in range(steps)]
        assert all(len(piece) == min(batch, size) for piece in pieces)
        epochs.append(torch.cat(pieces))
        assert len(epochs[-1].unique()) == steps * min(batch, size)
        assert int(epochs[-1].max()) < size
    if size > 5:
        assert not torch.equal(epochs[0], epochs[1])


def test_who_is_left_out_changes():
    drawn = order(10, 8, seed=0)
    left_out = {frozenset(range(10)) - frozenset(drawn(step).tolist()) for step in range(20)}
    assert len(left_out) > 5


def test_a_step_is_a_function_of_itself():
    """Whatever was asked before, so that a run may go on anywhere."""
    one, other = order(20, 6, seed=4), order(20, 6, seed=4)
    forwards = [one(step) for step in range(15)]
    backwards = [other(step) for step in reversed(range(15))]
    assert all(map(torch.equal, forwards, reversed(backwards)))
    assert torch.equal(order(20, 6, seed=4)(11), forwards[11])
    assert not torch.equal(order(20, 6, seed=5)(11), forwards[11])


def test_the_epochs_of_one_seed_are_not_those_of_the_next():
    every = [tuple(order(30, 30, seed=seed)(epoch).tolist()) for seed in range(9)
             for epoch in range(9)]  # fmt: skip
    assert len(set(every)) == 81
