"""Masks: closed forms, penalties, and hypergradients by central differences."""

import math

import pytest
import torch
from oracles import flat, moved, normal, relative_error, shaped, slope
from torch import nn
from torch.nn import functional

from commentaries import AttentionMasks
from commentaries import params as p
from commentaries.commentary import GaussianWindow, Lesson, UNetMask, judged, taught
from commentaries.commentary.masks import relative_entropy
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.errors import BadInput
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD, Adam
from commentaries.networks import unet
from commentaries.problem import Bilevel
from commentaries.solvers import ConjugateGradient, Dense, Neumann
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

SIZE, CLASSES, CHANNELS, HEIGHT, WIDTH = 9, 3, 2, 6, 7
PIXELS = HEIGHT * WIDTH


def network():
    return unet(channels=CHANNELS, width=2, depth=2)


class LogitMap(nn.Module):
    """The image's first channel, times a number."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def reset_parameters(self):
        nn.init.ones_(self.scale)

    def forward(self, x):
        return self.scale * x[:, :1]


class Given:
    """Masks that depend on nothing."""

    def __init__(self, mask):
        self.mask = mask

    def init(self, generator):
        return {"unused": torch.zeros(1)}

    def __call__(self, phi, batch):
        return self.mask.expand(batch.size, 1, HEIGHT, WIDTH)


MASKS = {
    "unet": lambda: UNetMask(network),
    "open": lambda: UNetMask(network, initial=0.9),
    "window": lambda: GaussianWindow(network, deviation=0.3),
    "fixed window": lambda: GaussianWindow(network, deviation=0.3, learned=False),
}
every_mask = pytest.mark.parametrize("name", MASKS)


def batch(rows=slice(None), seed=0, shift=0):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE, CHANNELS, HEIGHT, WIDTH, generator=g)
    y = (torch.randint(CLASSES, (SIZE,), generator=g) + shift) % CLASSES
    return Batch(x[rows], y[rows], torch.arange(SIZE)[rows], 0.3, seed)


def parameters(mask, seed=5):
    """φ after something has been learned: neither masks nor windows are saturated."""
    initial = mask.init(torch.Generator().manual_seed(0))
    return p.add(initial, normal(initial, seed), 0.3)


def perceptron():
    return Student(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(CHANNELS * PIXELS, 4), nn.Tanh(), nn.Linear(4, CLASSES)
        )
    )


def normalised():
    """Smooth, with batch normalisation after a convolution and on a vector."""
    return Student(
        lambda: nn.Sequential(
            nn.Conv2d(CHANNELS, 3, 3, stride=2), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(),
            nn.Linear(18, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, CLASSES),
        )
    )  # fmt: skip


# What holds for every mask: copy these for one of your own.


@every_mask
def test_a_mask_is_pure_and_in_range(name):
    masks = AttentionMasks(MASKS[name](), background=0.2, area=0.1, entropy=0.1)
    phi, part = parameters(masks), batch()
    before, x, y = {k: v.clone() for k, v in phi.items()}, part.x.clone(), part.y.clone()
    state = torch.get_rng_state()
    lesson = masks(phi, part)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again = masks(phi, part._replace(seed=7, progress=0.9, y=(part.y + 1) % CLASSES))
    assert isinstance(lesson, Lesson)
    assert torch.equal(again.x, lesson.x)
    assert torch.equal(again.penalty, lesson.penalty)
    assert all(torch.equal(phi[k], before[k]) for k in phi)
    assert torch.equal(part.x, x)
    assert torch.equal(lesson.target, y)
    assert lesson.weight is None
    seen = masks.masks(phi, part)
    assert seen.shape == (SIZE, 1, HEIGHT, WIDTH)
    assert bool((seen >= 0.2).all() and (seen <= 1).all())
    assert float(seen.std()) > 1e-2
    assert torch.equal(lesson.x, part.x * seen)


@every_mask
def test_no_mask_depends_on_the_rest_of_the_batch(name):
    masks = AttentionMasks(MASKS[name]())
    phi = parameters(masks)
    together = masks.masks(phi, batch())
    for i in (0, 4, 8):
        alone = masks.masks(phi, batch(slice(i, i + 1)))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-11, atol=1e-13)


@every_mask
def test_init_comes_from_the_generator_alone(name):
    mask = MASKS[name]()
    state = torch.get_rng_state()
    a, b = (each.init(torch.Generator().manual_seed(3)) for each in (mask, AttentionMasks(mask)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not p.requires_grad(a)


@every_mask
def test_only_the_last_layer_is_zero_at_first(name):
    phi = MASKS[name]().init(torch.Generator().manual_seed(3))
    own = Student(network).init(torch.Generator().manual_seed(3))
    for key, value in own.items():
        expected = torch.zeros_like(value) if key.startswith("last.") else value
        assert torch.equal(phi[key], expected)
    assert set(phi) - set(own) == ({"log_deviation"} if name == "window" else set())


@pytest.mark.parametrize("kind", [UNetMask, GaussianWindow])
def test_a_teacher_drops_nothing_out(kind):
    mask = kind(lambda: nn.Sequential(nn.Dropout(0.5), nn.Conv2d(CHANNELS, 1, 3, padding=1)))
    phi = parameters(mask)
    assert torch.equal(mask(phi, batch(seed=1)), mask(phi, batch(seed=2)))


@every_mask
def test_nothing_is_saturated_before_learning(name):
    mask = MASKS[name]()
    phi = p.live(mask.init(torch.Generator().manual_seed(3)))
    first = mask(phi, batch())
    assert torch.equal(first, first[:1].expand_as(first))
    found = p.gradients((first * torch.randn(first.shape)).mean(), phi)
    assert p.norm(found) > 1e-3
    assert not mask(p.detach(phi), batch()).requires_grad


# Closed forms


@pytest.mark.parametrize("initial", [0.01, 0.5, 0.9])
def test_a_network_mask_starts_at_its_initial_level(initial):
    mask = UNetMask(network, initial=initial)
    first = mask(mask.init(torch.Generator().manual_seed(0)), batch())
    torch.testing.assert_close(first, torch.full_like(first, initial), rtol=1e-14, atol=0)


def test_a_network_mask_is_the_sigmoid_of_the_network():
    mask = UNetMask(LogitMap, initial=0.75)
    logits = 2.0 * batch().x[:, :1] + math.log(3)
    expected = 1 / (1 + (-logits).exp())
    torch.testing.assert_close(mask({"scale": torch.tensor(2.0)}, batch()), expected)


def peaks(*pixels, height=50.0):
    """Images of one example whose logit map is high at some pixels."""
    x = torch.zeros(1, CHANNELS, HEIGHT, WIDTH)
    for row, column in pixels:
        x[0, 0, row, column] = height
    return x


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(1, 5)], (1, 5)),
        ([(0, 0)], (0, 0)),
        ([(5, 6), (1, 2)], (3, 4)),
        ([], ((HEIGHT - 1) / 2, (WIDTH - 1) / 2)),
    ],
)
def test_a_window_is_where_the_logits_are(pixels, expected):
    window = GaussianWindow(LogitMap, deviation=0.25, learned=False)
    x = peaks(*pixels)
    centre = window.centre({"scale": torch.tensor(1.0)}, x)
    torch.testing.assert_close(centre, torch.tensor([expected]).double(), rtol=0, atol=1e-12)
    mask = window({"scale": torch.tensor(1.0)}, batch(slice(1))._replace(x=x))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            d2 = (row - expected[0]) ** 2 + (column - expected[1]) ** 2
            by_hand = math.exp(-d2 / (2 * (0.25 * HEIGHT) ** 2))
            assert float(mask[0, 0, row, column]) == pytest.approx(by_hand, rel=1e-10)


def test_an_expected_place_by_hand():
    window = GaussianWindow(LogitMap)
    x = batch().x
    share = (3.0 * x[:, 0]).exp()
    share = share / share.sum((1, 2), keepdim=True)
    rows = (share.sum(2) * torch.arange(HEIGHT)).sum(1)
    columns = (share.sum(1) * torch.arange(WIDTH)).sum(1)
    phi = {"scale": torch.tensor(3.0), "log_deviation": torch.tensor(0.0)}
    torch.testing.assert_close(window.centre(phi, x), torch.stack([rows, columns], 1))


@pytest.mark.parametrize("shape", [(6, 7), (7, 6)])
def test_the_spread_of_a_window(shape):
    """A window far from the border is a sampled Gaussian: Σ d² w / Σ w = 2 σ²."""
    size = (shape[0] * 10, shape[1] * 10)
    x = torch.zeros(1, 1, *size)
    window = GaussianWindow(LogitMap, deviation=0.05)
    phi = window.init(torch.Generator().manual_seed(0))
    assert float(phi["log_deviation"]) == pytest.approx(math.log(0.05))
    for factor in (1.0, 1.6):
        learned = {**phi, "log_deviation": phi["log_deviation"] + math.log(factor)}
        mask = window(learned, Batch(x, torch.zeros(1), torch.arange(1)))[0, 0]
        rows, columns = torch.meshgrid(
            torch.arange(size[0]) - (size[0] - 1) / 2,
            torch.arange(size[1]) - (size[1] - 1) / 2,
            indexing="ij",
        )
        sigma = factor * 0.05 * 60
        spread = ((rows**2 + columns**2) * mask).sum() / mask.sum()
        assert float(spread) == pytest.approx(2 * sigma**2, rel=1e-6)
        assert float(mask.sum()) == pytest.approx(2 * math.pi * sigma**2, rel=1e-6)


# Ones and background


@pytest.mark.parametrize("background", [0.0, 0.1, 0.7])
def test_masks_of_ones_are_no_masks(background):
    """To the last bit: the losses, ∇_θ, and the student after three steps."""
    student = perceptron()
    theta, part = student.init(torch.Generator().manual_seed(0)), batch()
    plain, after = judged(student), theta
    for _ in range(3):
        live = p.live(after)
        after = p.add(after, p.gradients(plain(live, {}, part), live), -0.3)
    saturated = UNetMask(network)
    phi = saturated.init(torch.Generator().manual_seed(0))
    phi = {**phi, "last.bias": phi["last.bias"] + 60.0}
    for mask, at in ((Given(torch.ones(1)), {"unused": torch.zeros(1)}), (saturated, phi)):
        masks = AttentionMasks(mask, background)
        assert torch.equal(masks.masks(at, part), torch.ones(SIZE, 1, HEIGHT, WIDTH))
        assert torch.equal(masks(at, part).x, part.x)
        assert masks(at, part).penalty is None
        problem = Bilevel(taught(student, masks), judged(student, commentary=masks))
        for masked in (problem.inner, problem.outer):
            live = p.live(theta)
            assert torch.equal(masked(live, at, part), plain(live, {}, part))
            a, b = (p.gradients(each(live, at, part), live) for each in (masked, plain))
            assert all(torch.equal(a[k], b[k]) for k in a)
        result = Unrolled()(problem, SGD(0.3), theta, at, inner=[part] * 3, outer=part)
        assert relative_error(result.theta, after) < 1e-14
        assert float(result.outer_loss) == pytest.approx(float(plain(after, {}, part)), rel=1e-14)


@pytest.mark.parametrize("background", [0.0, 0.1, 0.3, 0.7])
def test_outside_a_mask_is_exactly_the_background(background):
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[..., 2:4, 1:5] = 1
    masks, part = AttentionMasks(Given(mask), background), batch()
    x = masks({}, part).x
    inside = mask.bool().expand_as(part.x)
    assert torch.equal(x[inside], part.x[inside])
    assert torch.equal(x[~inside], background * part.x[~inside])
    half = AttentionMasks(Given(torch.tensor(0.5)), background).masks({}, part)
    torch.testing.assert_close(half, torch.full_like(half, 0.5 + 0.5 * background))


# Penalties


def penalty_by_hand(mask, area, entropy):
    total = 0.0
    for each in mask:
        share = each.flatten() / each.sum()
        bits = -(share * share.log()).sum() / math.log(each.numel())
        total = total + area * each.mean() + entropy * bits
    return total / len(mask)


@every_mask
@pytest.mark.parametrize(("area", "entropy"), [(0.3, 0.0), (0.0, 0.4), (0.3, 0.4)])
def test_penalties_are_of_the_mask_and_paid_by_the_outer_loss(name, area, entropy):
    student = perceptron()
    theta, part = student.init(torch.Generator().manual_seed(0)), batch()
    masks = AttentionMasks(MASKS[name](), 0.2, area, entropy)
    phi = parameters(masks)
    expected = penalty_by_hand(masks.mask(phi, part), area, entropy)
    torch.testing.assert_close(masks(phi, part).penalty, expected, rtol=1e-12, atol=0)
    free = AttentionMasks(masks.mask, 0.2)
    paid, unpaid = (judged(student, commentary=each)(theta, phi, part) for each in (masks, free))
    assert float(paid - unpaid) == pytest.approx(float(expected), rel=1e-10)
    assert torch.equal(*(taught(student, each)(theta, phi, part) for each in (masks, free)))
    assert torch.equal(judged(student)(theta, phi, part), judged(student)(theta, {}, part))


@pytest.mark.parametrize("level", [1.0, 0.5, 1e-3])
def test_area_and_entropy_of_a_flat_mask(level):
    masks = AttentionMasks(Given(torch.tensor(level)), area=1.0)
    assert float(masks({}, batch()).penalty) == pytest.approx(level)
    flat_mask = torch.full((2, 1, HEIGHT, WIDTH), level)
    torch.testing.assert_close(relative_entropy(flat_mask), torch.ones(2), rtol=1e-14, atol=0)


def test_entropy_by_hand():
    mask = torch.zeros(4, 1, HEIGHT, WIDTH)
    mask[0, 0, 2, 3] = 0.7  # one pixel
    mask[1, 0, 2, :4] = 0.2  # four equal ones
    mask[2, 0, 0, 0], mask[2, 0, 5, 6] = 0.3, 0.1
    two = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    mask[3] = 0  # nothing at all
    expected = [0.0, math.log(4) / math.log(PIXELS), two / math.log(PIXELS), 1.0]
    torch.testing.assert_close(relative_entropy(mask), torch.tensor(expected), atol=1e-14, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e4, -120.0, -30.0, 0.0, 1e4])
def test_entropy_has_finite_derivatives_everywhere(dtype, logit):
    """Also where a sigmoid or a window has vanished: one pixel, all of them, or none."""
    for other in (logit, 0.0, 1e4):
        logits = torch.full((1, 1, 4, 4), logit, dtype=dtype)
        logits[..., 2, 1] = other
        logits.requires_grad_()
        (found,) = torch.autograd.grad(relative_entropy(logits.sigmoid()).sum(), logits)
        assert bool(torch.isfinite(found).all())
    assert float(relative_entropy(torch.ones(1, 1, 1, 1, dtype=dtype))) == 0


def test_the_entropy_penalty_has_the_derivative_of_the_formula():
    def entropy(at):
        return relative_entropy(at["logits"].sigmoid()).sum()

    at = normal({"logits": torch.zeros(2, 1, 3, 4)}, 0)
    live, v = p.live(at), normal(at, 1)
    found = p.dot(p.gradients(entropy(live), live), v)
    assert float(found) == pytest.approx(slope(entropy, at, v, 1e-5), rel=1e-8)


def test_penalties_move_masks_as_they_say():
    """Nothing but a penalty: area closes the mask, entropy narrows the window."""
    for mask, weights, measure in (
        (UNetMask(network), {"area": 1.0}, lambda m: m.mean()),
        (GaussianWindow(network), {"entropy": 1.0}, lambda m: relative_entropy(m).mean()),
    ):
        masks = AttentionMasks(mask, **weights)
        phi = masks.init(torch.Generator().manual_seed(0))
        first = float(measure(masks.masks(phi, batch())))
        for _ in range(60):
            live = p.live(phi)
            phi = p.add(phi, p.gradients(masks(live, batch()).penalty, live), -1.0)
        assert float(measure(masks.masks(phi, batch()))) < 0.7 * first


# Hypergradients


BACKGROUND, AREA, ENTROPY = 0.2, 0.3, 0.4


def shown(mask, phi, x):
    """The images through masks, written out."""
    m = mask(phi, Batch(x, torch.zeros(len(x)), torch.arange(len(x))))
    return x * (BACKGROUND + (1 - BACKGROUND) * m), penalty_by_hand(m, AREA, ENTROPY)


def outer_losses(student, mask, kind):
    """The library's outer loss, and the same written out."""
    masks = AttentionMasks(mask, BACKGROUND, AREA, ENTROPY)
    plain = judged(student)

    def by_hand(theta, phi, part):
        x, penalty = shown(mask, phi, part.x)
        z = student(theta, x if kind == "masked" else part.x, seed=part.seed)
        loss = functional.cross_entropy(z, part.y)
        return loss if kind == "plain" else loss + penalty

    return {
        "masked": judged(student, commentary=masks),
        "plain": plain,
        "plain with penalty": lambda t, f, b: plain(t, f, b) + masks(f, b).penalty,
    }[kind], by_hand


