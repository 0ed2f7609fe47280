"""A module as a pure function: the same outputs, no side effects, any derivative."""

import copy

import pytest
import torch
from oracles import normal, relative_error
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.errors import BadInput
from commentaries.primitives import Primitives
from commentaries.student import Student, seeded
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


def images(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(n, 2, 6, 6, generator=g)


def batch_of(x, seed=0):
    return Batch(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)), seed=seed)


# Equal to the module.


def test_training_output_is_the_modules():
    module = convolutional()
    student = Student(module)
    module.train()
    x = images()
    torch.testing.assert_close(student(student.parameters(), x), module(x), rtol=1e-12, atol=1e-13)


def test_evaluation_output_is_the_modules_with_the_same_statistics():
    module = convolutional()
    student = Student(module)
    theta, x = student.parameters(), images()
    statistics = student.statistics(theta, [batch_of(images(9, s)) for s in (1, 2)])
    module.load_state_dict(statistics, strict=False)
    module.eval()
    torch.testing.assert_close(
        student(theta, x, buffers=statistics), module(x), rtol=1e-12, atol=1e-13
    )
    # each example alone: no output depends on its batch-mates
    alone = torch.cat([student(theta, row[None], buffers=statistics) for row in x])
    torch.testing.assert_close(alone, module(x), rtol=1e-12, atol=1e-13)


def test_pretrained_statistics_serve_without_new_ones():
    module = convolutional()
    module(images(8, 5))
    module.eval()
    student = Student(module)
    x = images()
    torch.testing.assert_close(
        student(student.parameters(), x, buffers={}), module(x), rtol=1e-12, atol=1e-13
    )


def test_statistics_pool_unequal_batches():
    student = Student(lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2)))
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    rows = 10 * torch.randn(17, 5, generator=g) + 100
    batches = [batch_of(part) for part in rows.split([3, 12, 2])]
    statistics = student.statistics(theta, batches)
    assert set(statistics) == {"0.running_mean", "0.running_var"}
    torch.testing.assert_close(statistics["0.running_mean"], rows.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(statistics["0.running_var"], rows.var(0), rtol=1e-9, atol=0)
    whole = student.statistics(theta, [batch_of(rows)])
    torch.testing.assert_close(whole["0.running_var"], statistics["0.running_var"])


def test_statistics_far_from_zero_keep_their_digits_in_float32():
    student = Student(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).float())
    rows = (torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) + 3e3).float()
    theta = student.init(torch.Generator().manual_seed(0))
    theta = {k: v.float() for k, v in theta.items()}
    statistics = student.statistics(theta, [batch_of(part) for part in rows.split([7, 30, 3])])
    expected = rows.double().var(0).float()
    torch.testing.assert_close(statistics["0.running_var"], expected, rtol=1e-3, atol=0)


def test_statistics_of_images_count_every_pixel():
    student = Student(lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 1)))
    theta = student.init(torch.Generator().manual_seed(0))
    x = images(11)
    statistics = student.statistics(theta, [batch_of(x[:4]), batch_of(x[4:])])
    torch.testing.assert_close(statistics["0.running_mean"], x.mean((0, 2, 3)))
    pixels = x.transpose(0, 1).reshape(2, -1)
    torch.testing.assert_close(statistics["0.running_var"], pixels.var(1))


def test_no_batch_normalisation_needs_no_statistics():
    student = Student(lambda: nn.Linear(2, 2))
    assert student.statistics(student.parameters(), []) == {}
    with pytest.raises(BadInput, match="at least one batch"):
        Student(convolutional).statistics(Student(convolutional).parameters(), [])


def test_inputs_by_name():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, left, right, *, scale=1.0):
            return self.linear(left) + scale * self.linear(right)

    module = Pair()
    student = Student(module)
    left, right = torch.randn(4, 3), torch.randn(4, 3)
    z = student(student.parameters(), {"right": right, "left": left})
    assert torch.equal(z, module(left, right))
    assert torch.equal(student(student.parameters(), {"right": right, "left": left}, seed=1), z)


# Without side effects.


