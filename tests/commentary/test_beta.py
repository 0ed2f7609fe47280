"""Draws from a Beta that follow its mean: distribution, quantiles, every derivative mode."""

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.autograd import forward_ad

from commentaries.commentary.beta import beta

pytestmark = pytest.mark.usefixtures("float64")

SHAPES = [(0.1, 0.1), (0.5, 0.5), (1, 1), (0.1, 1.9), (1, 3), (5, 3), (40, 30), (0.3, 20)]


def logits_and_concentration(a, b, n):
    return torch.full((n,), np.log(a / b)), float(a + b)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_draws_are_those_of_pytorch(a, b):
    logits, concentration = logits_and_concentration(a, b, 500)
    m = torch.sigmoid(logits)
    state = torch.get_rng_state()
    draws = beta(logits, concentration, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    expected = torch.distributions.Beta(concentration * m, concentration * (1 - m)).sample()
    torch.testing.assert_close(draws, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_draws_have_the_distribution(a, b):
    draws = beta(*logits_and_concentration(a, b, 5000), 1).numpy()
    assert stats.kstest(draws, stats.beta(a, b).cdf).pvalue > 1e-3
    mean, variance = a / (a + b), a * b / (a + b) ** 2 / (a + b + 1)
    error = 4 * np.sqrt(variance / len(draws))
    assert draws.mean() == pytest.approx(mean, abs=error)
    assert draws.var() == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_derivative_is_that_of_the_quantile(a, b):
    logits, concentration = logits_and_concentration(a, b, 200)
    logits.requires_grad_()
    draws = beta(logits, concentration, 3)
    (slope,) = torch.autograd.grad(draws.sum(), logits)
    s, found = draws.detach().numpy(), slope.numpy()
    inside = (s > 1e-12) & (s < 1 - 1e-9)
    s, found = s[inside], found[inside]
    assert len(s) > 50

    def distribution(logit):
        m = special.expit(logit)
        return special.betainc(concentration * m, concentration * (1 - m), s)

    center, h = np.log(a / b), 1e-4
    # five points: the error is of order h⁴
    wide = distribution(center + 2 * h) - distribution(center - 2 * h)
    near = distribution(center + h) - distribution(center - h)
    expected = -(8 * near - wide) / (12 * h) / stats.beta(a, b).pdf(s)
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-13)
    assert (found > 0).all()


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 6)])
def test_derivative_is_that_of_the_mean_on_average(a, b):
    logits, concentration = logits_and_concentration(a, b, 20_000)
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(beta(logits, concentration, 0).sum(), logits)
    m = a / (a + b)
    error = 4 * float(slope.std()) / len(slope) ** 0.5
    assert float(slope.mean()) == pytest.approx(m * (1 - m), abs=error)
    assert error < 0.02 * m * (1 - m)


def test_every_mode_has_the_same_first_derivative():
    logits = torch.linspace(-2, 3, 6)
    v = torch.linspace(1, -1, 6)

    def total(at):
        return (beta(at, 1.3, 7) * torch.arange(6)).sum()

    live = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(live), live)
    assert float(expected[1:].min()) > 0
    torch.testing.assert_close(torch.func.grad(total)(logits), expected)
    value, along = torch.func.jvp(total, (logits,), (v,))
    assert float(value) == float(total(logits))
    assert float(along) == pytest.approx(float(expected @ v))
    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(total(forward_ad.make_dual(logits, v))).tangent
    assert float(along) == pytest.approx(float(expected @ v))


def test_a_function_of_draws_and_something_else_may_be_differentiated_twice():
    # ∂²/∂l∂t of Σ s(l)² sin t, reverse over forward and forward over reverse
    logits, t = torch.linspace(-2, 3, 6), torch.tensor(0.4)

    def f(at, t):
        return beta(at, 1.3, 7).square().sum() * t.sin()

    once = torch.func.grad(lambda at: beta(at, 1.3, 7).square().sum())(logits)
    one = torch.ones(())
    over_forward = torch.func.grad(lambda at: torch.func.jvp(lambda t: f(at, t), (t,), (one,))[1])(
        logits
    )
    torch.testing.assert_close(over_forward, once * t.cos())
    _, over_reverse = torch.func.jvp(lambda t: torch.func.grad(f)(logits, t), (t,), (one,))
    torch.testing.assert_close(over_reverse, once * t.cos())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("concentration", [0.02, 2.0, 1e4, 1e9])
def test_extreme_means_stay_finite(concentration, dtype):
    logits = torch.tensor([-700.0, -60, -30, -3, 0, 3, 30, 60, 700], dtype=dtype).repeat(50)
    logits.requires_grad_()
    draws = beta(logits, concentration, 2)
    (slope,) = torch.autograd.grad(draws.sum(), logits)
    assert draws.dtype == slope.dtype == dtype
    assert torch.isfinite(slope).all()
    assert (slope >= 0).all()
    assert ((draws >= 0) & (draws <= 1)).all()
    by_mean = draws.detach().reshape(50, 9).mean(0)
    assert by_mean[:3].max() < 1e-6
    assert by_mean[-3:].min() > 1 - 1e-6
    if concentration == 1e9:
        torch.testing.assert_close(draws, torch.sigmoid(logits), rtol=0, atol=1e-3)
        torch.testing.assert_close(
            slope, torch.sigmoid(logits.detach()) * torch.sigmoid(-logits.detach()), rtol=0,
            atol=1e-3,
        )  # fmt: skip