every_outer = pytest.mark.parametrize("outer", ["masked", "plain", "plain with penalty"])


def trained(student, mask, optimizer, theta, phi, batches):
    """The student after ordinary training on masked images, without the library's hypergradient."""
    state = optimizer.init(theta)
    for part in batches:
        leaves = p.live(theta)
        x, _ = shown(mask, p.detach(phi), part.x)
        loss = functional.cross_entropy(student(leaves, x, seed=part.seed), part.y)
        theta, state = optimizer.update(p.gradients(loss, leaves), p.detach(leaves), state)
    return theta


@every_mask
@every_outer
@pytest.mark.parametrize("optimizer", [SGD(0.5, momentum=0.5), Adam(0.05)], ids=["sgd", "adam"])
def test_unrolled_against_central_differences(name, outer, optimizer):
    student, mask = perceptron(), MASKS[name]()
    theta = student.init(torch.Generator().manual_seed(0))
    phi = parameters(mask)
    ours, by_hand = outer_losses(student, mask, outer)
    masks = AttentionMasks(mask, BACKGROUND, AREA, ENTROPY)
    batches = [batch(slice(3 * i, 3 * i + 3), seed=i) for i in range(3)] + [batch(seed=3)]
    judge = batch(seed=4, shift=1)
    problem = Bilevel(taught(student, masks), ours)
    result = Unrolled()(problem, optimizer, theta, phi, inner=batches, outer=judge)

    def end(phi):
        return by_hand(trained(student, mask, optimizer, theta, phi, batches), phi, judge)

    assert float(result.outer_loss) == pytest.approx(float(end(phi)), rel=1e-12)
    for seed in (1, 2):
        v = normal(phi, seed)
        expected = slope(end, phi, v, 1e-5)
        assert abs(expected) > 1e-5
        assert float(p.dot(result.value, v)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("outer", ["masked", "plain"])
def test_the_deviation_has_its_own_derivative(outer):
    student, mask = perceptron(), MASKS["window"]()
    theta, phi = student.init(torch.Generator().manual_seed(0)), parameters(mask)
    ours, by_hand = outer_losses(student, mask, outer)
    problem = Bilevel(taught(student, AttentionMasks(mask, BACKGROUND, AREA, ENTROPY)), ours)
    optimizer, batches = SGD(0.5), [batch()] * 3
    result = Unrolled()(problem, optimizer, theta, phi, inner=batches, outer=batch(shift=1))

    def end(log_deviation):
        at = {**phi, **log_deviation}
        return by_hand(trained(student, mask, optimizer, theta, at, batches), at, batch(shift=1))

    at = {"log_deviation": phi["log_deviation"]}
    expected = slope(end, at, {"log_deviation": torch.ones(())}, 1e-5)
    assert abs(expected) > 1e-4
    assert float(result.value["log_deviation"]) == pytest.approx(expected, rel=1e-6)


DECAY = 0.1


def optimum(mask, phi, part):
    """θ*(φ) of softmax regression on masked images with weight decay, by Newton's method."""
    x, _ = shown(mask, phi, part.x)
    x = x.flatten(1).detach()
    like = {"1.weight": torch.zeros(CLASSES, CHANNELS * PIXELS), "1.bias": torch.zeros(CLASSES)}

    def loss(vector):
        theta = shaped(vector, like)
        z = x @ theta["1.weight"].mT + theta["1.bias"]
        return functional.cross_entropy(z, part.y) + DECAY / 2 * vector.square().sum()

    vector = flat(like)
    for _ in range(12):
        gradient, H = torch.func.grad(loss)(vector), torch.func.hessian(loss)(vector)
        vector = vector - torch.linalg.solve(H, gradient)
    assert torch.func.grad(loss)(vector).norm() < 1e-13
    return shaped(vector, like)


@pytest.mark.parametrize("name", ["unet", "window"])
@every_outer
def test_implicit_against_solving_again(name, outer):
    """A convex student at its optimum, and the optima of nearby φ."""
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * PIXELS, CLASSES)))
    mask, part, judge = MASKS[name](), batch(), batch(slice(2, 8), seed=4, shift=1)
    phi = parameters(mask)
    ours, by_hand = outer_losses(student, mask, outer)
    masks = AttentionMasks(mask, BACKGROUND, AREA, ENTROPY)
    problem = Bilevel(taught(student, masks), ours)
    theta = optimum(mask, phi, part)
    expected = {
        seed: slope(
            lambda at: by_hand(optimum(mask, at, part), at, judge), phi, normal(phi, seed), 1e-4
        )
        for seed in (1, 2)
    }
    for solver, curvature in (
        (Dense(), Hessian()),
        (ConjugateGradient(300, 1e-11), Hessian()),
        (ConjugateGradient(300, 1e-11), GaussNewton()),  # a linear student: the same matrix
    ):
        result = Implicit(solver, curvature)(
            problem, SGD(0.1, weight_decay=DECAY), theta, phi, inner=[part], outer=judge
        )
        assert float(result.diagnostics["stationarity"]) < 1e-12
        assert result.diagnostics["converged"]
        for seed, slope_there in expected.items():
            found = float(p.dot(result.value, normal(phi, seed)))
            assert abs(slope_there) > 1e-5
            assert found == pytest.approx(slope_there, rel=1e-5)


