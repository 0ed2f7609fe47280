"""Mixing coefficients: standard mixup draw for draw, alignment, purity, and what is refused."""

import pytest
import torch
from oracles import normal
from torch import nn
from torch.nn import functional

from commentaries import MixingCoefficients
from commentaries.commentary import ClassPairs, Lesson, PairNetwork, taught
from commentaries.errors import BadInput
from commentaries.networks import cbr
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

SIZE, CLASSES = 12, 3


def teacher():
    """Reads two images of one channel, two labels of three classes and progress."""
    return nn.Sequential(
        nn.Conv2d(2 + 2 * CLASSES + 1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(),
        nn.Linear(16, 1),
    )  # fmt: skip


SCORES = {
    "ordered": lambda: ClassPairs(CLASSES),
    "symmetric": lambda: ClassPairs(CLASSES, symmetric=True),
    "knots": lambda: ClassPairs(CLASSES, knots=3),
    "network": lambda: PairNetwork(teacher, classes=CLASSES, progress=True),
}
every_score = pytest.mark.parametrize("name", SCORES)
every_draw = pytest.mark.parametrize("concentration", [None, 0.6, 5.0])


def batch(seed=0, progress=0.3):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE, 1, 4, 4, generator=g)
    y = torch.randint(CLASSES, (SIZE,), generator=g)
    return Batch(x, y, torch.arange(SIZE), progress, seed)


def parameters(score, seed=5):
    """φ after something has been learned."""
    return normal(score.init(torch.Generator().manual_seed(0)), seed)


def zeros(classes=CLASSES):
    return {"logits": torch.zeros(1, classes, classes)}


def constant(ratio, low=0.0, high=1.0):
    """φ of a table that is the same ratio everywhere."""
    return {"logits": torch.logit((torch.tensor(ratio) - low) / (high - low)).expand(1, 3, 3)}


def linear_student():
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)))
    return student, student.init(torch.Generator().manual_seed(2))


# What holds for every commentary.


@every_score
@every_draw
def test_a_commentary_is_pure(name, concentration):
    commentary = MixingCoefficients(SCORES[name](), CLASSES, concentration=concentration)
    phi, part = parameters(commentary), batch(seed=4)
    before = {k: v.clone() for k, v in phi.items()}
    x, y = part.x.clone(), part.y.clone()
    state = torch.get_rng_state()
    lesson = commentary(phi, part)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again = commentary(phi, part)
    assert isinstance(lesson, Lesson)
    assert torch.equal(again.x, lesson.x)
    assert torch.equal(again.target, lesson.target)
    assert lesson.weight is None
    assert lesson.penalty is None
    assert torch.equal(part.x, x)
    assert torch.equal(part.y, y)
    assert all(torch.equal(phi[k], before[k]) for k in phi)
    other = commentary(phi, batch(seed=5))
    assert not torch.equal(other.x, lesson.x)


@every_score
def test_init_is_the_scores_own_and_the_ratio_starts_in_the_middle(name):
    score = SCORES[name]()
    commentary = MixingCoefficients(score, CLASSES)
    phi = commentary.init(torch.Generator().manual_seed(3))
    own = score.init(torch.Generator().manual_seed(3))
    assert all(torch.equal(phi[k], own[k]) for k in own)
    assert torch.equal(commentary.ratios(phi, batch()), torch.full((SIZE,), 0.75))
    assert torch.equal(commentary.means(phi, batch()), torch.full((SIZE,), 0.75))


# Ratios.


@every_score
@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0.0, 1.0), (0.2, 0.9)])
def test_ratios_by_hand(name, low, high):
    score = SCORES[name]()
    phi, part = parameters(score), batch(seed=3)
    point = MixingCoefficients(score, CLASSES, low=low, high=high)
    logits = score(phi, part, point.partners(part))
    expected = low + (high - low) / (1 + (-logits).exp())
    torch.testing.assert_close(point.ratios(phi, part), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(point.means(phi, part), expected, rtol=1e-14, atol=0)
    drawn = MixingCoefficients(score, CLASSES, low=low, high=high, concentration=2.0)
    torch.testing.assert_close(drawn.means(phi, part), expected, rtol=1e-14, atol=0)
    ratios = drawn.ratios(phi, part)
    assert float((ratios - expected).abs().min()) > 1e-6
    assert low <= float(ratios.min()) <= float(ratios.max()) <= high


def test_the_papers_parametrisation():
    raw = torch.linspace(-3, 3, CLASSES**2).reshape(1, CLASSES, CLASSES)
    part = batch(seed=3)
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    partner = commentary.partners(part)
    expected = 1 - 0.5 * torch.sigmoid(raw[0, part.y, part.y[partner]])
    torch.testing.assert_close(commentary.ratios({"logits": -raw}, part), expected)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 1.0)])
