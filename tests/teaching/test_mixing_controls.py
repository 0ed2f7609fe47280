"""What learned mixing is compared with: each control is what its name says."""

from dataclasses import replace

import lessons
import pytest
import torch

from commentaries.commentary import ClassPairs, MixingCoefficients
from commentaries.teaching.methods import plain, score
from commentaries.teaching.mixing import (
    ALL,
    QUICK,
    Mixing,
    Relabelled,
    Taught,
    _method,
    commentary_of,
    mean_ratio,
    mean_table,
    of_table,
    standard_mixup,
)
from commentaries.teaching.parts import gather
from commentaries.training import Recipe, log_probabilities
from commentaries.training.students import student_for
from commentaries.types import Batch

CLASSES = 10
RECIPE = Recipe(steps=4, batch=32, lr=0.05)


@pytest.fixture(scope="module")
def parts():
    return gather(lessons.mixup())


@pytest.fixture(scope="module")
def student(parts):
    return student_for(parts.train)


@pytest.fixture
def learned(generator):
    """A table that is far from where it began."""
    ours = commentary_of(lessons.mixup(), gather(lessons.mixup()).train)
    return Taught(ours, {"logits": 2 * torch.randn(1, CLASSES, CLASSES, generator=generator)})


def batch_of(images, seed=3, progress=1.0):
    index = torch.arange(len(images))
    return Batch(images.x, images.y, index, progress, seed)


def classes_of(commentary, batch):
    """Of each pair: own class and the partner's."""
    return batch.y, batch.y[commentary.partners(batch)]


# what is learned


@pytest.mark.parametrize("ratio", ["table", "symmetric", "network"])
def test_nothing_is_said_at_first(parts, ratio):
    job = lessons.mixup(ratio=ratio, low=0.2, high=0.9)
    ours = commentary_of(job, parts.train)
    phi = ours.init(torch.Generator().manual_seed(0))
    means = ours.means(phi, batch_of(parts.train, progress=0.3))
    torch.testing.assert_close(means, torch.full((100,), 0.55))


def test_a_symmetric_table_is_symmetric(parts, generator):
    job = lessons.mixup(ratio="symmetric", knots=3)
    ours = commentary_of(job, parts.train)
    phi = {"logits": torch.randn(3, CLASSES, CLASSES, generator=generator)}
    for progress in (0.0, 0.3, 1.0):
        table = mean_table(Taught(ours, phi), parts.train, progress=progress)
        torch.testing.assert_close(table, table.T)
    ordered = commentary_of(lessons.mixup(knots=3), parts.train)
    table = mean_table(Taught(ordered, phi), parts.train)
    assert not torch.allclose(table, table.T)
    torch.testing.assert_close(table, 0.5 + 0.5 * phi["logits"][2].sigmoid())


# tables


def test_a_table_of_ratios_gives_these_ratios(parts, generator):
    ours = MixingCoefficients(ClassPairs(CLASSES, knots=3), CLASSES, low=0.3, high=0.8)
    ratios = 0.3 + 0.5 * torch.rand(CLASSES, CLASSES, generator=generator)
    made = of_table(ours, ratios)
    torch.testing.assert_close(mean_table(made, parts.train), ratios)
    batch = batch_of(parts.train, progress=0.4)
    own, other = classes_of(made.commentary, batch)
    torch.testing.assert_close(made.commentary.ratios(made.phi, batch), ratios[own, other])


def test_the_ends_of_the_range_are_reached(parts):
    ours = commentary_of(lessons.mixup(), parts.train)
    ratios = torch.full((CLASSES, CLASSES), 0.5)
    ratios[0] = 1.0
    found = mean_table(of_table(ours, ratios), parts.train)
    torch.testing.assert_close(found, ratios, atol=1e-5, rtol=0)


def test_a_constant_ratio_is_the_mean_over_the_pairs(parts, learned):
    made = _method("constant ratio", learned, parts.train, 0)
    table = mean_table(made, parts.train)
    assert float(table.max() - table.min()) == 0
    batch = batch_of(parts.train)  # fewer than are taken for the mean, so these in all
    mean = mean_ratio(learned, parts.train)
    assert float(table[0, 0]) == pytest.approx(mean, abs=1e-6)
    every = torch.cat([
        learned.commentary.means(learned.phi, batch._replace(seed=seed)) for seed in range(200)
    ])  # fmt: skip
    spread = float(every.std()) / 10  # of a mean of 100
    assert abs(float(every.mean()) - mean) < 5 * spread


def test_the_mean_table_of_a_score_without_one(parts, learned):
    """Entry by entry the table's own where such a pair was met, and unknown elsewhere."""
    expected = mean_table(learned, parts.train)
    same = Relabelled(learned.commentary.score, torch.arange(CLASSES))
    hidden = Taught(replace(learned.commentary, score=same), learned.phi)
    few = parts.train.rows(torch.arange(40))
    found = mean_table(hidden, few)
    met = ~found.isnan()
    assert 0 < int(met.sum()) <= 40
    torch.testing.assert_close(found[met], expected[met])
    assert mean_ratio(hidden, few) == pytest.approx(mean_ratio(learned, few))


def test_a_random_table_is_drawn_over_the_same_range(parts, generator):
    ours = MixingCoefficients(ClassPairs(CLASSES), CLASSES, low=0.2, high=0.6)
    learned = Taught(ours, ours.init(generator))
    tables = [
        mean_table(_method("random table", learned, parts.train, seed), parts.train)
        for seed in (0, 0, *range(1, 20))
    ]
    every = torch.stack(tables[1:])
    assert float(every.min()) >= 0.2
    assert float(every.max()) <= 0.6
    assert float(every.mean()) == pytest.approx(0.4, abs=0.02)  # in ratio space
    assert float(every.std()) == pytest.approx(0.4 / 12**0.5, abs=0.01)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[1], tables[2])