@pytest.mark.parametrize("name", ["unet", "window"])
@pytest.mark.parametrize("outer", ["masked", "plain"])
def test_masks_and_batch_normalisation(name, outer):
    """Its second derivatives depend on φ through the images, where kernels of its own are wrong."""
    student, mask = normalised(), MASKS[name]()
    theta, phi = student.init(torch.Generator().manual_seed(0)), parameters(mask)
    ours, by_hand = outer_losses(student, mask, outer)
    problem = Bilevel(taught(student, AttentionMasks(mask, BACKGROUND, AREA, ENTROPY)), ours)
    optimizer, judge = SGD(0.3, momentum=0.5), batch(slice(1, 7), seed=4, shift=1)
    batches = [batch(slice(0, 5), seed=0), batch(slice(3, 9), seed=1), batch(seed=2)]
    call = {"inner": batches, "outer": judge}
    exact, differenced = (
        Unrolled(curvature)(problem, optimizer, theta, phi, **call).value
        for curvature in (Hessian(), FiniteDifference(1e-4))
    )
    assert relative_error(differenced, exact) < 1e-5

    def end(phi):
        return by_hand(trained(student, mask, optimizer, theta, phi, batches), phi, judge)

    for seed in (1, 2):
        v = normal(phi, seed)
        expected = slope(end, phi, v, 1e-5)
        assert abs(expected) > 1e-4
        assert float(p.dot(exact, v)) == pytest.approx(expected, rel=1e-5)
    exact, differenced = (
        Implicit(Neumann(3, 0.1), curvature)(problem, optimizer, theta, phi, **call).value
        for curvature in (Hessian(), FiniteDifference(1e-4))
    )
    assert relative_error(differenced, exact) < 1e-5


