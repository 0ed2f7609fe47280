"""Meta-gradients: closed forms, central differences, one path against another."""

import pytest
import tasks
import torch
from oracles import flat, normal, relative_error, shaped, slope
from torch import nn
from torch.func import functional_call

from commentaries import ExampleWeights, Student
from commentaries.commentary.scores import ImageNetwork, LossNetwork
from commentaries.curvature import GaussNewton
from commentaries.errors import BadInput, NonFinite
from commentaries.fewshot import MAML, Episode, part, stacked
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SAM, SGD, Adam
from commentaries.solvers import ConjugateGradient, Dense
from commentaries.types import Batch

OPTIONS = {
    "plain": {},
    "first order": {"first_order": True},
    "rates": {"learn_rates": True},
    "commentary": {"commentary": tasks.commentary()},
    "everything": {
        "commentary": tasks.commentary(normalise="none"),
        "learn_rates": True,
        "statistics": "support",
        "proximal": 0.4,
    },
    "first order, everything": {
        "commentary": tasks.commentary(),
        "learn_rates": True,
        "first_order": True,
    },
    "recomputed": {"hypergradient": Unrolled(every=1), "learn_rates": True, "proximal": 0.2},
    "momentum": {"optimizer": SGD(0.2, momentum=0.5, weight_decay=0.1)},
    "adam": {"optimizer": Adam(0.05, eps=0.1), "statistics": "support"},
}
EXACT = {name: options for name, options in OPTIONS.items() if not options.get("first_order")}
"""A first-order gradient is not that of the loss."""

every_exact_option = pytest.mark.parametrize("options", EXACT.values(), ids=EXACT.keys())
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def squares(z, y):
    return (z - y).square().sum(-1)


def regression(seed, n=7, m=5):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    support = Batch(draw(n, 3), draw(n, 1), torch.arange(n))
    return Episode(
        support, Batch(draw(m, 3), draw(m, 1), torch.arange(m)), support.y, torch.arange(1)
    )


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("first_order", [False, True])
def test_one_step_of_linear_regression(first_order, batched):
    student = Student(lambda: nn.Linear(3, 1, bias=False).double())
    model = MAML(
        student, SGD(0.1), steps=1, criterion=squares, first_order=first_order, learn_rates=True
    )
    phi = tasks.drawn(model)
    rate = phi["rate.weight"]
    start, expected, of_rate = phi["start.weight"], 0, 0
    episodes = [regression(seed) for seed in range(3)]
    for support, query, *_ in episodes:
        H = 2 * support.x.T @ support.x / 7
        gradient = 2 * (start @ support.x.T - support.y.T) @ support.x / 7
        adapted = start - rate * gradient
        bar = 2 * (adapted @ query.x.T - query.y.T) @ query.x / 5
        through = bar if first_order else bar @ (torch.eye(3, dtype=torch.float64) - rate * H)
        expected = expected + through / 3
        of_rate = of_rate - (bar * gradient).sum() / 3
    found = model.meta_gradient(phi, episodes, batched=batched).value
    assert relative_error(found["start.weight"], expected) < 1e-14
    assert relative_error(found["rate.weight"], of_rate.reshape(1)) < 1e-14


@every_exact_option
@pytest.mark.parametrize("batched", [False, True])
def test_central_differences(options, batched):
    model = tasks.maml(**options)
    phi = tasks.drawn(model)
    some = [tasks.episodes(wrong=0.3)(number) for number in range(2)]
    result = model.meta_gradient(phi, some, batched=batched)
    loss = tasks.query_loss(model, some)
    assert abs(float(result.outer_loss - loss(phi))) < 1e-14
    for prefix in ("start.", "rate.", "teacher."):
        if not part(phi, prefix):
            continue
        along = {k: v * k.startswith(prefix) for k, v in normal(phi, 4).items()}
        numeric = slope(loss, phi, along, 1e-5)
        exact = float(flat(result.value) @ flat(along))
        assert exact == pytest.approx(numeric, rel=3e-6, abs=1e-9)
        assert abs(numeric) > 1e-6


