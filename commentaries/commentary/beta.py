"""Draws from a Beta distribution that follow its mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Gamma
from torch.nn.functional import logsigmoid

from ..student import seeded

LEAST_CONCENTRATION = 0.02
"""Below it double precision cannot tell most draws from 0 and from 1."""

NODES = 80
"""Of the quadrature, whose error is then near rounding unless κm or κ(1 - m) is below 0.1."""


def beta(logits: Tensor, concentration: float, seed: int) -> Tensor:
    """One draw s from Beta(κm, κ(1 - m)) for each mean m = sigmoid(logit), κ the concentration.

    With κ = 2α and logits 0 this is Beta(α, α), drawn as `torch.distributions.Beta` draws in
    double precision after ``torch.manual_seed(seed)``.

    The derivative of a draw is that of the quantile it stands at, ds/dm = -(∂F/∂m) / p(s) with F
    the distribution function and p the density (implicit reparametrisation, Figurnov, Mohamed and
    Mnih 2018, equation 5). The draw and its derivative are found without a graph and attached as
    constants, so that first derivatives are right in every mode of PyTorch (``Beta.rsample``
    raises inside `torch.func` transforms, and its derivative is off by up to 1e-3). Second
    derivatives with respect to the logits are not those of the quantile.

    Args:
        logits: (n,).
        concentration: κ, at least `LEAST_CONCENTRATION`: the variance is m(1 - m) / (κ + 1).
        seed: Of the draws, on the logits' device; the global random state does not move.

    Returns:
        (n,) draws in [0, 1], of the logits' dtype.
    """
    center = logits.detach()
    wide = center.double()
    # 1 - sigmoid would lose the digits of small shapes; a shape of zero has no distribution
    a = (concentration * torch.sigmoid(wide)).clamp_min(1e-12)
    b = (concentration * torch.sigmoid(-wide)).clamp_min(1e-12)
    both = torch.stack([a, b], dim=-1)
    with seeded(seed, logits.device):
        gamma = Gamma(both, torch.ones_like(both), validate_args=False).sample()
    draw = gamma[..., 0] / gamma.sum(-1)
    v = gamma[..., 0].log() - gamma[..., 1].log()  # logit of the draw
    slope = draw * torch.sigmoid(-v) * logit_slope(a, b, v)  # ds = s (1 - s) dv
    return draw.to(logits.dtype) + slope.to(logits.dtype) * (logits - center)


def logit_slope(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """dv/dl at a fixed quantile: how the logit v of a draw follows the logit l of the mean.

    The density of v is e^h(v) / B(a, b) with h(v) = a log σ(v) + b log σ(-v), and
    ∂ log density / ∂l = (ab / κ)(v - μ) with κ = a + b and μ = E[v] = ψ(a) - ψ(b), so that

        dv/dl = (ab / κ) ∫_v^∞ (t - μ) e^(h(t) - h(v)) dt,

    which is also minus the integral from -∞ to v. Of the two that one is taken whose integrand
    falls from v on. Double exponential quadrature (Takahasi and Mori 1974) for the half line.

    Args:
        a: (n,) first shapes, κm.
        b: (n,) second shapes, κ(1 - m).
        v: (n,) logits of the draws.

    Returns:
        (n,), positive up to rounding.
    """
    total, s, rest = a + b, torch.sigmoid(v), torch.sigmoid(-v)
    rise = a * rest - b * s  # h'(v)
    left = rise > 0  # below the mode of v
    side = torch.where(left, -1.0, 1.0).to(v)
    # The integrand falls by 1/e over about this length: by its slope and curvature at v, but
    # never faster than it falls far out
    near = 2 / (rise.abs() + (rise.square() + 2 * total * s * rest).sqrt())
    length = torch.maximum(near, 1 / torch.where(left, a, b))
    y = torch.linspace(-3.8, 5.0, NODES, dtype=v.dtype, device=v.device)
    w = length[:, None] * (y - (-y).exp()).exp()  # 0 to ∞
    dw = w * (1 + (-y).exp()) * (8.8 / (NODES - 1))
    t = v[:, None] + side[:, None] * w
    h = a[:, None] * logsigmoid(t) + b[:, None] * logsigmoid(-t)
    at_v = a * logsigmoid(v) + b * logsigmoid(-v)
    mean = torch.digamma(a) - torch.digamma(b)
    integral = (dw * (t - mean[:, None]) * (h - at_v[:, None]).exp()).sum(1)
    return a * b / total * side * integral
