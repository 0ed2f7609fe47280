from dataclasses import replace

import pytest
import torch
from short import shorten

from commentaries.cleaning import controls, methods
from commentaries.cleaning.controls import CONTROLS, Bench
from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import control_names, make_student
from commentaries.cleaning.learner import Learned
from commentaries.cleaning.methods import DEFAULT, Plan, auroc, carry_out, given_loss
from commentaries.errors import BadInput
from commentaries.training import Recipe


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    shorten(monkeypatch, 40, methods, controls)


@pytest.fixture
def bench(task, evidence):
    weight = torch.where(task.wrong, 0.1, 0.9)
    opinion = torch.zeros(task.size, task.classes).log_softmax(1)
    trusted = torch.zeros(len(task.trusted), task.classes).log_softmax(1)
    return Bench(task, make_student(task), evidence, Learned(weight, opinion, trusted))


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(60, generator=generator) < 0.3
    suspicion = torch.randint(0, 8, (60,), generator=generator).float()  # with ties
    high, low = suspicion[wrong][:, None], suspicion[~wrong]
    pairs = (high > low).double() + 0.5 * (high == low).double()
    assert auroc(wrong, suspicion) == pytest.approx(float(pairs.mean()))
    assert auroc(wrong, -suspicion) == pytest.approx(1 - float(pairs.mean()))


def test_auroc_without_contrast():
    assert auroc(None, torch.rand(3)) is None
    assert auroc(torch.zeros(3, dtype=torch.bool), torch.rand(3)) is None
    assert auroc(torch.ones(3, dtype=torch.bool), torch.rand(3)) is None


def test_given_loss():
    opinion = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    expected = -torch.tensor([0.5, 0.1]).log()
    torch.testing.assert_close(given_loss(opinion, torch.tensor([1, 0])), expected)


def test_carry_out(task):
    student = make_student(task)
    plan, recipe = Plan(task.truth, torch.ones(task.size), DEFAULT), Recipe()
    outcome = carry_out(task, student, plan, recipe, seed=0)
    assert outcome.log_probability.shape == (120, 10)
    assert torch.equal(outcome.suspicion, given_loss(outcome.log_probability, task.train.y))
    assert outcome.auroc == outcome.auroc_rescored > 0.8
    assert outcome.accuracy > 0.6
    own = torch.arange(120).float()
    ranked = carry_out(task, student, replace(plan, suspicion=own), recipe, seed=0)
    assert torch.equal(ranked.suspicion, own)
    assert ranked.auroc != ranked.auroc_rescored == outcome.auroc
    blind = carry_out(replace(task, truth=None, test=None), student, plan, recipe, seed=0)
    assert (blind.accuracy, blind.auroc, blind.auroc_rescored) == (None, None, None)


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_runs(bench, name):
    outcomes = controls.run([name], bench)
    assert outcomes
    for outcome in outcomes.values():
        assert outcome.log_probability.shape == (120, 10)
        assert torch.isfinite(outcome.suspicion).all()
        assert 0 <= outcome.accuracy <= 1
        assert 0 <= outcome.auroc <= 1
        assert 0 <= outcome.auroc_rescored <= 1


def test_names_of_outcomes_are_distinct(bench):
    found = [name for control in CONTROLS for name in controls.run([control], bench)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_do_not_see_the_truth(bench, name):
    """Without it, and without the test set, the same network: only the scores are missing."""
    if name == "oracle":
        assert controls.run([name], replace(bench, task=replace(bench.task, truth=None))) == {}
        return
    hidden = replace(bench.task, truth=None, test=None)
    blind = replace(bench, task=hidden, evidence=replace(bench.evidence, task=hidden))
    seen, unseen = controls.run([name], bench), controls.run([name], blind)
    assert seen.keys() == unseen.keys()
    for one, other in zip(seen.values(), unseen.values(), strict=True):
        assert torch.equal(one.log_probability, other.log_probability)
        assert torch.equal(one.suspicion, other.suspicion)
        assert (other.accuracy, other.auroc, other.auroc_rescored) == (None, None, None)


def test_an_unknown_control(bench):
    with pytest.raises(BadInput, match=r"There is no control 'orakle'\. Did you mean 'oracle'\?"):
        controls.run(["orakle"], bench)


def test_choices_of_controls():
    assert control_names("none") == ()
    assert set(control_names("quick")) < set(control_names("all")) == set(CONTROLS)


def test_conclude(bench):
    verdict = conclude(bench.evidence, bench.student, bench.learned, seed=0)
    task = bench.task
    assert verdict.suggested.shape == verdict.confidence.shape == (120,)
    assert ((verdict.confidence > 0.1) & (verdict.confidence <= 1)).all()
    given, suggested = (float((y == task.truth).float().mean())
                        for y in (task.train.y, verdict.suggested))  # fmt: skip
    assert suggested > given + 0.2
    assert verdict.trusted_suspicion.shape == (40,)
    assert verdict.trusted_suspicion.median() < verdict.suspicion[task.wrong].median()
    assert verdict.outcome.auroc > 0.8