@every_option
def test_all_at_once_equals_one_after_another(options):
    model = tasks.maml(**options)
    phi = tasks.drawn(model)
    some = [tasks.episodes(wrong=0.3)(number) for number in range(3)]
    loop = model.meta_gradient(phi, some, batched=False)
    at_once = model.meta_gradient(phi, some, batched=True)
    assert loop.value.keys() == phi.keys()
    for name in phi:
        if float(loop.value[name].norm()) > 1e-12:
            assert relative_error(at_once.value[name], loop.value[name]) < 1e-12, name
    assert torch.allclose(at_once.outer_loss, loop.outer_loss, rtol=1e-14)


def test_all_at_once_in_float32():
    model = tasks.maml(torch.float32, commentary=tasks.commentary(torch.float32), learn_rates=True)
    phi = tasks.drawn(model, torch.float32)
    some = [tasks.episodes(torch.float32)(number) for number in range(3)]
    loop = model.meta_gradient(phi, some, batched=False).value
    at_once = model.meta_gradient(phi, some, batched=True).value
    assert relative_error(at_once, loop) < 1e-6


def by_hand(episode, start, rates, first_order):
    """Meta-gradient of initialisation and rates by native modules and `torch.autograd` alone."""
    module = tasks.build().train()
    start = {k: v.clone().requires_grad_() for k, v in start.items()}
    rates = {k: v.clone().requires_grad_() for k, v in rates.items()}

    def loss(theta, batch):
        z = functional_call(module, theta, (batch.x,))
        return nn.functional.cross_entropy(z, batch.y)

    theta = start
    for step in range(3):
        gradient = torch.autograd.grad(
            loss(theta, episode.support), list(theta.values()), create_graph=not first_order
        )
        theta = {
            k: v - rates[k][step] * g for (k, v), g in zip(theta.items(), gradient, strict=True)
        }
    outer = loss(theta, episode.query)
    leaves = {f"start.{k}": v for k, v in start.items()} | {
        f"rate.{k}": v for k, v in rates.items()
    }
    return dict(zip(leaves, torch.autograd.grad(outer, list(leaves.values())), strict=True))


@pytest.mark.parametrize("first_order", [False, True])
def test_a_loop_by_hand(first_order):
    model = tasks.maml(learn_rates=True, first_order=first_order)
    phi = tasks.drawn(model)
    episode = tasks.episodes()(0)
    found = model.meta_gradient(phi, [episode]).value
    expected = by_hand(episode, part(phi, "start."), part(phi, "rate."), first_order)
    assert relative_error(found, {k: expected[k] for k in found}) < 1e-12
    other = by_hand(episode, part(phi, "start."), part(phi, "rate."), not first_order)
    assert relative_error(found, {k: other[k] for k in found}) > 1e-2


def test_the_first_order_weights_keep_their_gradient():
    model = tasks.maml(commentary=tasks.commentary(), first_order=True, steps=1)
    phi = tasks.drawn(model)
    some = [tasks.episodes()(0)]
    # After one step from a given start no second derivative stands between weights and loss.
    second = tasks.maml(commentary=tasks.commentary(), steps=1).meta_gradient(phi, some).value
    found = model.meta_gradient(phi, some).value
    assert relative_error(part(found, "teacher."), part(second, "teacher.")) < 1e-12
    assert relative_error(part(found, "start."), part(second, "start.")) > 1e-2


def implicit(solver, **options):
    options = {"proximal": 2.0, "steps": 40, "optimizer": SGD(0.2)} | options
    return tasks.maml(hypergradient=Implicit(solver), **options)


@pytest.mark.parametrize("solver", [Dense(), ConjugateGradient(200, 1e-12)])
def test_implicit_maml_against_a_dense_solve(solver):
    model = implicit(solver)
    phi = tasks.drawn(model)
    episode = tasks.episodes()(0)
    *_, theta = model.adapt(phi, episode)
    task = model.task(episode)

    def native(vector, batch):
        weights = list(shaped(vector, theta).values())
        z = nn.functional.linear(batch.x, weights[0], weights[1])
        z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
        z = torch.tanh(weights[2] * z + weights[3])
        z = nn.functional.linear(z, weights[4], weights[5])
        return nn.functional.cross_entropy(z, batch.y)

    autograd = torch.autograd.functional
    H = autograd.hessian(lambda vector: native(vector, episode.support), flat(theta))
    b = autograd.jacobian(lambda vector: native(vector, episode.query), flat(theta))
    assert torch.allclose(native(flat(theta), episode.query), task.outer(theta, {}, episode.query))
    expected = 2 * torch.linalg.solve(H + 2 * torch.eye(len(H), dtype=H.dtype), b)
    result = model.meta_gradient(phi, [episode])
    assert relative_error(flat(result.value), expected) < 1e-9
    assert result.diagnostics[0]["converged"]
    assert float(result.diagnostics[0]["stationarity"]) < 1e-2