def test_draws_have_mean_and_variance_of_the_beta(low, high):
    n, kappa = 40_000, 3.0
    part = Batch(torch.zeros(n, 1), torch.arange(n) % 2, torch.arange(n), seed=8)
    phi = {"logits": torch.tensor([[[-1.0, 0.3], [2.0, 0.0]]])}
    commentary = MixingCoefficients(
        ClassPairs(2), 2, low=low, high=high, concentration=kappa
    )  # fmt: skip
    ratios, partner = commentary.ratios(phi, part), commentary.partners(part)
    for a in (0, 1):
        for b in (0, 1):
            m = float(torch.sigmoid(phi["logits"][0, a, b]))
            mine = ratios[(part.y == a) & (part.y[partner] == b)]
            variance = m * (1 - m) / (kappa + 1) * (high - low) ** 2
            error = 4 * (variance / len(mine)) ** 0.5
            assert float(mine.mean()) == pytest.approx(low + (high - low) * m, abs=error)
            assert float(mine.var()) == pytest.approx(variance, rel=0.06)


def test_a_large_concentration_draws_the_mean():
    score = ClassPairs(CLASSES)
    phi, part = parameters(score), batch()
    drawn = MixingCoefficients(score, CLASSES, concentration=1e10)
    torch.testing.assert_close(drawn.ratios(phi, part), drawn.means(phi, part), rtol=0, atol=1e-4)


# Standard mixup and fixed ratios, written independently.


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 2.5])
def test_a_constant_beta_is_standard_mixup_draw_for_draw(alpha):
    student, theta = linear_student()
    part = batch(seed=21)
    commentary = MixingCoefficients(
        ClassPairs(CLASSES), CLASSES, low=0, high=1, concentration=2 * alpha
    )
    generator = torch.Generator().manual_seed(21)
    order = torch.randperm(SIZE, generator=generator)
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    share = torch.distributions.Beta(alpha, alpha).sample((SIZE,))

    lesson = commentary(zeros(), part)
    torch.testing.assert_close(commentary.ratios(zeros(), part), share, rtol=1e-14, atol=1e-16)
    wide = share[:, None, None, None]
    mixed = wide * part.x + (1 - wide) * part.x[order]
    torch.testing.assert_close(lesson.x, mixed, rtol=1e-13, atol=1e-14)
    z = student(theta, mixed)
    first = functional.cross_entropy(z, part.y, reduction="none")
    second = functional.cross_entropy(z, part.y[order], reduction="none")
    expected = (share * first + (1 - share) * second).mean()
    assert float(taught(student, commentary)(theta, zeros(), part)) == pytest.approx(
        float(expected), rel=1e-13
    )


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.5, 1.0)])
def test_a_constant_ratio_is_fixed_ratio_mixing(low, high):
    student, theta = linear_student()
    part = batch(seed=6)
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES, low=low, high=high)
    order = commentary.partners(part)
    mixed = 0.7 * part.x + 0.3 * part.x[order]
    phi = constant(0.7, low, high)
    torch.testing.assert_close(commentary(phi, part).x, mixed, rtol=1e-13, atol=1e-14)
    z = student(theta, mixed)
    expected = 0.7 * functional.cross_entropy(z, part.y) + 0.3 * functional.cross_entropy(
        z, part.y[order]
    )
    assert float(taught(student, commentary)(theta, phi, part)) == pytest.approx(
        float(expected), rel=1e-13
    )


