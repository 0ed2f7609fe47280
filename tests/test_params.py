"""Arithmetic on named tensors."""

import pytest
import torch
from oracles import normal

from commentaries import params as p
from commentaries import tree
from commentaries.inner.adam import AdamState

SHAPES = {"a": torch.empty(2, 3), "b": torch.empty(4), "c": torch.empty(())}


@pytest.fixture
def pair():
    return normal(SHAPES, 1), normal(SHAPES, 2)


def vector(a):
    return torch.cat([v.reshape(-1) for v in a.values()])


def test_algebra(pair):
    a, b = pair
    assert torch.equal(vector(p.add(a, b)), vector(a) + vector(b))
    assert torch.equal(vector(p.add(a, b, -0.5)), vector(a) - 0.5 * vector(b))
    assert torch.equal(vector(p.subtract(a, b)), vector(a) - vector(b))
    assert torch.equal(vector(p.scale(a, 3.0)), 3 * vector(a))
    assert float(p.dot(a, b)) == pytest.approx(float(vector(a) @ vector(b)), rel=1e-14)
    assert float(p.norm(a)) == pytest.approx(float(vector(a).norm()), rel=1e-14)
    torch.testing.assert_close(
        vector(p.lerp(a, b, 0.25)), 0.75 * vector(a) + 0.25 * vector(b), rtol=1e-14, atol=1e-15
    )
    assert p.dot(a, b).shape == p.norm(a).shape == ()


def test_results_come_by_name_not_by_order(pair):
    a, b = pair
    turned = dict(reversed(b.items()))
    assert torch.equal(vector(p.add(a, turned)), vector(a) + vector(b))
    assert torch.equal(p.dot(a, turned), p.dot(a, b))


def test_inputs_are_not_modified(pair):
    a, b = pair
    before = vector(a).clone(), vector(b).clone()
    for result in (p.add(a, b), p.subtract(a, b), p.scale(a, 2.0), p.lerp(a, b, 0.5)):
        for value in result.values():
            value.zero_()
    assert torch.equal(vector(a), before[0])
    assert torch.equal(vector(b), before[1])


def test_a_sum_that_empties_what_it_adds(pair):
    a, b = pair
    first, second = dict(a), dict(b)
    found = p.add_emptying(first, second, -0.5)
    assert torch.equal(vector(found), vector(p.add(a, b, -0.5)))
    assert first == second == {}


def test_flatten_and_back(pair):
    a, _ = pair
    back = p.unflatten(p.flatten(a), a)
    assert p.flatten(a).shape == (11,)
    assert list(back) == list(a)
    assert all(torch.equal(back[k], a[k]) and back[k].shape == a[k].shape for k in a)


def test_random_like_comes_from_the_generator_alone():
    like = {"a": torch.zeros(1000, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float32)}
    state = torch.get_rng_state()
    draws = [p.random_like(like, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draws[0]["a"], draws[1]["a"])
    assert not torch.equal(draws[0]["a"], draws[2]["a"])
    assert draws[0]["b"].dtype == torch.float32
    assert abs(float(draws[0]["a"].mean())) < 0.15
    assert float(draws[0]["a"].std()) == pytest.approx(1, abs=0.1)


def test_live_and_detach(pair):
    a, _ = pair
    grown = p.scale(p.live(a), 2.0)
    assert p.requires_grad(grown)
    assert not p.requires_grad(a)
    assert not p.requires_grad(p.detach(grown))
    assert all(value.is_leaf for value in p.live(grown).values())
    assert p.is_finite(a)
    assert not p.is_finite({**a, "c": torch.tensor(float("inf"))})
    assert not p.is_finite({**a, "c": torch.tensor(float("nan"))})


def test_gradients_are_zero_where_an_input_is_ignored(pair):
    a = p.live(pair[0])
    found = p.gradients((a["a"] ** 2).sum(), a)
    assert torch.equal(found["a"], 2 * a["a"].detach())
    assert torch.equal(found["b"], torch.zeros(4, dtype=torch.float64))
    assert found["c"].shape == ()


def test_joint_gradients_with_equal_names():
    a = p.live({"w": torch.tensor([1.0, 2.0]), "v": torch.tensor(1.0)})
    b = p.live({"w": torch.tensor([3.0, 4.0, 5.0])})
    by_a, by_b = p.joint_gradients((a["w"] ** 2).sum() + 10 * b["w"].sum(), a, b)
    assert torch.equal(by_a["w"], torch.tensor([2.0, 4.0]))
    assert torch.equal(by_a["v"], torch.tensor(0.0))
    assert torch.equal(by_b["w"], torch.full((3,), 10.0))
    assert list(by_a) == ["w", "v"]
    assert list(by_b) == ["w"]


def test_pull_back_can_be_repeated_and_is_zero_without_a_graph(pair):
    a, v = p.live(pair[0]), pair[1]
    outputs = {"a": a["a"].exp(), "b": torch.ones(4), "c": a["c"] * a["b"].sum()}
    v = {**v, "a": v["a"], "c": v["c"]}
    for _ in range(2):
        found = p.pull_back(outputs, v, a)
        torch.testing.assert_close(found["a"], v["a"] * a["a"].detach().exp())
        torch.testing.assert_close(found["b"], v["c"] * a["c"].detach().expand(4))
        torch.testing.assert_close(found["c"], v["c"] * a["b"].detach().sum())
    nothing = p.pull_back(pair[0], v, a)
    assert all(torch.equal(nothing[k], torch.zeros_like(a[k])) for k in a)


def test_under_vmap(pair):
    a, b = pair
    stacked = {k: torch.stack([v, 2 * v]) for k, v in a.items()}
    lengths = torch.func.vmap(lambda s: p.norm(p.add(s, b)))(stacked)
    assert float(lengths[1]) == pytest.approx(float(p.norm(p.add(p.scale(a, 2.0), b))), rel=1e-14)


def test_trees_keep_their_types():
    state = AdamState(torch.tensor(3), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
    nested = [state, ({"k": torch.tensor(1.0)}, None), "text"]
    leaves = list(tree.leaves(nested))
    assert [leaf.shape for leaf in leaves] == [(), (2,), (2,), ()]
    doubled = tree.map_tensors(lambda t: 2 * t, nested)
    assert isinstance(doubled[0], AdamState)
    assert doubled[2] == "text"
    assert doubled[1][1] is None
    assert torch.equal(doubled[0].first["w"], torch.full((2,), 2.0))
    living = tree.live(state)
    assert living.first["w"].requires_grad
    assert not living.step.requires_grad  # integers cannot
    assert not tree.detach(living).first["w"].requires_grad