def test_implicit_and_unrolled_agree_at_rest():
    options = {"proximal": 5.0, "steps": 40, "optimizer": SGD(0.15)}
    some = [tasks.episodes()(0)]
    phi = tasks.drawn(tasks.maml(**options))
    unrolled = tasks.maml(**options, hypergradient=Unrolled()).meta_gradient(phi, some)
    found = tasks.maml(**options, hypergradient=Implicit(Dense())).meta_gradient(phi, some)
    assert relative_error(found.value, unrolled.value) < 1e-6


@pytest.mark.parametrize("method", [Implicit(ConjugateGradient(100, 1e-12)), Unrolled()])
def test_an_infinite_pull_leaves_the_initialisation(method):
    model = tasks.maml(hypergradient=method, proximal=1e8, optimizer=SGD(1e-8), steps=4)
    phi = tasks.drawn(model)
    episode = tasks.episodes()(0)
    start = {k: v.clone().requires_grad_() for k, v in part(phi, "start.").items()}
    loss = model.task(episode).outer(start, {}, episode.query)
    expected = dict(zip(phi, torch.autograd.grad(loss, list(start.values())), strict=True))
    found = model.meta_gradient(phi, [episode]).value
    assert relative_error(found, expected) < 1e-6


def test_other_steps_and_curvatures_task_by_task():
    some = [tasks.episodes()(number) for number in range(2)]
    model = tasks.maml(optimizer=SAM(SGD(0.2), 0.05))
    phi = tasks.drawn(model)
    loss = tasks.query_loss(model, some)
    along = normal(phi, 4)
    exact = flat(model.meta_gradient(phi, some).value) @ flat(along)
    assert float(exact) == pytest.approx(slope(loss, phi, along, 1e-4), rel=1e-5)
    gauss = tasks.maml(hypergradient=Implicit(Dense(), GaussNewton()), proximal=1.0)
    assert not gauss.meta_gradient(phi, some).diagnostics[0]["negative_curvature"]
    with pytest.raises(BadInput, match=r"batched is True, but only SGD or Adam.*batched=False"):
        gauss.meta_gradient(phi, some, batched=True)
    with pytest.raises(BadInput, match="batched is True"):
        model.meta_gradient(phi, some, batched=True)


def test_weights_from_losses_task_by_task():
    model = tasks.maml(commentary=ExampleWeights(LossNetwork(4)))
    phi = {k: v.double() for k, v in tasks.drawn(model).items()}
    some = [tasks.episodes()(number) for number in range(2)]
    along = {k: v * k.startswith("teacher.") for k, v in normal(phi, 4).items()}
    exact = flat(model.meta_gradient(phi, some).value) @ flat(along)
    numeric = slope(tasks.query_loss(model, some), phi, along, 1e-4)
    assert float(exact) == pytest.approx(numeric, rel=1e-5)
    with pytest.raises(BadInput, match=r"function of the loss.*batched=False"):
        model.meta_gradient(phi, some, batched=True)


def test_a_network_on_image_label_and_step():
    """The weights that a network gives enter every step, and the step is among what it sees."""

    def teacher():
        return nn.Sequential(nn.Conv2d(1 + 3 + 1, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(1))

    def build():
        network = teacher()
        network(torch.zeros(1, 5, 4, 4))
        return network.double()

    weights = ExampleWeights(ImageNetwork(build, classes=3, progress=True))
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double())
    model = MAML(student, SGD(0.3), steps=3, commentary=weights)
    episode = image_episode()
    phi = tasks.drawn(model)
    given = [weights(part(phi, "teacher."), each).weight for each in model.support(episode, 5)]
    assert not torch.allclose(given[0], given[1])
    assert torch.equal(given[2], given[4])  # past the last step the clock stands
    loop = model.meta_gradient(phi, [episode] * 2, batched=False).value
    at_once = model.meta_gradient(phi, [episode] * 2, batched=True).value
    assert relative_error(at_once, loop) < 1e-12
    assert float(flat(part(loop, "teacher.")).norm()) > 1e-6


