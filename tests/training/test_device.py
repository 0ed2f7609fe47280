"""Data and parameters on another device: nothing is mixed, and the numbers are the CPU's."""

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Far
from torch import nn

import commentaries.student
from commentaries import tree
from commentaries.commentary import (
    CueNetwork,
    ExampleWeights,
    ImageNetwork,
    LossNetwork,
    Table,
    judged,
    taught,
)
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD, Adam
from commentaries.networks import Frozen, Normalise, cbr, conv4, small_cnn
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
from commentaries.types import Batch

N = 40


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, 2, 8, 8, generator=generator)
    return x, torch.randint(4, (N,), generator=generator)


def normalising():
    return nn.Sequential(Normalise((0.4, 0.5), (0.2, 0.3)), cbr(4, channels=2, size=8, width=8))


def on_frozen_features():
    body = cbr(6, channels=2, size=8, width=8)
    body(torch.rand(9, 2, 8, 8))  # running statistics away from their start
    return nn.Sequential(Frozen(body), nn.Linear(6, 4))


STUDENTS = {
    "no state": lambda: Student(lambda: small_cnn(4, channels=2, size=8)),
    "batch statistics": lambda: Student(lambda: conv4(4, channels=2, size=8, width=8)),
    "constants": lambda: Student(normalising),
    "module": lambda: Student(nn.Sequential(nn.Flatten(), nn.Linear(128, 4))),
    "frozen": lambda: Student(on_frozen_features),
}


def near(state):
    return tree.map_tensors(lambda leaf: leaf.near if isinstance(leaf, Far) else leaf, state)


def agree(a, b):
    """Up to rounding: on a CPU a student may lay images out otherwise than elsewhere."""
    pairs = list(zip(tree.leaves(a), tree.leaves(b), strict=True))
    return bool(pairs) and all(
        torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs
    )


def equal(a, b):
    pairs = list(zip(tree.leaves(a), tree.leaves(b), strict=True))
    return bool(pairs) and all(torch.equal(one, other) for one, other in pairs)


def test_the_pretended_device_refuses_what_an_accelerator_refuses():
    a, b = torch.arange(6.0), torch.ones(6)
    with Elsewhere():
        far = a.to(DEVICE)
        assert far.device == DEVICE
        assert torch.equal((2 * far)[torch.tensor([1, 2])].near, torch.tensor([2.0, 4.0]))
        assert torch.equal((far + torch.tensor(1.0)).near, a + 1)
        place = torch.tensor([0, 1])
        for wrong in (
            lambda: far + b,
            lambda: torch.cat([far, b]),
            lambda: b[place.to(DEVICE)],
            lambda: far.gather(0, place),
            lambda: torch.where(far > 1, b, far),
        ):
            with pytest.raises((RuntimeError, AssertionError), match="same device"):
                wrong()


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("augment", ["none", "flip_crop"])
def test_fit_follows_the_inputs(images, name, augment):
    x, y = images
    weight = torch.rand(N, generator=torch.Generator().manual_seed(1))
    anchors = Examples(x[:6], y[:6], torch.ones(6))
    student, recipe = STUDENTS[name](), Recipe(5, batch=16, augment=augment)
    here = fit(student, Examples(x, y, weight), recipe, seed=2, anchors=anchors)
    opinion = log_probabilities(student, here, x, seen=x)
    with Elsewhere():
        far = x.to(DEVICE)
        # labels, weights and anchors follow
        there = fit(student, Examples(far, y, weight), recipe, seed=2, anchors=anchors)
        assert all(isinstance(value, Far) for value in there.values())
        found = log_probabilities(student, there, far, seen=far)
        assert isinstance(found, Far)
        # inputs that stay in memory are moved piece by piece, and the answer comes back
        back = log_probabilities(student, there, x, seen=x)
        assert not isinstance(back, Far)
    assert agree(near(there), here)
    assert agree(found.near, opinion)
    assert agree(back, opinion)
    # the same student again on the CPU
    assert torch.equal(log_probabilities(student, here, x, seen=x), opinion)


SCORES = {
    "table": Table(N),
    "cues": CueNetwork(torch.randn(N, 3, generator=torch.Generator().manual_seed(3)), width=5),
    "loss": LossNetwork(5),
    "image": ImageNetwork(
        lambda: cbr(1, channels=7, size=8, norm="group", width=8), classes=4, progress=True
    ),
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "hypergradient",
    [Implicit(Neumann(2, step_size=0.05)), Unrolled()],
    ids=["implicit", "unrolled"],
)
@pytest.mark.parametrize("index_there", [True, False])
def test_a_commentary_is_learned_where_start_puts_it(
    images, score, hypergradient, index_there, monkeypatch
):
    # one layout of images everywhere: Adam would blow rounding up
    monkeypatch.setattr(commentaries.student, "channels_last", lambda x: x)
    x, y = images
    student = Student(normalising)
    trusted = torch.arange(N) >= N - 8
    commentary = ExampleWeights(SCORES[score], "softmax", trusted)
    problem = Bilevel(taught(student, commentary), judged(student))
    optimizers = {"inner_optimizer": SGD(0.1, 0.9), "outer_optimizer": Adam(0.05)}

    def run(device):
        def batch(number, step):
            generator = torch.Generator().manual_seed(10 * step + number)
            rows = torch.randperm(N, generator=generator)[:12]
            place = rows.to(device) if index_there else rows
            return Batch(x[rows].to(device), y[rows].to(device), place, step / 3, seed=step)

        state = start(
            student.init, commentary.init(torch.Generator().manual_seed(4)), students=2,
            device=device, **optimizers,
        )  # fmt: skip
        steps = train(
            problem, state, hypergradient=hypergradient, inner=batch, outer=batch,
            schedule=Schedule(3, restart_every=2), theta=student.init, **optimizers,
        )  # fmt: skip
        return list(steps)[-1].state

    here = run("cpu")
    with Elsewhere():
        there = run(DEVICE)
    assert all(isinstance(leaf, Far) for leaf in tree.leaves(there))
    assert equal(near(there), here)


def test_a_checkpoint_is_put_where_the_new_state_is(tmp_path, images):
    student = Student(normalising)
    optimizers = {"inner_optimizer": SGD(0.1, 0.9), "outer_optimizer": Adam(0.05)}
    phi = Table(N).init(torch.Generator())
    saved = start(student.init, phi, seed=1, **optimizers)
    checkpoint.save(tmp_path / "checkpoint.pt", saved)
    with Elsewhere():
        like = start(student.init, phi, device=DEVICE, **optimizers)
        loaded = checkpoint.load(tmp_path / "checkpoint.pt", like)
    assert all(isinstance(leaf, Far) for leaf in tree.leaves(loaded))
    assert equal(near(loaded), saved)
