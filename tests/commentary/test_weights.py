"""Example weights: formulas, trusted shares, purity, and hypergradients by central differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import normal, relative_error, slope
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.commentary import (
    CueNetwork,
    ExampleWeights,
    ImageNetwork,
    Lesson,
    LossNetwork,
    Table,
    effective_sample_size,
    taught,
)
from commentaries.commentary.lesson import cross_entropy, judged
from commentaries.errors import BadInput
from commentaries.hypergradient import Unrolled
from commentaries.inner import SGD
from commentaries.networks import cbr
from commentaries.problem import Bilevel
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

SIZE, CLASSES = 12, 3


def teacher():
    """Reads one image channel, three label channels and progress."""
    return nn.Sequential(
        nn.Conv2d(1 + CLASSES + 1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(),
        nn.Linear(16, 1),
    )  # fmt: skip


SCORES = {
    "table": lambda: Table(SIZE),
    "loss": lambda: LossNetwork(5),
    "cue": lambda: CueNetwork(normal({"c": torch.empty(SIZE, 2)}, 8)["c"], 4),
    "image": lambda: ImageNetwork(teacher, classes=CLASSES, progress=True),
}
every_score = pytest.mark.parametrize("name", SCORES)


def batch(rows=slice(None), progress=0.3, seed=0):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE, 1, 4, 4, generator=g)
    y = torch.randint(CLASSES, (SIZE,), generator=g)
    return Batch(x[rows], y[rows], torch.arange(SIZE)[rows], progress, seed)


def losses(rows=slice(None)):
    return torch.linspace(0.1, 3, SIZE)[rows]


def parameters(score, seed=5):
    """φ after something has been learned."""
    return normal(score.init(torch.Generator().manual_seed(0)), seed)


def weights(commentary, phi, batch, losses):
    weight = commentary(phi, batch).weight
    return weight(losses) if callable(weight) and not isinstance(weight, torch.Tensor) else weight


# What holds for every commentary: copy these for one of your own.


@every_score
@pytest.mark.parametrize("normalise", ["sum", "softmax", "none"])
def test_a_commentary_is_pure(name, normalise):
    score = SCORES[name]()
    commentary = ExampleWeights(score, normalise)
    phi, part = parameters(score), batch()
    before = {k: v.clone() for k, v in phi.items()}
    x, y = part.x.clone(), part.y.clone()
    state = torch.get_rng_state()
    first = weights(commentary, phi, part, losses())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert torch.equal(weights(commentary, phi, part, losses()), first)
    assert all(torch.equal(phi[k], before[k]) for k in phi)
    assert torch.equal(part.x, x)
    assert torch.equal(part.y, y)
    lesson = commentary(phi, part)
    assert isinstance(lesson, Lesson)
    assert torch.equal(lesson.x, x)
    assert torch.equal(lesson.target, y)
    assert first.shape == (SIZE,)


@every_score
def test_init_comes_from_the_generator_alone(name):
    score = SCORES[name]()
    state = torch.get_rng_state()
    a, b = (score.init(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not p.requires_grad(a)
    assert all(torch.equal(a[k], v) for k, v in ExampleWeights(score).init(
        torch.Generator().manual_seed(3)).items())  # fmt: skip


@every_score
def test_differentiable_when_phi_requires_grad(name):
    score = SCORES[name]()
    phi = parameters(score)
    assert not weights(ExampleWeights(score), phi, batch(), losses()).requires_grad
    live = p.live(phi)
    w = weights(ExampleWeights(score), live, batch(), losses())
    found = p.gradients((w * torch.arange(SIZE)).sum(), live)
    assert all(torch.isfinite(v).all() for v in found.values())
    assert p.norm(found) > 0


# Formulas.


@every_score
def test_every_weight_is_one_half_before_learning(name):
    score = SCORES[name]()
    phi = score.init(torch.Generator().manual_seed(4))
    raw = ExampleWeights(score).raw(phi, batch(), losses())
    torch.testing.assert_close(raw, torch.full((SIZE,), 0.5), rtol=0, atol=1e-15)
    for normalise, expected in (("sum", 1.0), ("softmax", 1.0), ("none", 0.5)):
        w = weights(ExampleWeights(score, normalise), phi, batch(), losses())
        torch.testing.assert_close(w, torch.full((SIZE,), expected), rtol=1e-14, atol=0)


def test_but_its_derivative_is_not_zero():
    for build in SCORES.values():
        score = build()
        phi = p.live(score.init(torch.Generator().manual_seed(4)))
        w = weights(ExampleWeights(score), phi, batch(), losses())
        assert p.norm(p.gradients((w * torch.arange(SIZE)).sum(), phi)) > 1e-3


def test_normalisations_by_hand():
    phi = {"logits": torch.linspace(-2, 3, SIZE)}
    part = batch(slice(2, 9))
    logits = phi["logits"][2:9]
    found = {
        n: ExampleWeights(Table(SIZE), n)(phi, part).weight for n in ("sum", "softmax", "none")
    }
    sigma = 1 / (1 + (-logits).exp())
    torch.testing.assert_close(found["none"], sigma, rtol=1e-14, atol=0)
    torch.testing.assert_close(found["sum"], sigma * 7 / sigma.sum(), rtol=1e-14, atol=0)
    e = logits.exp()
    torch.testing.assert_close(found["softmax"], e * 7 / e.sum(), rtol=1e-14, atol=0)


@every_score
def test_without_normalisation_no_weight_depends_on_batch_mates(name):
    score = SCORES[name]()
    phi = parameters(score)
    commentary = ExampleWeights(score, "none")
    together = weights(commentary, phi, batch(), losses())
    for i in (0, 5, 11):
        row = slice(i, i + 1)
        alone = weights(commentary, phi, batch(row), losses(row))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=0)
    torch.testing.assert_close(commentary.raw(phi, batch(), losses()), together, rtol=1e-14, atol=0)
    assert float(together.std()) > 1e-3


def test_the_taught_loss_is_the_weighted_mean():
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)))
    theta = student.init(torch.Generator().manual_seed(0))
    phi, part = {"logits": torch.linspace(-2, 3, SIZE)}, batch()
    each = functional.cross_entropy(student(theta, part.x), part.y, reduction="none")
    sigma = torch.sigmoid(phi["logits"])
    inner = taught(student, ExampleWeights(Table(SIZE)))
    expected = (sigma * each).sum() / sigma.sum()
    assert float(inner(theta, phi, part)) == pytest.approx(float(expected), rel=1e-14)
    assert float(judged(student)(theta, phi, part)) == pytest.approx(float(each.mean()), rel=1e-14)

    class Plain:
        def __call__(self, phi, batch):
            return Lesson(batch.x, batch.y)

    assert float(taught(student, Plain())(theta, phi, part)) == pytest.approx(float(each.mean()))
    soft = functional.one_hot(part.y, CLASSES).double()
    torch.testing.assert_close(cross_entropy(student(theta, part.x), soft), each)


# Trusted examples.


@every_score
@pytest.mark.parametrize("normalise", ["sum", "softmax"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_trusted_examples_have_exactly_their_share(name, normalise, share):
    trusted = torch.zeros(SIZE, dtype=torch.bool)
    trusted[[1, 4, 7]] = True
    score = SCORES[name]()
    commentary = ExampleWeights(score, normalise, trusted, share)
    w = weights(commentary, parameters(score), batch(), losses())
    assert float(w.sum()) == pytest.approx(SIZE, rel=1e-13)
    assert float(w[trusted].sum()) == pytest.approx(share * SIZE, rel=1e-13, abs=1e-15)
    assert float(w[trusted].std()) == pytest.approx(0, abs=1e-14)
    # among the others, nothing has changed but the scale
    without = weights(ExampleWeights(score, normalise), parameters(score), batch(), losses())
    ratio = w[~trusted] / without[~trusted]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-12, atol=0)


def test_trusted_examples_without_normalisation():
    trusted = torch.arange(SIZE) < 3
    phi = {"logits": torch.linspace(-2, 3, SIZE)}
    w = ExampleWeights(Table(SIZE), "none", trusted, 0.25)(phi, batch()).weight
    sigma = torch.sigmoid(phi["logits"][3:])
    torch.testing.assert_close(w[:3], torch.full((3,), 0.25 * SIZE / 3))
    torch.testing.assert_close(w[3:], 0.75 * SIZE / 9 * sigma)


@pytest.mark.parametrize("normalise", ["sum", "softmax", "none"])
def test_batches_of_trusted_or_of_none(normalise):
    trusted = torch.arange(SIZE) < 6
    commentary = ExampleWeights(Table(SIZE), normalise, trusted)
    phi = p.live({"logits": torch.linspace(-2, 3, SIZE)})
    all_trusted = commentary(phi, batch(slice(0, 6))).weight
    assert torch.equal(all_trusted, torch.ones(6))
    none_trusted = commentary(phi, batch(slice(6, 12))).weight
    plain = ExampleWeights(Table(SIZE), normalise)(phi, batch(slice(6, 12))).weight
    assert torch.equal(none_trusted, plain)
    mixed = commentary(phi, batch()).weight
    found = p.gradients((mixed * torch.arange(SIZE)).sum(), phi)["logits"]
    assert torch.isfinite(found).all()
    assert not found[:6].any()
    assert found[6:].all()


# Single scores.


def test_an_image_teacher_with_batch_normalisation_is_refused():
    with pytest.raises(BadInput, match="group normalisation"):
        ImageNetwork(cbr(1, channels=1, size=8))
    ImageNetwork(cbr(1, channels=1, size=8, norm="group"))


def test_image_teacher_sees_label_and_progress_and_clamps_it():
    score = SCORES["image"]()
    phi, part = parameters(score), batch()
    logits = score(phi, part)
    other = score(phi, part._replace(y=(part.y + 1) % CLASSES))
    assert float((other - logits).abs().min()) > 1e-4
    later = score(phi, part._replace(progress=0.9))
    assert float((later - logits).abs().min()) > 1e-4
    end = score(phi, part._replace(progress=1.0))
    assert torch.equal(score(phi, part._replace(progress=7.0)), end)
    blind = ImageNetwork(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 1)))
    phi = parameters(blind)
    assert torch.equal(blind(phi, part), blind(phi, part._replace(y=part.y * 0, progress=0.0)))


def test_image_teacher_drops_nothing_out():
    score = ImageNetwork(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.Dropout(0.5), nn.Linear(20, 1))
    )
    phi = parameters(score)
    assert torch.equal(score(phi, batch(seed=1)), score(phi, batch(seed=2)))


def test_image_teacher_refuses_inputs_by_name():
    part = batch()
    with pytest.raises(BadInput, match="dict"):
        SCORES["image"]()({}, part._replace(x={"image": part.x}))


def test_loss_network_by_hand():
    score = LossNetwork(3)
    phi = parameters(score)
    expected = [
        sum(
            float(phi["out.weight"][j])
            * math.tanh(
                float(phi["hidden.weight"][j, 0]) * float(value) + float(phi["hidden.bias"][j])
            )
            for j in range(3)
        )
        + float(phi["out.bias"])
        for value in losses()
    ]
    torch.testing.assert_close(score(phi, batch())(losses()), torch.tensor(expected))
    with pytest.raises(BadInput, match=r"Pass losses of shape \(n,\)\.$"):
        ExampleWeights(score).raw(phi, batch())


def test_cues_are_those_of_the_examples_in_the_batch():
    score = SCORES["cue"]()
    phi = parameters(score)
    order = torch.tensor([7, 2, 2, 0])
    part = batch()
    picked = score(phi, part._replace(index=order))
    torch.testing.assert_close(picked, score(phi, part)[order])


# Hypergradients of the weights.


@every_score
@pytest.mark.parametrize("normalise", ["sum", "softmax", "none"])
def test_hypergradient_against_central_differences(name, normalise):
    student = Student(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    )
    theta = student.init(torch.Generator().manual_seed(0))
    score = SCORES[name]()
    trusted = torch.arange(SIZE) % 4 == 0
    inner = taught(student, ExampleWeights(score, normalise, trusted))
    outer = judged(student)
    batches = [batch(slice(4 * i, 4 * i + 4), progress=i / 2) for i in range(3)]
    phi = parameters(score)
    call = {"inner": batches, "outer": batch()._replace(y=(batch().y + 1) % CLASSES)}
    optimizer = SGD(0.5, momentum=0.5)
    result = Unrolled()(Bilevel(inner, outer), optimizer, theta, phi, **call)

    def end(phi):
        # written out: the weights at the present losses, then ∇_θ with them constant
        at, state = theta, optimizer.init(theta)
        for part in batches:
            leaves = p.live(at)
            each = cross_entropy(student(leaves, part.x), part.y)
            w = weights(ExampleWeights(score, normalise, trusted), phi, part, each.detach())
            gradient = p.gradients((w * each).mean(), leaves)
            at, state = optimizer.update(gradient, at, state)
        return outer(at, phi, call["outer"])

    assert float(result.outer_loss) == pytest.approx(float(end(phi)), rel=1e-13)
    for seed in (1, 2):
        v = normal(phi, seed)
        expected = slope(end, phi, v, 1e-5)
        assert abs(expected) > 1e-6
        assert float(p.dot(result.value, v)) == pytest.approx(expected, rel=1e-5)


def test_meta_weight_net_learns_to_leave_out_wrong_labels():
    # two clean clusters; a third of the training labels are wrong, and their losses are large
    g = torch.Generator().manual_seed(0)
    y = torch.randint(2, (60,), generator=g)
    x = torch.randn(60, 2, generator=g) + 3 * (2 * y[:, None] - 1)
    given_y = torch.where(torch.arange(60) % 3 == 0, 1 - y, y)
    train = Batch(x[:45], given_y[:45], torch.arange(45))
    valid = Batch(x[45:], y[45:], torch.arange(45, 60))
    student = Student(lambda: nn.Linear(2, 2))
    score = LossNetwork(8)
    commentary = ExampleWeights(score)
    problem = Bilevel(taught(student, commentary), judged(student))
    theta, phi = (m.init(torch.Generator().manual_seed(0)) for m in (student, score))
    for _ in range(40):
        result = Unrolled()(problem, SGD(0.2), theta, phi, inner=[train] * 3, outer=valid)
        theta, phi = result.theta, p.add(phi, result.value, -5.0)
    each = cross_entropy(student(theta, train.x), train.y)
    raw = commentary.raw(phi, train, each)
    wrong = train.y != y[:45]
    assert float(raw[~wrong].mean()) > 2 * float(raw[wrong].mean())


# Effective sample size.


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_effective_sample_size_lies_between_one_and_all(values):
    size = float(effective_sample_size(torch.tensor(values, dtype=torch.float64)))
    assert 1 - 1e-12 <= size <= len(values) + 1e-9


def test_effective_sample_size_by_hand():
    assert float(effective_sample_size(torch.full((7,), 0.3))) == pytest.approx(7, rel=1e-14)
    assert float(effective_sample_size(torch.tensor([0.0, 2.0, 0.0]))) == 1.0
    assert float(effective_sample_size(torch.tensor([1.0, 3.0]))) == pytest.approx(16 / 10)
    assert float(effective_sample_size(torch.zeros(3))) == 0.0


# What is refused.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ExampleWeights(Table(3), "mean"), r"'mean'\. Choose one of sum, softmax, none\.$"),
        (lambda: ExampleWeights(Table(3), share=1.0), "share is 1.0"),
        (lambda: ExampleWeights(Table(3), share=-0.1), "share is -0.1"),
        (lambda: ExampleWeights(Table(3), trusted=torch.tensor([0, 2])), "torch.int64"),
        (lambda: Table(0), "size is 0"),
        (lambda: LossNetwork(0), "width is 0"),
        (lambda: CueNetwork(torch.zeros(4)), r"cues has shape \(4,\)"),
        (lambda: CueNetwork(torch.zeros(4, 2), width=-1), "width is -1"),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(BadInput, match=message):
        build()


def test_relative_error_of_float32_weights_is_small():
    phi = {"logits": torch.linspace(-30, 30, SIZE)}
    exact = ExampleWeights(Table(SIZE))(phi, batch()).weight
    rounded = ExampleWeights(Table(SIZE))({"logits": phi["logits"].float()}, batch()).weight
    assert rounded.dtype == torch.float32
    assert relative_error(rounded.double(), exact) < 1e-6