def test_the_mixed_derivative_of_a_normalised_student():
    """∂F/∂φ alone, against central differences of ∇_θ L."""
    student, mask = normalised(), MASKS["unet"]()
    theta, phi = student.init(torch.Generator().manual_seed(0)), parameters(mask)
    inner = taught(student, AttentionMasks(mask, BACKGROUND))
    v, w = normal(theta, 1), normal(phi, 2)

    def gradient(phi):
        leaves = p.live(theta)
        return p.gradients(inner(leaves, phi, batch()), leaves)

    live, leaves = p.live(phi), p.live(theta)
    F, _ = Hessian()(inner, live, batch())(leaves)
    found = p.dot(p.pull_back(F, v, live), w)
    expected = p.dot(v, p.subtract(gradient(moved(phi, w, 1e-5)), gradient(moved(phi, w, -1e-5))))
    assert float(found) == pytest.approx(float(expected) / 2e-5, rel=1e-6)


def test_masks_find_what_tells_the_classes_apart():
    """The label is in the left half, noise in the right: the mask learns to look left."""
    g = torch.Generator().manual_seed(0)

    def draw(n):
        y = torch.arange(n) % 2
        x = torch.randn(n, 1, 8, 8, generator=g)
        x[:, :, 2:6, 0:3] += (2.0 * y - 1)[:, None, None, None]
        return Batch(x, y, torch.arange(n))

    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    masks = AttentionMasks(UNetMask(lambda: unet(channels=1, width=4, depth=2)), area=0.05)
    problem = Bilevel(taught(student, masks), judged(student, commentary=masks))
    theta, phi = (each.init(torch.Generator().manual_seed(1)) for each in (student, masks))
    optimizer, state = Adam(0.02), None
    moments = Adam(0.02).init(phi)
    for _ in range(60):
        result = Implicit(Neumann(3, 0.1))(
            problem, optimizer, theta, phi, inner=[draw(20)], outer=draw(80), state=state
        )
        theta, state = result.theta, result.state
        phi, moments = Adam(0.02).update(result.value, phi, moments)
    seen = masks.masks(phi, draw(40)).mean((0, 1))
    assert float(seen[2:6, 0:3].mean()) > 1.5 * float(seen[:, 4:].mean())


