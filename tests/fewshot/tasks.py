"""Small smooth students and tasks, which the tests of few-shot learning share."""

import torch
from torch import nn

from commentaries import ExampleWeights, Student
from commentaries.fewshot import MAML, Episodes, SupportNetwork, part
from commentaries.inner import SGD


def build(dtype=torch.float64):
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    ).to(dtype)  # fmt: skip


def episodes(dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(2)
    y = torch.arange(6).repeat_interleave(9)
    centres = 1.5 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    x = centres[y] + torch.randn(54, 4, generator=generator, dtype=torch.float64)
    return Episodes(x.to(dtype), y, **({"way": 3, "shot": 4, "query": 5} | options))


def commentary(dtype=torch.float64, normalise="sum"):
    network = SupportNetwork(lambda: nn.Linear(4, 5).to(dtype), 5, width=4)
    return ExampleWeights(network, normalise)


def maml(dtype=torch.float64, **options):
    options = {"optimizer": SGD(0.3), "steps": 3} | options
    return MAML(Student(lambda: build(dtype)), **options)


def drawn(model, dtype=torch.float64, seed=0):
    """φ with nothing left at zero, and rates that differ."""
    generator = torch.Generator().manual_seed(seed)
    phi = model.init(generator)
    return {
        k: (v + 0.1 * torch.randn(v.shape, generator=generator)).to(dtype) for k, v in phi.items()
    }


def query_loss(model, tasks):
    """φ -> mean loss of the query sets after adaptation, without any derivative of ours."""

    def loss(phi):
        values = []
        for episode in tasks:
            *_, theta = model.adapt(phi, episode)
            values.append(model.task(episode).outer(theta, part(phi, "teacher."), episode.query))
        return torch.stack(values).mean().detach()

    return loss
