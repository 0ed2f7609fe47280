"""The outer loop against its recursion written out by hand, and ordinary training."""

from __future__ import annotations

import re

import pytest
import torch

from commentaries.data import load, split
from commentaries.errors import BadInput, NonFinite
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD, Adam
from commentaries.networks import small_cnn
from commentaries.problem import Bilevel
from commentaries.solvers import Neumann
from commentaries.student import Student
from commentaries.training import (
    Examples,
    Recipe,
    Schedule,
    checkpoint,
    fit,
    log_probabilities,
    start,
    train,
)
from commentaries.training.fit import warmed
from commentaries.types import Batch

LR, OUTER_LR, SIZE = 0.3, 0.7, 3


def draw(generator):
    return {"w": torch.randn(SIZE, generator=generator, dtype=torch.float64)}


# L_T = ½ Σ a (w - v)², L_V = ½ Σ (w - y)²: everything is known in closed form.
PROBLEM = Bilevel(
    lambda theta, phi, batch: 0.5 * (batch.x * (theta["w"] - phi["v"]) ** 2).sum(),
    lambda theta, phi, batch: 0.5 * ((theta["w"] - batch.y) ** 2).sum(),
)


def numbers(student, step, offset):
    generator = torch.Generator().manual_seed(1000 * student + step + offset)
    return torch.rand(1, SIZE, generator=generator, dtype=torch.float64)


def batch_of(x, y):
    return Batch(x, y, torch.arange(1))


def inner(student, step):
    return batch_of(numbers(student, step, 1), torch.zeros(1))


def outer(student, step):
    return batch_of(torch.zeros(1), numbers(student, step, 500_000))


class Run:
    """A run of `train` that notes what it was asked."""

    def __init__(self, schedule, *, students=2, hypergradient=None, refresh=None, problems=PROBLEM):
        self.inner_calls, self.outer_calls, self.refreshed = [], [], []
        self.schedule = schedule
        self.hypergradient = hypergradient or Unrolled()
        self.optimizers = {"inner_optimizer": SGD(LR), "outer_optimizer": SGD(OUTER_LR)}
        self.problems = problems
        self.refresh = refresh
        self.first = start(
            draw, {"v": torch.zeros(SIZE, dtype=torch.float64)}, students=students, seed=3,
            **self.optimizers,
        )  # fmt: skip

    def __call__(self, state=None):
        def noted_inner(student, step):
            self.inner_calls.append((student, step))
            return inner(student, step)

        def noted_outer(student, step):
            self.outer_calls.append((student, step))
            return outer(student, step)

        def noted_refresh(state):
            self.refreshed.append(state.step)
            return self.refresh(state)

        return train(
            self.problems, self.first if state is None else state, theta=draw, seed=3,
            hypergradient=self.hypergradient, inner=noted_inner, outer=noted_outer,
            schedule=self.schedule, refresh=noted_refresh if self.refresh else None,
            **self.optimizers,
        )  # fmt: skip