# Refusals


def part_of(x):
    return Batch(x, torch.zeros(2, dtype=torch.int64), torch.arange(2))


@pytest.mark.parametrize("kind", [UNetMask, GaussianWindow])
@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (lambda: unet(channels=1), (2, 1, 7, 7), "at least 8 x 8 pixels.*lower depth"),
        (lambda: unet(channels=3), (2, 1, 8, 8), r"\(n, 3, h, w\).*\(2, 1, 8, 8\)"),
        (lambda: unet(2, channels=1), (2, 1, 8, 8), r"are \(2, 2, 8, 8\)\. Use a net"),
        (lambda: nn.Conv2d(1, 1, 3), (2, 1, 8, 8), r"\(2, 1, 8, 8\).*\(2, 1, 6, 6\)"),
        (lambda: unet(channels=1), "dict", r"dict of \['image'\]\. W"),
    ],
)
def test_images_that_do_not_fit(kind, module, shape, message):
    x = torch.zeros(shape) if isinstance(shape, tuple) else {"image": torch.zeros(2, 1, 8, 8)}
    masks = AttentionMasks(kind(module))
    phi = masks.init(torch.Generator().manual_seed(0))
    with pytest.raises(BadInput, match=message):
        masks.mask(phi, part_of(x))
    with pytest.raises(BadInput, match=message):
        masks(phi, part_of(x))