def image_episode():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(2)
    batch = Batch(torch.randn(6, 1, 4, 4, generator=g, dtype=torch.float64), y, torch.arange(6))
    return Episode(batch, batch._replace(x=batch.x.flip(0)), y, torch.arange(3))


def test_query_examples_are_predicted_alone_by_support_statistics():
    episode = tasks.episodes()(0)
    one = episode._replace(query=episode.query.rows(slice(3, 4)))
    found = {}
    for statistics in ("support", "transductive"):
        model = tasks.maml(statistics=statistics)
        *_, theta = model.adapt(tasks.drawn(model), episode)
        every = model.task(episode).outputs(theta, episode.query)
        alone = model.task(one).outputs(theta, one.query)
        found[statistics] = relative_error(alone[0], every[3])
    assert found["support"] < 1e-14
    assert found["transductive"] > 1e-2


@pytest.mark.parametrize("statistics", ["support", "transductive"])
def test_statistics_against_native_batch_normalisation(statistics):
    episode = tasks.episodes()(0)
    model = tasks.maml(statistics=statistics)
    theta = part(tasks.drawn(model), "start.")
    module = tasks.build()
    module.load_state_dict(theta, strict=False)
    if statistics == "support":
        hidden = module[0](episode.support.x)
        module[1].running_mean.copy_(hidden.detach().mean(0))
        module[1].running_var.copy_(hidden.detach().var(0, correction=0))
        module.eval()
    expected = module(episode.query.x).detach()
    assert relative_error(model.task(episode).outputs(theta, episode.query), expected) < 1e-12


def test_adaptation_sees_no_query_and_moves_nothing_else():
    model = tasks.maml()
    phi = tasks.drawn(model)
    before = {k: v.clone() for k, v in phi.items()}
    episode = tasks.episodes()(0)
    blind = episode._replace(query=episode.query._replace(x=episode.query.x * torch.nan))
    state = torch.get_rng_state()
    a, b = list(model.adapt(phi, episode)), list(model.adapt(phi, blind))
    assert len(a) == 4
    assert all(torch.equal(flat(x), flat(y)) for x, y in zip(a, b, strict=True))
    assert not any(v.requires_grad for v in a[-1].values())
    first = model.meta_gradient(phi, [episode])
    again = model.meta_gradient(phi, [episode])
    assert torch.equal(flat(first.value), flat(again.value))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in phi.items())
    with pytest.raises(NonFinite):
        model.meta_gradient(phi, [blind])


def test_further_steps_use_the_last_rate():
    model = tasks.maml(learn_rates=True, steps=2)
    phi = tasks.drawn(model)
    phi |= {k: torch.tensor([0.1, 0.0]).double() for k in phi if k.startswith("rate.")}
    path = list(model.adapt(phi, tasks.episodes()(0), steps=4))
    assert len(path) == 5
    assert not torch.equal(flat(path[0]), flat(path[1]))
    assert all(torch.equal(flat(path[1]), flat(each)) for each in path[2:])


def test_stacked_adaptation():
    model = tasks.maml()
    phi = tasks.drawn(model)
    some = [tasks.episodes()(number) for number in range(3)]
    *_, many = model.adapt(phi, stacked(some))
    for i, episode in enumerate(some):
        *_, theta = model.adapt(phi, episode)
        assert relative_error({k: v[i] for k, v in many.items()}, theta) < 1e-13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"proximal": -1.0}, "proximal is -1.0"),
        ({"statistics": "suport"}, r"'suport'. Did you mean 'support'"),
        ({"learn_rates": True, "optimizer": Adam(0.1)}, r"learn_rates goes with plain.*inner.SGD"),
        ({"learn_rates": True, "optimizer": SGD(0.1, 0.9)}, "learn_rates goes with plain"),
        ({"hypergradient": Implicit()}, r"proximal is 0.*Set proximal"),
        (
            {"hypergradient": Implicit(), "proximal": 1.0, "learn_rates": True},
            r"learn_rates is True, but Implicit",
        ),
        (
            {"hypergradient": Implicit(), "proximal": 1.0, "first_order": True},
            r"first_order is True, but Implicit",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(BadInput, match=message):
        tasks.maml(**options)


def test_no_episodes():
    model = tasks.maml()
    with pytest.raises(BadInput, match="no episodes"):
        model.meta_gradient(tasks.drawn(model), [])