def test_a_ratio_of_one_mixes_nothing():
    part = batch()
    phi = {"logits": torch.full((1, CLASSES, CLASSES), 800.0)}
    lesson = MixingCoefficients(ClassPairs(CLASSES), CLASSES)(phi, part)
    assert torch.equal(lesson.x, part.x)
    assert torch.equal(lesson.target, torch.eye(CLASSES)[part.y])


# Pairs.


def test_partners_come_from_the_seed_alone():
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    part = batch(seed=7)
    partner = commentary.partners(part)
    assert partner.dtype == torch.int64
    assert torch.equal(partner.sort().values, torch.arange(SIZE))
    expected = torch.randperm(SIZE, generator=torch.Generator().manual_seed(7))
    assert torch.equal(partner, expected)
    drawn = MixingCoefficients(SCORES["network"](), CLASSES, concentration=0.4)
    changed = part._replace(x=part.x.float(), y=part.y.flip(0), progress=0.9)
    assert torch.equal(drawn.partners(changed), partner)
    assert not torch.equal(commentary.partners(batch(seed=8)), partner)


@every_score
@every_draw
def test_images_labels_and_ratios_stay_aligned(name, concentration):
    # each image says its label in one row and its position in another
    part = batch(seed=11)
    x = torch.zeros(SIZE, 1, 4, 4)
    x[:, 0, 0, :CLASSES] = torch.eye(CLASSES)[part.y]
    x[:, 0, 1, 0] = part.index.to(x)
    part = part._replace(x=x)
    commentary = MixingCoefficients(SCORES[name](), CLASSES, concentration=concentration)
    phi = parameters(commentary)
    lesson = commentary(phi, part)
    partner, ratios = commentary.partners(part), commentary.ratios(phi, part)
    torch.testing.assert_close(lesson.x[:, 0, 0, :CLASSES], lesson.target, rtol=1e-14, atol=1e-15)
    for i in range(SIZE):
        share, other = float(ratios[i]), int(partner[i])
        assert float(lesson.x[i, 0, 1, 0]) == pytest.approx(share * i + (1 - share) * other)
        expected = [0.0] * CLASSES
        expected[int(part.y[i])] += share
        expected[int(part.y[other])] += 1 - share
        assert lesson.target[i].tolist() == pytest.approx(expected, abs=1e-14)
    assert float(ratios.std()) > 1e-2


@every_score
@every_draw
def test_rows_are_mixed_among_themselves(name, concentration):
    commentary = MixingCoefficients(SCORES[name](), CLASSES, concentration=concentration)
    phi, part = parameters(commentary), batch(seed=2)
    rows = part.rows(slice(3, 8))
    lesson = commentary(phi, rows)
    alone = Batch(part.x[3:8], part.y[3:8], part.index[3:8], part.progress, part.seed)
    assert torch.equal(lesson.x, commentary(phi, alone).x)
    assert lesson.x.shape == (5, 1, 4, 4)
    assert lesson.target.shape == (5, CLASSES)
    assert torch.equal(commentary.partners(rows).sort().values, torch.arange(5))
    ratios, partner = commentary.ratios(phi, rows), commentary.partners(rows)
    torch.testing.assert_close(
        lesson.x[:, 0, 0, 0],
        ratios * rows.x[:, 0, 0, 0] + (1 - ratios) * rows.x[partner, 0, 0, 0],
    )
    one = commentary(phi, part.rows(slice(4, 5)))
    torch.testing.assert_close(one.x, part.x[4:5])


