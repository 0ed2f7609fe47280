"""The outer loss seen through a commentary."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.commentary import Lesson, judged, taught
from commentaries.curvature import Hessian
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")


class Shown:
    """Doubles the images, softens the labels, weighs the examples and asks its price."""

    def __init__(self, priced=True):
        self.priced = priced

    def init(self, generator):
        return {"price": torch.tensor(3.0)}

    def __call__(self, phi, batch):
        target = 0.9 * functional.one_hot(batch.y, 3) + 0.1 / 3
        penalty = phi["price"].square() if self.priced else None
        return Lesson(2 * batch.x, target, torch.arange(batch.size) * 1.0, penalty)


@pytest.fixture
def setting():
    g = torch.Generator().manual_seed(0)
    student = Student(lambda: nn.Linear(4, 3))
    x = torch.randn(5, 4, generator=g)
    return student, student.init(g), Batch(x, torch.arange(5) % 3, torch.arange(5))


def test_judged_shows_the_lesson_without_weights_and_adds_the_penalty(setting):
    student, theta, batch = setting
    phi = {"price": torch.tensor(3.0)}
    z = student(theta, 2 * batch.x)
    soft = 0.9 * functional.one_hot(batch.y, 3) + 0.1 / 3
    losses = -(soft * z.log_softmax(1)).sum(1)
    for priced, price in ((True, 9.0), (False, 0.0)):
        found = judged(student, commentary=Shown(priced))(theta, phi, batch)
        assert float(found) == pytest.approx(float(losses.mean()) + price, rel=1e-14)
        inner = taught(student, Shown(priced))(theta, phi, batch)
        weighted = (torch.arange(5) * losses).mean()
        assert float(inner) == pytest.approx(float(weighted), rel=1e-14)
    plain = functional.cross_entropy(student(theta, batch.x), batch.y)
    assert float(judged(student)(theta, phi, batch)) == pytest.approx(float(plain), rel=1e-14)


def test_the_penalty_is_differentiated_in_phi_and_not_in_theta(setting):
    student, theta, batch = setting
    phi = p.live({"price": torch.tensor(3.0)})
    found = []
    for commentary in (Shown(True), Shown(False)):
        live = p.live(theta)
        loss = judged(student, commentary=commentary)(live, phi, batch)
        found.append(p.joint_gradients(loss, live, phi))
    (with_price, price), (without, none) = found
    assert all(torch.equal(with_price[k], without[k]) for k in theta)
    assert float(price["price"]) == 6.0
    assert float(none["price"]) == 0.0
    gradient, _ = Hessian()(taught(student, Shown()), phi, batch)(p.live(theta))
    assert not p.pull_back(gradient, p.zeros_like(theta), phi)["price"].any()
