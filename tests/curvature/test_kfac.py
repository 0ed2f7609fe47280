"""K-FAC against the Gauss–Newton matrix, where it is exact, and as a preconditioner."""

import io
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import flat, normal, relative_error, shaped
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, taught
from commentaries.curvature import KFAC, GaussNewton, Kept
from commentaries.curvature.linear_layers import LinearLayers
from commentaries.errors import BadInput, NonFinite
from commentaries.problem import Composed
from commentaries.solvers import ConjugateGradient, Identity
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

DAMPING = 0.05


def squared(z, target):
    return (z - target).flatten(1).square().sum(1)


def composed(student, weights=None, criterion=None):
    """(1/n) Σ weight · loss; the weights are constants."""
    criterion = criterion or (lambda z, y: functional.cross_entropy(z, y, reduction="none"))

    def loss(z, held, y):
        losses = criterion(z, y)
        return (losses if weights is None else weights * losses).mean()

    return Composed(lambda theta, phi, batch: (student(theta, batch.x), batch.y), loss)


def start(module, seed=0):
    student = Student(module)
    return student, student.init(torch.Generator().manual_seed(seed))


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(n, classes, seed=2):
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))


def examples(x, y):
    return Batch(x, y, torch.arange(len(x)))


def gauss_newton(inner, theta, batch):
    """Jᵀ ∇²ℓ J, both factors by `torch.func`, (total, total)."""

    def outputs(vector):
        return inner.outputs(shaped(vector, theta), {}, batch)[0].flatten()

    z = outputs(flat(theta))
    shape = inner.outputs(theta, {}, batch)[0].shape
    middle = torch.func.hessian(
        lambda v: inner.loss(v.reshape(shape), v.detach().reshape(shape), batch.y)
    )(z)
    J = torch.func.jacrev(outputs)(flat(theta))
    return J.mT @ middle @ J


def blocks_of(matrix, theta, pairs):
    """The matrix without what couples parameters of different blocks."""
    owner = {name: i for i, names in enumerate(pairs) for name in names}
    entry = torch.cat([torch.full((v.numel(),), owner[name]) for name, v in theta.items()])
    return matrix * (entry[:, None] == entry)


def dense(product, like):
    size = flat(like).numel()
    return torch.stack([flat(product(shaped(e, like))) for e in torch.eye(size)], dim=1)


def assert_is_the_inverse(kfac, inner, theta, batch, pairs):
    K = blocks_of(gauss_newton(inner, theta, batch), theta, pairs)
    inverse = dense(kfac(inner, theta, {}, batch).inverse(), theta)
    identity = torch.eye(len(K))
    assert relative_error((K + DAMPING * identity) @ inverse, identity) < 1e-10


# Where the factors are exact.


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_one_linear_layer_and_one_weighted_example(sharing, weight):
    student, theta = start(nn.Linear(4, 3))
    inner = composed(student, torch.tensor([weight]))
    batch = examples(draw(1, 4), labels(1, 3))
    pairs = [("weight", "bias")]
    assert_is_the_inverse(KFAC(DAMPING, sharing=sharing), inner, theta, batch, pairs)


def test_every_layer_of_a_deep_network_with_one_example():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.Tanh(),
                           nn.Linear(4, 3))  # fmt: skip
    student, theta = start(module)
    batch = examples(draw(1, 3), labels(1, 3))
    pairs = [("0.weight", "0.bias"), ("2.weight",), ("4.weight", "4.bias")]
    assert_is_the_inverse(KFAC(DAMPING), composed(student), theta, batch, pairs)


def test_deep_linear_network_with_squared_error_and_any_number_of_examples():
    student, theta = start(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)))
    batch = examples(draw(9, 3), draw(9, 2, seed=3))
    pairs = [(f"{i}.weight", f"{i}.bias") for i in range(3)]
    assert_is_the_inverse(KFAC(DAMPING), composed(student, None, squared), theta, batch, pairs)


def test_expand_is_exact_where_every_position_is_judged():
    module = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, 1))
    student, theta = start(module)
    batch = examples(draw(4, 2, 5, 4), draw(4, 2, 3, 2, seed=3))
    inner = composed(student, None, squared)
    pairs = [("0.weight", "0.bias"), ("1.weight", "1.bias")]
    assert_is_the_inverse(KFAC(DAMPING), inner, theta, batch, pairs)