@every_score
@every_draw
def test_one_hot_labels_are_the_labels(name, concentration):
    commentary = MixingCoefficients(SCORES[name](), CLASSES, concentration=concentration)
    phi, part = parameters(commentary), batch(seed=2)
    soft = part._replace(y=torch.eye(CLASSES)[part.y])
    hard, same = commentary(phi, part), commentary(phi, soft)
    torch.testing.assert_close(same.x, hard.x, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(same.target, hard.target, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(hard.target.sum(1), torch.ones(SIZE))


def test_soft_labels_are_mixed():
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    part = batch(seed=2)
    y = torch.rand(SIZE, CLASSES, generator=torch.Generator().manual_seed(2)).softmax(1)
    lesson = commentary(constant(0.8, 0.5, 1.0), part._replace(y=y))
    expected = 0.8 * y + 0.2 * y[commentary.partners(part)]
    torch.testing.assert_close(lesson.target, expected)


# Kinds of inputs.


def test_floating_inputs_of_a_dict_are_mixed():
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    part = batch(seed=2)
    x = {"image": part.x, "extra": part.x[:, 0, 0], "kind": torch.arange(SIZE)}
    phi, named = constant(0.8, 0.5, 1.0), part._replace(x=x)
    lesson, partner = commentary(phi, named), commentary.partners(part)
    for name in ("image", "extra"):
        expected = 0.8 * x[name] + 0.2 * x[name][partner]
        torch.testing.assert_close(lesson.x[name], expected)
    assert torch.equal(lesson.x["kind"], x["kind"])
    assert list(lesson.x) == list(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@every_draw
def test_inputs_keep_their_dtype(dtype, concentration):
    torch.set_default_dtype(torch.float32)
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES, concentration=concentration)
    part = batch()
    lesson = commentary(zeros(), part._replace(x=part.x.to(dtype)))
    assert lesson.x.dtype == dtype
    assert lesson.target.dtype == torch.float32
    short = part._replace(y=part.y.to(torch.int32))
    assert torch.equal(commentary(zeros(), short).target, lesson.target)


def test_a_student_learns_from_what_is_mixed():
    torch.set_default_dtype(torch.float32)
    student = Student(cbr(CLASSES, channels=1, size=4))
    theta = student.init(torch.Generator().manual_seed(0))
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES, concentration=1.0)
    loss = taught(student, commentary)(theta, zeros(), batch())
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


# What is refused.


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 0.5), (0.5, 0.5), (-0.1, 1.0), (0.5, 1.1), (float("nan"), 1.0)]
)
def test_ranges_out_of_order_are_refused(low, high):
    with pytest.raises(BadInput, match=rf"low = {low} to high = {high}.*Choose 0.5 and 1"):
        MixingCoefficients(ClassPairs(CLASSES), CLASSES, low=low, high=high)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_concentrations_that_are_not_positive_are_refused(value):
    with pytest.raises(BadInput, match=rf"concentration is {value}.*Choose concentration > 0"):
        MixingCoefficients(ClassPairs(CLASSES), CLASSES, concentration=value)


def test_a_concentration_beyond_double_precision_is_refused():
    with pytest.raises(BadInput, match=r"concentration is 0.001, .*Choose at least 0.02"):
        MixingCoefficients(ClassPairs(CLASSES), CLASSES, concentration=0.001)


def test_numbers_of_classes_that_disagree_are_refused():
    with pytest.raises(BadInput, match=r"table is for 4 classes, but classes is 3\. Give both"):
        MixingCoefficients(ClassPairs(4), 3)
    commentary = MixingCoefficients(ClassPairs(2), 2)
    with pytest.raises(BadInput, match=r"run from 0 to 2, but .* 2 classes"):
        commentary(zeros(2), batch())
    with pytest.raises(BadInput, match=r"soft labels are of 3 classes, but .* 2 classes"):
        commentary(zeros(2), batch()._replace(y=torch.eye(CLASSES)[batch().y]))
    blind = MixingCoefficients(PairNetwork(lambda: cbr(1, channels=2, size=4, norm="group")), 2)
    phi = blind.init(torch.Generator())
    with pytest.raises(BadInput, match=r"run from 0 to 2, but .* 2 classes"):
        blind(phi, batch())
    with pytest.raises(BadInput, match="classes is 0"):
        MixingCoefficients(ClassPairs(2), 0)


def test_inputs_that_cannot_be_mixed_are_refused():
    commentary = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    part = batch()
    bytes_ = part._replace(x=torch.zeros(SIZE, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(BadInput, match=r"x: torch.uint8.*Scale images to floats"):
        commentary(zeros(), bytes_)
    with pytest.raises(BadInput, match=r"words: torch.int64"):
        commentary(zeros(), part._replace(x={"words": part.y}))
    network = MixingCoefficients(SCORES["network"](), CLASSES)
    with pytest.raises(BadInput, match="dict"):
        network(parameters(network), part._replace(x={"image": part.x}))
    with pytest.raises(BadInput, match="3 channels of the images"):
        network(parameters(network), part._replace(x=part.x.expand(-1, 3, -1, -1)))
