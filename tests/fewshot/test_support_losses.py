"""Weights from losses, the control without them, and the outer optimiser that goes with them."""

import pytest
import tasks
import torch
from oracles import flat, normal, relative_error, slope
from torch import nn

from commentaries import ExampleWeights
from commentaries.errors import BadInput
from commentaries.fewshot import FasterCommentary, MeanWeights, SupportLosses, part
from commentaries.inner import Adam
from commentaries.types import Batch


def losses_of(seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    batch = Batch(torch.zeros(6, 1), y, torch.arange(6), progress=0.5)
    return batch, torch.rand(6, generator=g, dtype=torch.float64)


def drawn(score, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        k: v.double() + torch.randn(v.shape, generator=g, dtype=torch.float64)
        for k, v in score.init(g).items()
    }


def test_silent_at_first_and_then_a_function_of_comparisons():
    batch, losses = losses_of()
    score = SupportLosses(width=5)
    silent = {k: v.double() for k, v in score.init(torch.Generator()).items()}
    assert float(score(silent, batch)(losses).abs().max()) == 0
    phi = drawn(score)
    found = score(phi, batch)(losses)
    assert relative_error(score(phi, batch)(losses + 3), found) < 1e-12
    # numbering the classes otherwise changes nothing, and the order only the order
    turned = batch._replace(y=(batch.y + 1) % 3)
    assert relative_error(score(phi, turned)(losses), found) < 1e-12
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    assert (
        relative_error(score(phi, batch._replace(y=batch.y[order]))(losses[order]), found[order])
        < 1e-12
    )
    for changed in (batch._replace(y=batch.y[order]), batch._replace(progress=1.0)):
        assert not torch.allclose(score(phi, changed)(losses), found)
    assert score(phi, batch)(torch.ones(6, dtype=torch.float64)).isfinite().all()


def test_features_speak_before_the_losses_do():
    batch = tasks.episodes(shot=4)(0).support
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).train()
    score = SupportLosses(body, width=5)
    assert not body.training
    phi = drawn(score)
    assert phi.keys() == SupportLosses(width=5).init(torch.Generator()).keys()  # none of theirs
    alike = torch.ones(12, dtype=torch.float64)
    found = score(phi, batch)(alike)
    assert float(found.std()) > 1e-2
    assert not found.requires_grad
    plain = SupportLosses(width=5)
    assert float(plain(drawn(plain), batch)(alike).std()) < 1e-9
    # what is said of an example depends on its label and on the rest, and not on the order
    assert not torch.allclose(score(phi, batch._replace(y=batch.y.roll(1)))(alike), found)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = batch._replace(x=batch.x[order], y=batch.y[order])
    assert relative_error(score(phi, shuffled)(alike), found[order]) < 1e-9


@pytest.mark.parametrize("first_order", [False, True])
def test_central_differences_of_the_commentary(first_order):
    weights = ExampleWeights(SupportLosses(width=4))
    steps = 1 if first_order else 3  # after one step from a start, first order is exact for φ
    model = tasks.maml(commentary=weights, first_order=first_order, steps=steps)
    phi = {k: v.double() for k, v in tasks.drawn(model).items()}
    some = [tasks.episodes(wrong=0.3)(number) for number in range(2)]
    kept = ("teacher.",) if first_order else ("teacher.", "start.")
    along = {k: v * k.startswith(kept) for k, v in normal(phi, 4).items()}
    exact = float(flat(model.meta_gradient(phi, some).value) @ flat(along))
    assert exact == pytest.approx(slope(tasks.query_loss(model, some), phi, along, 1e-5), rel=1e-5)


@pytest.mark.parametrize("normalise", ["sum", "none"])
def test_equal_weights_keep_the_mean_only(normalise):
    batch, losses = losses_of()
    score = SupportLosses(width=5)
    weights = ExampleWeights(score, normalise)
    phi = drawn(score)
    given = weights(phi, batch).weight(losses)
    equal = MeanWeights(weights)(phi, batch).weight(losses)
    assert torch.allclose(equal, given.mean().expand(6), rtol=1e-12)
    assert float(given.std()) > 1e-2
    if normalise == "sum":
        assert torch.allclose(equal, torch.ones(6, dtype=torch.float64), rtol=1e-12)


def test_equal_weights_of_a_network_on_the_support_set():
    weights = tasks.commentary(normalise="none")
    model = tasks.maml(commentary=weights)
    phi = part(tasks.drawn(model), "teacher.")
    batch = tasks.episodes()(0).support
    given = weights(phi, batch).weight
    assert torch.allclose(MeanWeights(weights)(phi, batch).weight, given.mean().expand(12))
    assert MeanWeights(weights).init(torch.Generator()).keys() == phi.keys()


def test_the_commentary_moves_so_many_times_as_far():
    phi = {"start.w": torch.ones(2), "teacher.w": torch.ones(2), "rate.w": torch.ones(1)}
    gradient = {k: torch.full_like(v, 0.5) for k, v in phi.items()}
    base = Adam(1e-2)
    faster = FasterCommentary(base, 4.0)
    one, _ = base.update(gradient, phi, base.init(phi))
    found, state = faster.update(gradient, phi, faster.init(phi))
    for name in phi:
        times = 4 if name.startswith("teacher.") else 1
        assert torch.allclose(found[name] - 1, times * (one[name] - 1), atol=1e-6), name
    again, _ = faster.update(gradient, found, state)
    assert float(again["teacher.w"][0]) < float(found["teacher.w"][0])
    with pytest.raises(BadInput, match="factor is 0"):
        FasterCommentary(base, 0)