def test_expand_is_exact_for_a_sequence_too():
    student, theta = start(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    batch = examples(draw(4, 5, 3), draw(4, 5, 2, seed=3))
    inner = composed(student, None, squared)
    pairs = [("0.weight", "0.bias"), ("1.weight", "1.bias")]
    assert_is_the_inverse(KFAC(DAMPING), inner, theta, batch, pairs)


def test_reduce_is_exact_where_positions_are_averaged_and_expand_is_not():
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    student, theta = start(module)
    batch = examples(draw(5, 2, 5, 4), draw(5, 2, seed=3))
    inner = composed(student, None, squared)
    pairs = [("0.weight", "0.bias"), ("3.weight", "3.bias")]
    assert_is_the_inverse(KFAC(DAMPING, sharing="reduce"), inner, theta, batch, pairs)
    with pytest.raises(AssertionError):
        assert_is_the_inverse(KFAC(DAMPING), inner, theta, batch, pairs)


def test_grouped_convolution_has_a_block_for_each_group():
    student, theta = start(nn.Conv2d(4, 6, 2, groups=2))
    batch = examples(draw(3, 4, 4, 4), draw(3, 6, 3, 3, seed=3))
    inner = composed(student, None, squared)
    factors = KFAC(DAMPING)(inner, theta, {}, batch)
    assert factors.blocks[0].inputs.shape == (2, 9, 9)
    assert factors.blocks[0].outputs.shape == (2, 3, 3)
    assert_is_the_inverse(KFAC(DAMPING), inner, theta, batch, [("weight", "bias")])


quick = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@quick
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 2]),
)
def test_a_convolution_is_its_weight_times_the_recorded_inputs(
    kernel, stride, padding, dilation, groups
):
    stride = (1, 1) if padding == "same" else stride
    weight = draw(4, 4 // groups, *kernel, seed=5).to(torch.float64).requires_grad_()
    x = draw(2, 4, 7, 6).to(torch.float64)
    with LinearLayers({"w": weight}) as recorder:
        z = functional.conv2d(x, weight, None, stride, padding, dilation, groups)
    ((name, bias, (call,)),) = recorder.layers()
    assert (name, bias) == ("w", None)
    by_hand = call.inputs() @ weight.reshape(groups, 1, 4 // groups, -1).mT
    assert relative_error(by_hand.detach(), call.spread(z).detach()) < 1e-12


def test_the_factors_are_those_of_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4), nn.Tanh(), nn.Linear(4, 3)
    )
    student, theta = start(module)
    module.load_state_dict(theta)
    batch = examples(draw(6, 1, 6, 6), labels(6, 3))
    for sharing in ("expand", "reduce"):
        reference = curvlinops.KFACLinearOperator(
            module,
            nn.CrossEntropyLoss(),
            list(module.parameters()),
            [(batch.x, batch.y)],
            fisher_type="type-2",
            kfac_approx=sharing,
            separate_weight_and_bias=False,
            check_deterministic=False,
        )
        v = normal(theta, 4)
        product = dict(zip(theta, reference @ list(v.values()), strict=True))
        shifted = p.add(product, v, DAMPING)
        factors = KFAC(DAMPING, sharing=sharing)(composed(student), theta, {}, batch)
        assert relative_error(factors.inverse()(shifted), v) < 1e-10


# What enters the factors.


def classifier(n=20):
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    student, theta = start(module)
    return student, theta, examples(draw(n, 4), labels(n, 3))


def test_weights_multiply_the_output_side():
    student, theta, batch = classifier()
    weights = draw(20, seed=7).square()
    weights[:4] = 0
    of = lambda w: KFAC(DAMPING)(composed(student, w), theta, {}, batch).blocks  # noqa: E731
    whole, double = of(weights), of(2 * weights)
    without = KFAC(DAMPING)(
        composed(student, weights[4:] * 16 / 20), theta, {}, batch.rows(slice(4, 20))
    ).blocks
    for a, b, c in zip(whole, double, without, strict=True):
        assert relative_error(2 * a.outputs, b.outputs) < 1e-12
        assert torch.equal(a.inputs, b.inputs)
        assert relative_error(a.outputs, c.outputs) < 1e-12