def test_a_mask_of_ones_own_of_another_shape():
    class Flat(Given):
        def __call__(self, phi, batch):
            return torch.ones(batch.size, HEIGHT, WIDTH)

    with pytest.raises(BadInput, match=r"needs one number for each pixel, \(9, 1, 6, 7\)"):
        AttentionMasks(Flat(None)).masks({}, batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: AttentionMasks(m, 1.0), "background is 1.0, but must be at least 0 and below 1"),
        (lambda m: AttentionMasks(m, -0.1), "background is -0.1"),
        (lambda m: AttentionMasks(m, float("nan")), "background is nan"),
        (lambda m: AttentionMasks(m, area=-1), r"area is -1, .*Use 0 for none\."),
        (lambda m: AttentionMasks(m, entropy=float("inf")), "entropy is inf"),
        (lambda m: UNetMask(network, initial=1.0), r"initial is 1.0, .*Choose for example 0.5"),
        (lambda m: UNetMask(network, initial=0.0), "initial is 0.0"),
        (lambda m: GaussianWindow(network, deviation=0.0), "deviation is 0.0"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(BadInput, match=message):
        make(MASKS["unet"]())


@pytest.mark.parametrize("kind", [UNetMask, GaussianWindow])
def test_a_teacher_with_batch_normalisation_is_refused(kind):
    with pytest.raises(BadInput, match="Use group normalisation in it"):
        kind(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3)))