@pytest.mark.parametrize("seed", [None, 3])
def test_nothing_outside_moves(seed):
    module = convolutional()
    module.eval()
    before = copy.deepcopy(module.state_dict())
    student = Student(module)
    theta = student.parameters()
    kept = {k: v.clone() for k, v in theta.items()}
    state = torch.get_rng_state()
    student(theta, images(), seed=seed)
    student.statistics(theta, [batch_of(images())])
    student.init(torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(torch.equal(v, kept[k]) for k, v in theta.items())
    first = student(theta, images())
    assert torch.equal(first, student(theta, images()))


def test_building_a_student_leaves_the_global_generator():
    state = torch.get_rng_state()
    Student(convolutional)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_callers_module_may_change_afterwards():
    module = nn.Linear(2, 2)
    student = Student(module)
    before = student.parameters()
    with torch.no_grad():
        module.weight.zero_()
    assert torch.equal(student.parameters()["weight"], before["weight"])
    assert before["weight"].any()


def test_dropout_comes_from_the_seed():
    student = Student(lambda: nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2)))
    theta, x = student.init(torch.Generator().manual_seed(0)), torch.randn(4, 3)
    first = student(theta, x, seed=3)
    torch.manual_seed(123)
    assert torch.equal(student(theta, x, seed=3), first)
    assert not torch.equal(student(theta, x, seed=4), first)
    assert not torch.equal(student(theta, x), student(theta, x))
    kept = student(theta, x, seed=3, buffers={})
    assert torch.equal(kept, student(theta, x, seed=4, buffers={}))  # evaluation drops nothing
    assert not torch.equal(kept, first)


def test_seeded_restores_even_after_an_error():
    state = torch.get_rng_state()

    def fail():
        with seeded(5, torch.device("cpu")):
            raise ZeroDivisionError(float(torch.rand(())))

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


# Initial parameters.