def test_weights_of_a_commentary_enter():
    student, theta, batch = classifier()
    commentary = ExampleWeights(Table(20))
    phi = {name: draw(*v.shape, seed=9) for name, v in commentary.init(torch.Generator()).items()}
    weights = commentary(phi, batch).weight
    by_commentary = KFAC(DAMPING)(taught(student, commentary), theta, phi, batch)
    by_hand = KFAC(DAMPING)(composed(student, weights.detach()), theta, {}, batch)
    for a, b in zip(by_commentary.blocks, by_hand.blocks, strict=True):
        assert relative_error(a.outputs, b.outputs) < 1e-12


def test_softmax_needs_a_pass_less_than_it_has_classes():
    student, theta, batch = classifier()
    assert KFAC(DAMPING)(composed(student), theta, {}, batch).passes == 2
    assert KFAC(DAMPING, samples=1)(composed(student), theta, {}, batch).passes == 1


def test_samples_agree_on_average_and_follow_the_seed():
    student, theta, batch = classifier()
    inner = composed(student)
    exact = KFAC(DAMPING)(inner, theta, {}, batch).blocks
    many = KFAC(DAMPING, samples=1500)(inner, theta, {}, batch).blocks
    few = [KFAC(DAMPING, samples=2, seed=s)(inner, theta, {}, batch).blocks for s in (1, 1, 2)]
    for a, b, c, same, other in zip(exact, many, *few, strict=True):
        assert relative_error(b.outputs, a.outputs) < 0.03
        assert torch.equal(c.outputs, same.outputs)
        assert relative_error(c.outputs, other.outputs) > 0.01


def test_nothing_moves():
    student, theta, batch = classifier()
    before, state = flat(theta).clone(), torch.get_rng_state()
    v = normal(theta, 1)
    factors = KFAC(DAMPING, samples=2)(composed(student), theta, {}, batch)
    inverse = factors.inverse()
    assert torch.equal(flat(inverse(v)), flat(inverse(v)))
    assert torch.equal(flat(theta), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(value.requires_grad for value in inverse(v).values())


class Odd(nn.Module):
    """Weights used twice, with one bias, with two, and not at all; one bias frozen; a scale."""

    def __init__(self):
        super().__init__()
        self.tied, self.once, self.idle = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(2, 2)
        self.other = nn.Parameter(torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(4))
        self.once.bias.requires_grad_(False)

    def forward(self, x):
        hidden = torch.tanh(self.tied(x)) * self.scale
        hidden = torch.tanh(functional.linear(hidden, self.tied.weight, bias=self.other))
        self.idle(x[:, :2])
        return self.once(hidden)


def test_tied_idle_and_frozen_parameters():
    student, theta = start(Odd)
    batch = examples(draw(8, 4), labels(8, 3))
    factors = KFAC(DAMPING)(composed(student), theta, {}, batch)
    assert [(b.weight, b.bias) for b in factors.blocks] == [
        ("tied.weight", None),  # its two uses have different biases
        ("idle.weight", "idle.bias"),
        ("once.weight", None),
    ]
    assert set(factors.rest) == {"tied.bias", "other", "scale"}
    inverse = dense(factors.inverse(), theta)
    assert relative_error(inverse, inverse.mT) < 1e-12
    eigenvalues = torch.linalg.eigvalsh(inverse)
    assert eigenvalues[0] > 0
    assert eigenvalues[-1] <= (1 + 1e-10) / DAMPING
    v = normal(theta, 3)
    assert relative_error(factors.inverse()(v)["idle.weight"], v["idle.weight"] / DAMPING) < 1e-12


def test_a_use_in_place_afterwards_does_not_matter():
    shapes = (nn.Linear(4, 6), nn.Linear(6, 3))
    found = []
    for in_place in (False, True):
        student = Student(nn.Sequential(shapes[0], nn.ReLU(inplace=in_place), shapes[1]))
        batch = examples(draw(8, 4), labels(8, 3))
        found.append(KFAC(DAMPING)(composed(student), student.parameters(), {}, batch).blocks)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.outputs, b.outputs)


