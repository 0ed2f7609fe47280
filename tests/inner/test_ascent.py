"""Directions of ascent: lengths, products with the gradient, derivatives, and what zero does."""

import math

import pytest
import torch
from elsewhere import DEVICE, Elsewhere
from oracles import flat, numeric_jacobian, relative_error, shaped

from commentaries import params as p
from commentaries import tree
from commentaries.errors import BadInput
from commentaries.inner import Adaptive, Momentum, Random, Steepest

NORMS = [1.05, 1.5, 2, 2.0, 3.0, 10.0, 1e4, math.inf]


def draw(seed: int, dtype=torch.float64) -> dict[str, torch.Tensor]:
    """A matrix, a vector and a scalar; one entry of the vector is zero."""
    g = torch.Generator().manual_seed(seed)
    a = {
        "w": torch.randn(4, 3, generator=g, dtype=dtype),
        "b": torch.randn(5, generator=g, dtype=dtype),
        "s": torch.randn((), generator=g, dtype=dtype),
    }
    a["b"][1] = 0
    return a


def steepest(norm: float, g: dict) -> dict:
    return Steepest(norm).direction(g, g, Steepest(norm).init(g))


def adaptive(g: dict, theta: dict, **options) -> dict:
    ascent = Adaptive(**options)
    return ascent.direction(g, theta, ascent.init(theta))


def dual(norm: float) -> float:
    return 1.0 if math.isinf(norm) else norm / (norm - 1)


def length(vector: torch.Tensor, norm: float) -> float:
    """‖vector‖ in units of its largest entry, so that no power underflows."""
    largest = float(vector.abs().max())
    return largest * float(torch.linalg.vector_norm(vector / largest, norm))


# The steepest direction.


@pytest.mark.parametrize("exponent", [-1060, -1000, -100, 0, 100, 1000])
@pytest.mark.parametrize("norm", NORMS)
def test_length_and_product_with_the_gradient(norm, exponent):
    # Powers of two, so that scaling is exact; the smallest gradients are subnormal.
    if norm == 2 and abs(exponent) > 100:
        exponent = exponent // 3  # whose square is held
    g = p.scale(draw(1), 2.0**exponent)
    direction = flat(steepest(norm, g))
    unit = flat(g) * 2.0 ** (-exponent // 2) * 2.0 ** (-exponent - (-exponent // 2))
    assert length(direction, norm) == pytest.approx(1, rel=1e-12)
    assert float(direction @ unit) == pytest.approx(length(unit, dual(norm)), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30, 1e38])