def test_shuffled_classes_use_what_was_learned_of_other_classes(parts, learned):
    table = mean_table(learned, parts.train)
    made = _method("shuffled classes", learned, parts.train, 0)
    batch = batch_of(parts.train)
    order = made.commentary.score.classes
    assert sorted(order.tolist()) == list(range(CLASSES))
    assert int((order != torch.arange(CLASSES)).sum()) >= 2
    own, other = classes_of(made.commentary, batch)
    ratios = made.commentary.ratios(made.phi, batch)
    torch.testing.assert_close(ratios, table[order[own], order[other]])
    # the soft labels stay those of the examples themselves
    target = made.commentary(made.phi, batch).target
    expected = torch.zeros(len(own), CLASSES)
    rows = torch.arange(len(own))
    expected[rows, own] += ratios
    expected[rows, other] += 1 - ratios
    torch.testing.assert_close(target, expected)


def test_standard_mixup_draws_from_beta(parts):
    made = standard_mixup(CLASSES, 0.3)
    same = MixingCoefficients(ClassPairs(CLASSES), CLASSES, low=0.0, high=1.0, concentration=0.6)
    batch = batch_of(parts.train)
    phi = same.init(torch.Generator())
    assert torch.equal(made.commentary(made.phi, batch).x, same(phi, batch).x)
    draws = torch.cat([
        made.commentary.ratios(made.phi, batch._replace(seed=seed)) for seed in range(100)
    ])  # fmt: skip
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(draws.var()) == pytest.approx(1 / (4 * (2 * 0.3 + 1)), abs=0.01)
    assert len(draws.unique()) > 5000  # one for each example


# the comparison


def compared(parts, student, phi, **options):
    job = lessons.mixup(recipe=RECIPE, **options)
    topic = Mixing(job, parts)
    said, kept = [], {}
    found = topic.compare(
        phi, student, RECIPE, seed=2, names=("ours", *topic.methods(job.controls)),
        on_method=said.append, on_student=kept.__setitem__,
    )  # fmt: skip
    assert said == list(found) == list(kept)
    return found, kept


def test_methods_of_each_choice(parts):
    topic = Mixing(lessons.mixup(), parts)
    assert topic.methods("none") == ()
    assert topic.methods("quick") == QUICK
    assert topic.methods("all") == ALL


def test_before_anything_is_learned_ours_is_a_constant_ratio(parts, student):
    phi = Mixing(lessons.mixup(), parts).commentary.init(torch.Generator())
    found, kept = compared(parts, student, phi, controls="all", alphas=(0.5,))
    assert tuple(found) == ("ours", *ALL)
    assert found["ours"] == found["constant ratio"] == found["shuffled classes"]
    assert all(torch.equal(kept["ours"][k], kept["constant ratio"][k]) for k in kept["ours"])
    assert found["ours"] != found["random table"]
    without = plain(student, parts.train, RECIPE, seed=2)
    assert all(torch.equal(without[name], kept["no mixing"][name]) for name in without)
    opinion = log_probabilities(student, without, parts.test.x, seen=parts.train.x)
    right = score(opinion, parts.test.y)
    assert (found["no mixing"]["accuracy"], found["no mixing"]["loss"]) == right
    assert found["standard mixup"]["alpha"] == 0.5


def test_an_example_that_stays_whole_is_not_mixed(parts, student):
    """A ratio of 1 everywhere teaches as no mixing does, up to rounding."""
    topic = Mixing(lessons.mixup(), parts)
    whole = {"logits": torch.full((1, CLASSES, CLASSES), 40.0)}
    found, kept = compared(parts, student, whole, controls="quick", alphas=(0.5,))
    assert float(mean_table(Taught(topic.commentary, whole), parts.train).min()) == 1
    for name, value in kept["no mixing"].items():
        torch.testing.assert_close(kept["ours"][name], value, rtol=1e-4, atol=1e-6)
    assert found["ours"]["accuracy"] == found["no mixing"]["accuracy"]


def test_the_alpha_that_does_best_on_validation_is_taken(parts, student, monkeypatch):
    """And not the one that does best on the test examples."""
    phi = Mixing(lessons.mixup(), parts).commentary.init(torch.Generator())
    held, right = {0.1: 0.4, 0.5: 0.6, 2.0: 0.5}, {0.1: 0.7, 0.5: 0.2, 2.0: 0.9}

    def scored(self, method, student, recipe, seed):
        found = {"accuracy": 0.0, "validation": 0.0}
        if method is not None and method.commentary.low == 0:
            alpha = method.commentary.concentration / 2
            found = {"accuracy": right[alpha], "validation": held[alpha]}
        return {}, found

    monkeypatch.setattr(Mixing, "_taught", scored)
    found, _ = compared(parts, student, phi, controls="quick", alphas=tuple(held))
    assert found["standard mixup"] == {"accuracy": 0.2, "validation": 0.6, "alpha": 0.5}


def test_what_is_logged_and_summed_up(parts, learned):
    topic = Mixing(lessons.mixup(), parts)
    table = mean_table(learned, parts.train)
    found = topic.metrics(learned.phi, 0.5)
    expected = {"ratio": table.mean(), "least": table.min(), "greatest": table.max()}
    assert found == pytest.approx({name: float(value) for name, value in expected.items()})
    summary = topic.summary(learned.phi)
    assert summary["classes"] == [str(label) for label in range(CLASSES)]
    assert torch.equal(torch.tensor(summary["ratios"]), table)