@pytest.mark.parametrize(
    "make",
    [lambda: Student(convolutional), lambda: Student(convolutional())],
    ids=["function", "module"],
)
def test_init_is_a_function_of_the_generator(make):
    student = make()
    torch.manual_seed(1)
    first = student.init(torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    again = student.init(torch.Generator().manual_seed(0))
    other = student.init(torch.Generator().manual_seed(1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert not p.requires_grad(first)
    g = torch.Generator().manual_seed(0)
    draws = [student.init(g)["0.weight"] for _ in range(2)]
    assert not torch.equal(*draws)


def test_module_and_factory_draw_from_the_same_law():
    # every layer's constructor ends in reset_parameters, so the draws even coincide
    factory, module = Student(convolutional), Student(convolutional())
    a, b = (s.init(torch.Generator().manual_seed(7)) for s in (factory, module))
    assert list(a) == list(b)
    bound = 1 / (2 * 9) ** 0.5
    for theta in (a, b):
        assert float(theta["0.weight"].abs().max()) <= bound
        assert torch.equal(theta["1.weight"], torch.ones(4))
    module_parameters = module.parameters()
    assert not torch.equal(b["0.weight"], module_parameters["0.weight"])
    assert torch.equal(module.parameters()["0.weight"], module_parameters["0.weight"])


def test_attention_can_be_drawn_anew():
    student = Student(nn.MultiheadAttention(4, 2))
    theta = student.init(torch.Generator().manual_seed(0))
    assert not torch.equal(theta["in_proj_weight"], student.parameters()["in_proj_weight"])


def test_a_part_without_reset_parameters_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.factor * x

    with pytest.raises(BadInput, match=r"Scale has no reset_parameters.*'0\.factor'.*function"):
        Student(nn.Sequential(Scale())).init(torch.Generator())
    theta = Student(lambda: nn.Sequential(Scale())).init(torch.Generator())
    assert torch.equal(theta["0.factor"], torch.ones(2))


# Tied and frozen parameters.


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(3, 3, bias=False)
        self.decode = nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(torch.tanh(self.encode(x)))


@pytest.mark.parametrize(
    "make", [lambda: Student(Tied), lambda: Student(Tied())], ids=["function", "module"]
)
def test_tied_weights_are_one_parameter(make):
    student = make()
    theta = p.live(student.init(torch.Generator().manual_seed(0)))
    assert list(theta) == ["encode.weight"]
    x = torch.randn(5, 3)
    z = student(theta, x)
    W = theta["encode.weight"]
    torch.testing.assert_close(z, torch.tanh(x @ W.mT) @ W.mT)
    (found,) = torch.autograd.grad(z.sum(), W)
    V = W.detach().requires_grad_()
    (expected,) = torch.autograd.grad((torch.tanh(x @ V.mT) @ V.mT).sum(), V)
    torch.testing.assert_close(found, expected)


def test_frozen_parameters_are_constants():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    student = Student(module)
    theta = student.init(torch.Generator().manual_seed(0))
    assert list(theta) == ["2.weight", "2.bias"]
    x = torch.randn(5, 3)
    expected = torch.tanh(module[0](x)) @ theta["2.weight"].mT + theta["2.bias"]
    z = student(theta, x)
    torch.testing.assert_close(z, expected)
    assert not z.requires_grad  # nothing of the frozen part is in a graph
    assert student(p.live(theta), x).requires_grad


def test_half_frozen_layer_keeps_its_frozen_half():
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    student = Student(module)
    theta = student.init(torch.Generator().manual_seed(0))
    x = torch.randn(4, 3)
    torch.testing.assert_close(student(theta, x), x @ theta["weight"].mT + module.bias)


# What is refused.


@pytest.mark.parametrize(
    "normalise", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
)
def test_spectral_norm_is_refused(normalise):
    student = Student(lambda: normalise(nn.Linear(3, 2)))
    with pytest.raises(BadInput, match=r"spectral_norm.*without state\.$"):
        student(student.parameters(), torch.randn(4, 3))


def test_a_buffer_that_is_replaced_is_noticed():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.passes = self.passes + 1
            return self.linear(x) / (1 + self.passes)

    student = Student(Counting)
    with pytest.raises(BadInput, match="writes to its buffers"):
        student(student.parameters(), torch.randn(4, 3))


def test_a_constant_buffer_is_welcome():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("shift", torch.ones(2))

        def forward(self, x):
            return self.linear(x) + self.shift

    module = Shifted()
    student = Student(module)
    x = torch.randn(4, 3)
    assert torch.equal(student(student.parameters(), x), module(x))


def test_nothing_to_train_is_refused():
    for module in (nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)):
        with pytest.raises(BadInput, match=r"requires_grad_\(\)"):
            Student(module)


def test_tracked_instance_statistics_are_refused():
    with pytest.raises(BadInput, match=r"track_running_stats=False\.$"):
        Student(nn.Sequential(nn.InstanceNorm2d(2, affine=True, track_running_stats=True)))
    Student(nn.InstanceNorm2d(2, affine=True))


def test_uses_batch_statistics():
    assert Student(convolutional).uses_batch_statistics
    assert not Student(
        lambda: nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    ).uses_batch_statistics


# Normalisation from primitives.

LAYERS = {
    "batch 1d": (lambda: nn.BatchNorm1d(4), (6, 4)),
    "batch 1d, length": (lambda: nn.BatchNorm1d(4), (6, 4, 3)),
    "batch 2d": (lambda: nn.BatchNorm2d(4), (5, 4, 3, 2)),
    "batch 3d": (lambda: nn.BatchNorm3d(2), (3, 2, 2, 3, 2)),
    "batch, eps": (lambda: nn.BatchNorm1d(4, eps=0.1, momentum=None), (6, 4)),
    "batch, not affine": (lambda: nn.BatchNorm1d(4, affine=False), (6, 4)),
    "batch, no statistics": (lambda: nn.BatchNorm1d(4, track_running_stats=False), (6, 4)),
    "layer": (lambda: nn.LayerNorm(4), (6, 4)),
    "layer, two dims": (lambda: nn.LayerNorm((3, 4)), (5, 3, 4)),
    "layer, no bias": (lambda: nn.LayerNorm(4, bias=False), (2, 3, 4)),
    "layer, plain": (lambda: nn.LayerNorm(4, elementwise_affine=False), (6, 4)),
    "group": (lambda: nn.GroupNorm(2, 4), (5, 4, 3, 2)),
    "group of all": (lambda: nn.GroupNorm(1, 4), (5, 4)),
    "instance 1d": (lambda: nn.InstanceNorm1d(4, affine=True), (3, 4, 5)),
    "instance 2d": (lambda: nn.InstanceNorm2d(4), (3, 4, 3, 3)),
}


def prepared(name):
    """The layer with random affine parameters, its input and a random readout."""
    build, shape = LAYERS[name]
    layer = build()
    for i, value in enumerate(layer.parameters()):
        value.data = normal({"v": value}, i)["v"]
    x = 2 * normal({"v": torch.empty(shape)}, 10)["v"] + 1
    return layer, x, normal({"v": torch.empty(shape)}, 11)["v"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_primitives_equal_the_native_kernels(name, training):
    layer, x, readout = prepared(name)
    if not training:
        layer(x)  # running statistics away from their initial values
    layer.train(training)
    inputs = {"x": x, **dict(layer.named_parameters())}
    inputs = p.live(inputs)

    def run(inputs):
        own = {k: v for k, v in inputs.items() if k != "x"}
        return torch.func.functional_call(layer, own, inputs["x"])

    native = run(inputs)
    buffers = {k: v.clone() for k, v in layer.named_buffers()}
    with Primitives():
        ours = run(inputs)
    torch.testing.assert_close(ours, native, rtol=1e-10, atol=1e-12)
    for k, v in layer.named_buffers():
        if k != "num_batches_tracked":  # counted by the module itself, which Student prevents
            assert torch.equal(v, buffers[k])
    expected = p.gradients((readout * native.sin()).sum(), inputs)
    found = p.gradients((readout * ours.sin()).sum(), inputs)
    for k in inputs:
        torch.testing.assert_close(found[k], expected[k], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_second_order_equals_the_slope_of_the_native_gradient(name):
    layer, x, readout = prepared(name)
    inputs = {"x": x, **{k: v.detach() for k, v in layer.named_parameters()}}
    v, h = normal(inputs, 12), 1e-5

    def gradient(at, **more):
        own = {k: value for k, value in at.items() if k != "x"}
        z = torch.func.functional_call(layer, own, at["x"])
        return p.gradients((readout * z.sin()).sum(), at, **more)

    slope = p.scale(
        p.subtract(gradient(p.live(p.add(inputs, v, h))), gradient(p.live(p.add(inputs, v, -h)))),
        1 / (2 * h),
    )
    live = p.live(inputs)
    with Primitives():
        product = p.pull_back(gradient(live, create_graph=True), v, live)
    assert relative_error(product, slope) < 1e-6


@pytest.mark.parametrize("name", ["batch 2d", "layer", "group", "instance 1d"])
def test_forward_over_reverse_and_per_task_gradients(name):
    # both go wrong without an error through some native kernels
    layer, x, readout = prepared(name)
    student = Student(layer)
    theta = student.parameters()

    def loss(x):
        return (readout * student(theta, x, seed=1).sin()).sum()

    v = normal({"v": x}, 13)["v"]
    _, forward = torch.func.jvp(torch.func.grad(loss), (x,), (v,))
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(at), at, create_graph=True)
    (reverse,) = torch.autograd.grad(g, at, v)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-11)
    tasks = torch.stack([x, 2 * x + v])
    together = torch.func.grad(lambda t: torch.func.vmap(loss)(t).sum())(tasks)
    for i in range(2):
        alone = torch.func.grad(loss)(tasks[i])
        torch.testing.assert_close(together[i], alone, rtol=1e-10, atol=1e-11)


def test_primitives_end_with_the_block():
    x = torch.randn(4, 3)
    with Primitives():
        assert "Native" not in type(functional.layer_norm(x.requires_grad_(), [3]).grad_fn).__name__
    assert "Native" in type(functional.layer_norm(x, [3]).grad_fn).__name__


# Attention.


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.qkv = nn.Linear(4, 12)
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        if self.kind == "functional":
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            z = functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            z = self.heads(x, x, x, need_weights=self.kind == "weights")[0]
        return self.out(torch.tanh(z)).sum(1)


@pytest.mark.parametrize("kind", ["functional", "module", "weights"])
def test_attention_has_exact_symmetric_hessian_products(kind):
    module = Attention(kind)
    student = Student(module)
    theta, x = student.parameters(), torch.randn(3, 5, 4)
    torch.testing.assert_close(student(theta, x), module(x), rtol=1e-12, atol=1e-13)
    u, v, h = normal(theta, 1), normal(theta, 2), 1e-5

    def gradient(at, **more):
        return p.gradients(student(at, x).square().sum(), at, **more)

    live = p.live(theta)
    g = gradient(live, create_graph=True)
    Hu, Hv = p.pull_back(g, u, live), p.pull_back(g, v, live)
    assert float(p.dot(v, Hu)) == pytest.approx(float(p.dot(u, Hv)), rel=1e-11)
    above, below = gradient(p.live(p.add(theta, v, h))), gradient(p.live(p.add(theta, v, -h)))
    assert relative_error(Hv, p.scale(p.subtract(above, below), 1 / (2 * h))) < 1e-6


def test_transformer_layer_is_twice_differentiable():
    module = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True, activation="gelu")
    student = Student(module)
    theta, x = p.live(student.parameters()), torch.randn(3, 5, 4)

    def gradient(at, **more):
        return p.gradients(student(at, x, seed=1).square().sum(), at, **more)

    u, v = normal(theta, 1), normal(theta, 2)
    g = gradient(theta, create_graph=True)
    Hu, Hv = p.pull_back(g, u, theta), p.pull_back(g, v, theta)
    assert float(p.dot(v, Hu)) == pytest.approx(float(p.dot(u, Hv)), rel=1e-10)
    above, below = (gradient(p.live(p.add(theta, v, h))) for h in (1e-5, -1e-5))
    assert relative_error(Hv, p.scale(p.subtract(above, below), 1 / 2e-5)) < 1e-5