def by_hand(run):
    """φ and each student's θ and average after every step, from the formulae."""
    schedule = run.schedule
    v = torch.zeros(SIZE, dtype=torch.float64)
    students = [own.theta["w"] for own in run.first.students]
    averages = list(students)
    history = []
    for step in range(schedule.steps):
        if schedule.restart_every and step and step % schedule.restart_every == 0:
            students = [None] * len(students)  # drawn anew; read off below
        total, loss = torch.zeros_like(v), 0.0
        for number, w in enumerate(students):
            if w is None:
                restart = step // schedule.restart_every
                seed = (3 * 1_000_003 + number) * 1_000_003 + restart
                w = averages[number] = draw(torch.Generator().manual_seed(seed))["w"]
            slope = torch.zeros_like(v)  # dw/dv
            for i in range(schedule.inner_steps):
                a = numbers(number, step * schedule.inner_steps + i, 1)[0]
                w, slope = w - LR * a * (w - v), (1 - LR * a) * slope + LR * a
            y = numbers(number, step, 500_000)[0]
            total += (w - y) * slope
            loss += 0.5 * ((w - y) ** 2).sum()
            students[number] = w
            decay = min(schedule.average, (1 + step) / (10 + step))
            averages[number] = decay * averages[number] + (1 - decay) * w
        if step >= schedule.warm_up:
            v = v - OUTER_LR * total / len(students)
        history.append((v, list(students), list(averages), loss / len(students)))
    return history


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(6),
        Schedule(6, inner_steps=3),
        Schedule(8, warm_up=5),
        Schedule(12, average=0.5),
        Schedule(9, restart_every=3),
        Schedule(25, inner_steps=2, restart_every=10, warm_up=4, average=0.6),
    ],
    ids=["plain", "inner steps", "warm-up", "average", "restarts", "all"],
)
@pytest.mark.parametrize("students", [1, 2])
def test_the_recursion(schedule, students):
    run = Run(schedule, students=students)
    expected = by_hand(run)
    results = list(run())
    assert [result.state.step for result in results] == list(range(1, schedule.steps + 1))
    for result, (v, thetas, averages, loss) in zip(results, expected, strict=True):
        torch.testing.assert_close(result.state.phi["v"], v, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(float(result.outer_loss), float(loss))
        assert len(result.diagnostics) == len(result.state.students) == students
        for own, theta, average in zip(result.state.students, thetas, averages, strict=True):
            torch.testing.assert_close(own.theta["w"], theta, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(own.average["w"], average, rtol=1e-12, atol=1e-12)


def test_batches_are_asked_for_in_order():
    run = Run(Schedule(3, inner_steps=2, warm_up=1))
    list(run())
    assert run.inner_calls == [
        (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3), (0, 4), (0, 5), (1, 4),
        (1, 5),
    ]  # fmt: skip
    assert run.outer_calls == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]


def test_phi_and_its_optimizer_rest_during_the_warm_up():
    run = Run(Schedule(6, warm_up=4))
    run.optimizers["outer_optimizer"] = Adam(0.1)
    run.first = run.first._replace(outer=Adam(0.1).init(run.first.phi))
    results = list(run())
    for result in results[:4]:
        assert torch.equal(result.state.phi["v"], run.first.phi["v"])
        assert result.state.outer == run.first.outer
    # Adam's first step is its learning rate whatever the gradient.
    assert torch.allclose(results[4].state.phi["v"].abs(), torch.tensor(0.1).double(), atol=1e-6)


def test_constants_are_made_at_the_start_and_every_so_many_steps():
    made = []

    def problems(constants):
        made.append(float(constants["step"]))
        return [PROBLEM] * 2

    def refresh(state):
        return {"step": torch.tensor(float(state.step))}

    run = Run(Schedule(10, refresh_every=4), refresh=refresh, problems=problems)
    results = list(run())
    assert run.refreshed == [0, 4, 8]
    assert made == [0, 4, 8]
    assert [float(r.state.constants["step"]) for r in results] == [0] * 4 + [4] * 4 + [8] * 2


@pytest.mark.parametrize("stop", range(1, 12))
@pytest.mark.parametrize("hypergradient", [Unrolled(), Implicit(Neumann(3, step_size=0.5))])
def test_going_on_from_a_saved_state_is_the_same_run(tmp_path, stop, hypergradient):
    """Every state, through a file, with everything on that a state has to carry."""

    def problems(constants):
        shift = constants["shift"]
        return [
            Bilevel(
                PROBLEM.inner,
                lambda theta, phi, batch: PROBLEM.outer({"w": theta["w"] + shift}, phi, batch),
            )
        ] * 2

    def refresh(state):
        return {"shift": 0.1 * state.students[0].average["w"] + 0.01 * state.step}

    schedule = Schedule(
        12, inner_steps=2, restart_every=5, refresh_every=3, warm_up=2, warm_start=True
    )
    run = Run(schedule, hypergradient=hypergradient, refresh=refresh, problems=problems)
    run.optimizers = {"inner_optimizer": SGD(LR, 0.9, True, 1e-2), "outer_optimizer": Adam(0.05)}
    run.first = start(
        draw, {"v": torch.zeros(SIZE, dtype=torch.float64)}, students=2, seed=3, **run.optimizers
    )
    whole = list(run())
    checkpoint.save(tmp_path / "state.pt", whole[stop - 1].state)
    like = run.first._replace(constants={"shift": run.first.phi["v"]})
    saved = checkpoint.load(tmp_path / "state.pt", like)
    rest = list(run(saved))
    assert len(rest) == 12 - stop
    for ours, theirs in zip(rest, whole[stop:], strict=True):
        assert str(ours.state) == str(theirs.state)
        assert torch.equal(ours.outer_loss, theirs.outer_loss)
        assert torch.equal(ours.state.phi["v"], theirs.state.phi["v"])
        for own, other in zip(ours.state.students, theirs.state.students, strict=True):
            assert torch.equal(own.theta["w"], other.theta["w"])
            assert torch.equal(own.average["w"], other.average["w"])


def test_a_finished_state_takes_no_step():
    run = Run(Schedule(4))
    last = list(run())[-1].state
    assert list(run(last)) == []


def test_students_start_differently_and_from_the_seed_alone():
    first, second = Run(Schedule(1)).first, Run(Schedule(1)).first
    a, b = (own.theta["w"] for own in first.students)
    assert not torch.equal(a, b)
    assert torch.equal(b, second.students[1].theta["w"])


def test_errors():
    run = Run(Schedule(3), problems=lambda constants: [PROBLEM], refresh=lambda state: {})
    with pytest.raises(BadInput, match="There are 1 problems for 2 students"):
        next(run())
    with pytest.raises(BadInput, match=re.escape("restart_every needs theta")):
        next(
            train(
                PROBLEM, run.first, hypergradient=Unrolled(), inner=inner, outer=outer,
                schedule=Schedule(3, restart_every=2), **run.optimizers,
            )
        )  # fmt: skip
    for wrong in ({"steps": 0}, {"inner_steps": 0}, {"restart_every": 0}, {"refresh_every": -1},
                  {"average": 1.0}, {"warm_up": -1}):  # fmt: skip
        with pytest.raises(BadInput, match=next(iter(wrong))):
            Schedule(**{"steps": 5} | wrong)
    with pytest.raises(BadInput, match="students"):
        Run(Schedule(1), students=0)


def test_a_loss_that_is_not_finite_stops_the_run_after_the_last_good_state():
    run, seen = Run(Schedule(10)), []

    def broken(student, step):
        batch = outer(student, step)
        return batch._replace(y=batch.y * torch.nan) if step == 4 else batch

    results = train(
        PROBLEM, run.first, hypergradient=Unrolled(), inner=inner, outer=broken,
        schedule=run.schedule, **run.optimizers,
    )  # fmt: skip
    with pytest.raises(NonFinite, match="Lower"):
        seen.extend(result.state.step for result in results)
    assert seen == [1, 2, 3, 4]


# fit


@pytest.fixture(scope="module")
def digits():
    images = load("digits")
    parts = split(images.y, train=600, trusted=50, test=300, seed=0)
    return images, parts


@pytest.fixture(scope="module")
def student():
    return Student(lambda: small_cnn(10))


def examples_of(images, rows, weight=None):
    some = images.rows(rows)
    return Examples(some.x, some.y, torch.ones(len(rows)) if weight is None else weight)


def test_fit_learns_digits(digits, student):
    images, parts = digits
    theta = fit(student, examples_of(images, parts.train), Recipe(150), seed=0)
    x, y = images.x[parts.test], images.y[parts.test]
    found = log_probabilities(student, theta, x, seen=images.x[parts.train])
    torch.testing.assert_close(found.exp().sum(1), torch.ones(300))
    assert float((found.argmax(1) == y).float().mean()) > 0.9


def test_fit_is_a_function_of_its_seed(digits, student):
    images, parts = digits
    state = torch.get_rng_state()
    few = examples_of(images, parts.train[:150])
    a, b, c = (fit(student, few, Recipe(12, batch=32), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert torch.equal(state, torch.get_rng_state())


def test_examples_of_no_weight_do_not_matter(digits, student):
    images, parts = digits
    weight = torch.ones(200)
    weight[::2] = 0
    some = examples_of(images, parts.train[:200], weight)
    y = some.target.clone()
    y[::2] = (y[::2] + 3) % 10
    recipe = Recipe(15, batch=64)
    a, b = (fit(student, Examples(some.x, t, weight), recipe, seed=0) for t in (some.target, y))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_labels_and_their_one_hot_vectors_are_the_same(digits, student):
    images, parts = digits
    hard = examples_of(images, parts.train[:100])
    soft = Examples(hard.x, torch.nn.functional.one_hot(hard.target, 10).float(), hard.weight)
    a, b = (fit(student, each, Recipe(10, batch=50), seed=0) for each in (hard, soft))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_anchors_outvote_wrong_labels(digits, student):
    images, parts = digits
    x, y = images.x[parts.train[:200]], images.y[parts.train[:200]]
    wrong = Examples(x, (y + 1) % 10, torch.ones(200))
    anchors = examples_of(images, parts.trusted)
    test_x, test_y = images.x[parts.test], images.y[parts.test]

    def accuracy(share):
        theta = fit(student, wrong, Recipe(60, share=share), seed=0, anchors=anchors)
        found = log_probabilities(student, theta, test_x, seen=x).argmax(1)
        return float((found == test_y).float().mean())

    assert accuracy(0.0) < 0.1 < 0.5 < accuracy(0.95)


def test_watch_sees_the_averaged_parameters(digits, student):
    images, parts = digits
    seen = []
    theta = fit(
        student, examples_of(images, parts.train[:100]), Recipe(40, batch=50), seed=0,
        watch=lambda step, average: seen.append((step, average)),
    )  # fmt: skip
    assert [step for step, _ in seen] == [20, 40]
    assert all(torch.equal(theta[name], seen[1][1][name]) for name in theta)


def test_a_training_loss_that_is_not_finite(digits, student):
    images, parts = digits
    with pytest.raises(NonFinite, match=r"The training loss is .* at step \d+. Lower the learning"):
        fit(student, examples_of(images, parts.train[:100]), Recipe(50, lr=1e12), seed=0)


def test_a_running_average_forgets_its_start():
    assert [warmed(0.98, step) for step in (0, 8, 10_000)] == [0.1, 0.5, 0.98]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch": -1}, {"lr": 0.0}, {"momentum": 1.0}, {"average": -0.1},
        {"share": 1.0}, {"weight_decay": -1e-3},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Recipe(**wrong)