def test_the_diagonal_of_the_rest_is_right_on_average():
    module = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    student, theta = start(module)
    inner, batch = composed(student), examples(draw(9, 4), labels(9, 3))
    exact = shaped(gauss_newton(inner, theta, batch).diagonal(), theta)
    factors = KFAC(DAMPING, samples=1000)(inner, theta, {}, batch)
    assert list(factors.rest) == ["1.weight", "1.bias"]
    for name, value in factors.rest.items():
        assert relative_error(value, exact[name]) < 0.15


def test_a_loss_that_is_linear_in_the_outputs_has_no_curvature():
    student, theta, batch = classifier()
    inner = composed(student, None, lambda z, y: z.gather(1, y[:, None])[:, 0])
    factors = KFAC(DAMPING)(inner, theta, {}, batch)
    assert factors.passes == 0
    v = normal(theta, 1)
    assert relative_error(factors.inverse()(v), p.scale(v, 1 / DAMPING)) < 1e-12


# Inverses.


def test_split_damping_by_hand():
    student, theta, batch = classifier()
    factors = KFAC(DAMPING, split=True)(composed(student), theta, {}, batch)
    v = normal(theta, 2)
    found = factors.inverse()(v)
    for weight, bias, (A,), (B,) in factors.blocks:
        pi = (A.trace() / len(A) / (B.trace() / len(B))).sqrt()
        joint = torch.cat([v[weight], v[bias][:, None]], dim=1)
        left = B + DAMPING**0.5 / pi * torch.eye(len(B))
        right = A + DAMPING**0.5 * pi * torch.eye(len(A))
        expected = torch.linalg.solve(left, joint) @ torch.linalg.inv(right)
        got = torch.cat([found[weight], found[bias][:, None]], dim=1)
        assert relative_error(got, expected) < 1e-10


@pytest.mark.parametrize("split", [False, True])
def test_single_precision(split):
    student, theta, batch = classifier()
    v = normal(theta, 2)
    exact = KFAC(1e-4, split=split)(composed(student), theta, {}, batch).inverse()(v)
    theta = {name: value.float() for name, value in theta.items()}
    single = KFAC(1e-4, split=split)(
        composed(student), theta, {}, batch._replace(x=batch.x.float())
    )
    found = single.inverse()({name: value.float() for name, value in v.items()})
    assert relative_error({k: v.double() for k, v in found.items()}, exact) < 1e-2


def test_a_forward_pass_in_reduced_precision():
    student, theta, batch = classifier()
    theta = {name: value.float() for name, value in theta.items()}
    batch = batch._replace(x=batch.x.float())
    whole = composed(student)

    def outputs(theta, phi, batch):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            z, y = whole.outputs(theta, phi, batch)
        return z.float(), y

    full = KFAC(DAMPING)(whole, theta, {}, batch).blocks
    reduced = KFAC(DAMPING)(Composed(outputs, whole.loss), theta, {}, batch).blocks
    for a, b in zip(full, reduced, strict=True):
        for i in (2, 3):
            assert b[i].dtype == torch.float32
            assert relative_error(b[i], a[i]) < 0.02
        assert relative_error(b.outputs, a.outputs) > 0


# As a preconditioner.