@pytest.mark.parametrize("norm", NORMS)
def test_float32_gradients_of_any_size(norm, scale):
    scale = scale**0.3 if norm == 2 else scale  # whose square is held
    g = p.scale(draw(1, torch.float32), scale)
    direction = steepest(norm, g)
    assert {v.dtype for v in direction.values()} == {torch.float32}
    unit = flat(g).double() / scale
    direction = flat(direction).double()
    assert length(direction, norm) == pytest.approx(1, rel=1e-5)
    assert float(direction @ unit) == pytest.approx(length(unit, dual(norm)), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_gradient_whose_square_is_not_held_points_nowhere(scale):
    assert not flat(steepest(2.0, p.scale(draw(1, torch.float32), scale))).any()


@pytest.mark.parametrize("norm", NORMS)
def test_no_other_direction_of_that_length_gains_more(norm):
    g = draw(2)
    best, gradient = flat(steepest(norm, g)), flat(g)
    gain = float(best @ gradient)
    generator = torch.Generator().manual_seed(0)
    for spread in (0.01, 0.3, 100.0):  # near the maximiser, and anywhere
        for _ in range(100):
            noise = torch.randn(len(best), generator=generator, dtype=torch.float64)
            other = best + spread * noise
            other = other / length(other, norm)
            assert float(other @ gradient) < gain
    if norm not in (2, math.inf):  # the control: the gradient itself is not the best
        assert float(gradient @ gradient) / length(gradient, norm) < 0.999 * gain


def test_by_hand():
    g = {"a": torch.tensor([3.0], dtype=torch.float64), "b": torch.tensor([0.0, -4.0]).double()}
    # p = 2: g / 5; p = 3: q = 3/2, and |g|^½ over the cube root of 3^(3/2) + 4^(3/2)
    cube = (3**1.5 + 4**1.5) ** (1 / 3)
    expected = {2.0: [0.6, 0, -0.8], 3.0: [3**0.5 / cube, 0, -2 / cube], math.inf: [1, 0, -1]}
    for norm, values in expected.items():
        by_hand = torch.tensor(values, dtype=torch.float64)
        torch.testing.assert_close(flat(steepest(norm, g)), by_hand, rtol=1e-14, atol=0)


@pytest.mark.parametrize("norm", [1.5, 2.0, 3.0])
def test_the_norm_is_over_all_parameters_together(norm):
    g = draw(3)
    together = steepest(norm, g)
    apart = {name: steepest(norm, {name: value})[name] for name, value in g.items()}
    assert relative_error(together, apart) > 0.1
    in_one = steepest(norm, {"all": flat(g)})["all"]
    torch.testing.assert_close(flat(together), in_one, rtol=1e-13, atol=0)


# ASAM.


def test_adaptive_by_hand():
    g = {"a": torch.tensor([3.0, -1.0]).double(), "b": torch.tensor([2.0]).double()}
    theta = {"a": torch.tensor([-1.0, 0.0]).double(), "b": torch.tensor([4.0]).double()}
    # T = |θ| + ½ = 3/2, 1/2, 9/2; T g = 9/2, -1/2, 9; T² g = 27/4, -1/4, 81/2
    norm = math.sqrt(4.5**2 + 0.5**2 + 9**2)
    by_hand = torch.tensor([6.75, -0.25, 40.5], dtype=torch.float64) / norm
    found = flat(adaptive(g, theta, eta=0.5))
    torch.testing.assert_close(found, by_hand, rtol=1e-14, atol=0)
    # with T = 1 for b: T g = 9/2, -1/2, 2
    norm = math.sqrt(4.5**2 + 0.5**2 + 2**2)
    by_hand = torch.tensor([6.75, -0.25, 2.0], dtype=torch.float64) / norm
    found = flat(adaptive(g, theta, eta=0.5, only=lambda name: name == "a"))
    torch.testing.assert_close(found, by_hand, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [2.0**-400, 1.0, 2.0**400])
def test_adaptive_has_length_one_and_the_greatest_product_after_scaling_back(scale):
    g, theta = draw(1), draw(2)
    T = flat(theta).abs() + 0.01
    direction = flat(adaptive(p.scale(g, scale), theta, eta=0.01))
    assert float((direction / T).norm()) == pytest.approx(1, rel=1e-12)
    gain = float(direction @ flat(g))
    assert gain == pytest.approx(float((T * flat(g)).norm()), rel=1e-12)  # ρ ‖T g‖
    generator = torch.Generator().manual_seed(0)
    for spread in (0.01, 100.0):
        for _ in range(100):
            noise = torch.randn(len(T), generator=generator, dtype=torch.float64)
            other = direction / T + spread * noise
            assert float((T * other / other.norm()) @ flat(g)) < gain


def test_adaptive_with_nothing_to_adapt_is_the_steepest():
    g, theta = draw(1), draw(2)
    none = adaptive(g, theta, only=lambda name: False)
    assert relative_error(none, steepest(2.0, g)) < 1e-15
    assert relative_error(adaptive(g, theta), steepest(2.0, g)) > 0.1
    zeros = adaptive(g, theta, eta=0.0)
    assert zeros["b"][1] == 0
    assert torch.equal(adaptive(g, p.zeros_like(theta), eta=0.0)["w"], torch.zeros(4, 3).double())


# Random directions, and the momentum's.


def test_random_directions():
    theta, ascent = draw(1), Random(seed=3)
    before = torch.get_rng_state()
    state, seen = ascent.init(theta), []
    for _ in range(4):
        direction = ascent.direction({}, theta, state)
        assert float(p.norm(direction)) == pytest.approx(1, rel=1e-12)
        assert {k: v.shape for k, v in direction.items()} == {k: v.shape for k, v in theta.items()}
        again = Random(seed=3).direction(draw(5), p.scale(theta, 7.0), state)
        assert torch.equal(flat(again), flat(direction))  # it looks at the step and nothing else
        seen.append(flat(direction))
        state = ascent.observe(theta, state)
    assert int(state.step) == 4
    other = flat(Random(seed=4).direction({}, theta, ascent.init(theta)))
    for i, a in enumerate([*seen, other]):
        for b in [*seen, other][:i]:
            assert abs(float(a @ b)) < 0.9
    assert torch.equal(torch.get_rng_state(), before)


def test_random_directions_cover_the_sphere_evenly():
    # 4000 draws of 6 entries: mean 0 ± 1/√(6 · 4000), second moments I/6 ± about 1/√(18 · 4000)
    theta = {"a": torch.zeros(2, 2, dtype=torch.float64), "b": torch.zeros(2, dtype=torch.float64)}
    ascent = Random()
    state, rows = ascent.init(theta), []
    for _ in range(4000):
        rows.append(flat(ascent.direction({}, theta, state)))
        state = ascent.observe(theta, state)
    draws = torch.stack(rows)
    assert draws.mean(0).abs().max() < 5 / math.sqrt(6 * 4000)
    moments = draws.T @ draws / 4000
    assert (moments - torch.eye(6, dtype=torch.float64) / 6).abs().max() < 5 / math.sqrt(18 * 4000)


def test_random_directions_are_the_same_on_every_device():
    theta, ascent = draw(1), Random(seed=3)
    near = ascent.direction({}, theta, ascent.init(theta))
    with Elsewhere():
        far = {k: v.to(DEVICE) for k, v in theta.items()}
        found = ascent.direction({}, far, ascent.init(far))
        assert {v.device.type for v in found.values()} == {DEVICE.type}
        found = {k: v.to("cpu") for k, v in found.items()}
    assert torch.equal(flat(found), flat(near))


def test_the_momentums_direction_by_hand():
    theta, ascent = draw(1), Momentum(decay=0.5)
    state = ascent.init(theta)
    assert not flat(ascent.direction({}, theta, state)).any()
    first, second = draw(2), draw(3)
    state = ascent.observe(second, ascent.observe(first, state))
    v = 0.5 * flat(first) + flat(second)
    found = flat(ascent.direction({}, theta, state))
    torch.testing.assert_close(found, -v / v.norm(), rtol=1e-13, atol=1e-16)


# What holds for every direction.

DIRECTIONS = {f"p={norm}": Steepest(norm) for norm in (1.5, 2.0, 3.0, 10.0, math.inf)}
DIRECTIONS |= {"adaptive": Adaptive(), "adaptive, some": Adaptive(0.0, only=lambda k: k == "w")}
DIRECTIONS |= {"random": Random(), "momentum": Momentum()}
every_direction = pytest.mark.parametrize("ascent", DIRECTIONS.values(), ids=DIRECTIONS.keys())


def through(ascent, theta: dict):
    """The direction as a function of one gradient, which the state has seen as well."""

    def direction(g: dict, theta: dict = theta) -> dict:
        return ascent.direction(g, theta, ascent.observe(g, ascent.init(theta)))

    return direction


def nowhere_zero(seed: int) -> dict:
    return {k: v + 0.1 * (v == 0) for k, v in draw(seed).items()}


@every_direction
def test_derivatives_are_those_of_central_differences(ascent):
    g, theta = nowhere_zero(1), nowhere_zero(2)
    direction = through(ascent, theta)
    for function, at in ((direction, g), (lambda theta: direction(g, theta), theta)):
        (found,) = torch.autograd.functional.jacobian(
            lambda vector, function=function, at=at: (flat(function(shaped(vector, at))),), flat(at)
        )
        expected = numeric_jacobian(function, at, 1e-6)
        assert float((found - expected).norm()) < 1e-8 * max(1.0, float(expected.norm()))
    moves_with_g = not isinstance(ascent, Random) and getattr(ascent, "p", 2) < math.inf
    assert bool(numeric_jacobian(direction, g, 1e-6).any()) == moves_with_g


@every_direction
def test_second_derivatives(ascent):
    if isinstance(ascent, Random) or getattr(ascent, "p", 2) == math.inf:
        pytest.skip("its first derivative is zero")
    g, theta = nowhere_zero(1), nowhere_zero(2)

    def bends(vector, of_theta):
        a = shaped(vector, theta)
        return flat(ascent.direction(a, shaped(of_theta, theta), ascent.observe(a, state)))

    state = ascent.init(theta)
    inputs = [flat(a).clone().requires_grad_() for a in (g, theta)]
    assert torch.autograd.gradgradcheck(bends, inputs)


@every_direction
def test_small_gradients_have_the_derivative_of_their_direction(ascent):
    g, theta = nowhere_zero(1), nowhere_zero(2)
    direction = through(ascent, theta)

    def jacobian(scale):
        return torch.func.jacrev(lambda v: flat(direction(shaped(scale * v, g))))(flat(g))

    torch.testing.assert_close(jacobian(2.0**-300), jacobian(1.0), rtol=1e-12, atol=1e-14)


@every_direction
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_gives_zero_and_every_derivative_is_finite(ascent, dtype):
    theta = draw(2, dtype)
    direction = through(ascent, theta)
    zero = p.live(p.zeros_like(theta))
    found = direction(zero)
    if not isinstance(ascent, Random):
        assert not flat(found).any()
        first = p.gradients(list(found.values()), zero, [*theta.values()], create_graph=True)
        assert not flat(p.detach(first)).any()  # nothing says whither, so nothing says how
    some = {k: v.requires_grad_() for k, v in draw(1, dtype).items()}  # one of its entries is zero
    alive = {**p.live(theta), **{f"g.{k}": v for k, v in some.items()}}
    found = direction(some, {k: alive[k] for k in theta})
    if any(v.requires_grad for v in found.values()):
        first = p.gradients(list(found.values()), alive, [*theta.values()])
        assert all(bool(torch.isfinite(v).all()) for v in first.values())


@every_direction
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(ascent, value):
    if isinstance(ascent, Random):
        pytest.skip("looks at no gradient")
    g = draw(1)
    g["b"][2] = value
    assert not p.is_finite(through(ascent, draw(2))(g))


@every_direction
def test_pure(ascent):
    g, theta = draw(1), draw(2)
    state = ascent.observe(g, ascent.init(theta))
    before = [leaf.clone() for leaf in tree.leaves([g, theta, state])]
    first, second = (ascent.direction(g, theta, state) for _ in range(2))
    ascent.observe(draw(3), state)
    assert torch.equal(flat(first), flat(second))
    for a, b in zip(tree.leaves([g, theta, state]), before, strict=True):
        assert torch.equal(a, b)
    assert list(first) == list(theta)


@every_direction
def test_under_vmap(ascent):
    if isinstance(ascent, Random):
        pytest.skip("draws on the CPU: the same direction for all would need saying so")
    gs, thetas = [draw(i) for i in range(3)], [draw(10 + i) for i in range(3)]
    stacked = [{k: torch.stack([a[k] for a in many]) for k in many[0]} for many in (gs, thetas)]

    def direction(g, theta):
        return through(ascent, theta)(g)

    found = torch.func.vmap(direction)(*stacked)
    for i in range(3):
        one = direction(gs[i], thetas[i])
        assert relative_error({k: v[i] for k, v in found.items()}, one) < 1e-14


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Steepest(1.0), r"^p is 1\.0, .* Choose 2, or math\.inf for signs\.$"),
        (lambda: Steepest(0.5), r"^p is 0\.5"),
        (lambda: Steepest(0), r"^p is 0"),
        (lambda: Steepest(-math.inf), r"^p is -inf"),
        (lambda: Steepest(math.nan), r"^p is nan"),
        (lambda: Adaptive(-0.1), r"^eta is -0\.1"),
        (lambda: Adaptive(math.nan), r"^eta is nan"),
        (lambda: Adaptive(math.inf), r"^eta is inf"),
        (lambda: Momentum(1.0), r"^decay is 1\.0"),
        (lambda: Momentum(-0.1), r"^decay is -0\.1"),
    ],
)
def test_options_out_of_range_are_refused(build, message):
    with pytest.raises(BadInput, match=message):
        build()