def weighted_digits(module, size=None):
    """A trained student with wrong labels, and its damped Gauss–Newton system."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    n, decay = 150, 1e-3
    x, y = torch.tensor(digits.data[:n] / 16), torch.tensor(digits.target[:n])
    wrong = torch.rand(n, generator=torch.Generator().manual_seed(0)) < 0.3
    y = torch.where(wrong, labels(n, 10), y)
    batch = examples(x if size is None else x.reshape(n, *size), y)
    student, theta = start(module)
    commentary = ExampleWeights(Table(n))
    inner = taught(student, commentary)
    phi = {k: draw(*v.shape, seed=8) for k, v in commentary.init(torch.Generator()).items()}
    leaves = p.live(theta)
    optimizer = torch.optim.LBFGS(leaves.values(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        penalty = decay / 2 * p.dot(leaves, leaves)
        (inner(leaves, phi, batch) + penalty).backward()
        return penalty

    optimizer.step(closure)
    theta, live_phi = p.live(leaves), p.live(phi)
    F, _ = GaussNewton()(inner, live_phi, batch)(theta)

    def product(v):
        return p.add(p.pull_back(F, v, theta), v, decay)

    held_out = torch.tensor(digits.data[n : 2 * n] / 16)
    held_out = held_out if size is None else held_out.reshape(n, *size)
    outer = functional.cross_entropy(
        student(theta, held_out), torch.tensor(digits.target[n : 2 * n])
    )
    b = p.gradients(outer, theta)
    return (inner, p.detach(theta), phi, batch), product, b, lambda x: p.pull_back(F, x, live_phi)


STUDENTS = {
    "tanh": (lambda: nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(),
                                   nn.Linear(24, 10)), None),
    "batchnorm": (lambda: nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6),
                                        nn.Tanh(), nn.Flatten(), nn.Linear(96, 16), nn.Tanh(),
                                        nn.Linear(16, 10)), (1, 8, 8)),
}  # fmt: skip


@cache
def solved(name):
    """The system, its right-hand side, and its solution by a long solve."""
    build, size = STUDENTS[name]
    at, product, b, hypergradient = weighted_digits(build(), size)
    solution = ConjugateGradient(500, 1e-5)(product, b)
    assert solution.converged
    return at, product, b, hypergradient, solution.value


def cosine(a, b):
    return float(p.dot(a, b) / (p.norm(a) * p.norm(b)))


@pytest.mark.parametrize("options", [{}, {"samples": 1}, {"split": True}], ids=str)
@pytest.mark.parametrize("name", STUDENTS)
def test_eight_preconditioned_products_are_worth_more_than_twelve(name, options):
    at, product, b, hypergradient, x = solved(name)
    inverse = KFAC(1e-2, **options)(*at).inverse()

    def quality(products, precondition):
        found = ConjugateGradient(products, 1e-12)(product, b, precondition=precondition)
        return cosine(hypergradient(found.value), hypergradient(x))

    assert quality(8, inverse) > max(0.99, quality(12, None))
    # and alone, without any product, it is nearer to the solution than b is
    alone = Identity()(product, b, precondition=inverse).value
    assert cosine(alone, x) > cosine(b, x) + 0.1


def test_factors_are_kept_for_several_calls_and_through_a_checkpoint():
    student, theta, batch = classifier()
    inner = composed(student)
    built = []

    def build(*at):
        built.append(at)
        return KFAC(DAMPING)(*at)

    v = normal(theta, 1)
    places = [p.scale(theta, 1 + i / 10) for i in range(5)]
    kept = Kept(build, every=2)
    found, states = [], []
    for at in places:
        states.append(kept.state_dict())
        found.append(kept(inner, at, {}, batch)(v))
    assert [at[1] for at in built] == [places[0], places[2], places[4]]
    assert torch.equal(flat(found[0]), flat(found[1]))
    assert not torch.equal(flat(found[0]), flat(found[2]))
    for resumed in range(5):
        file = io.BytesIO()
        torch.save(states[resumed], file)
        file.seek(0)
        again = Kept(build, every=2)
        again.load_state_dict(torch.load(file, weights_only=True))
        for at, expected in list(zip(places, found, strict=True))[resumed:]:
            assert torch.equal(flat(again(inner, at, {}, batch)(v)), flat(expected))


# What is refused.


def test_a_plain_loss_is_refused():
    student, theta, batch = classifier()
    with pytest.raises(BadInput, match=r"or use solvers\.Nystrom\.$"):
        KFAC(DAMPING)(lambda t, f, b: student(t, b.x).sum(), theta, {}, batch)


def test_a_value_that_is_not_finite_is_refused():
    student, theta, batch = classifier()
    batch.x[0, 0] = float("inf")
    with pytest.raises(NonFinite, match=r"not finite\.$"):
        KFAC(DAMPING)(composed(student), theta, {}, batch)


@pytest.mark.parametrize(
    "build",
    [
        lambda: KFAC(0.0),
        lambda: KFAC(0.1, samples=0),
        lambda: KFAC(0.1, sharing="expnad"),
        lambda: Kept(KFAC(0.1), every=0),
    ],
)
def test_options_out_of_range_are_refused(build):
    with pytest.raises(BadInput, match=r"Choose .*\.$"):
        build()
