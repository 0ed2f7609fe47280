"""Weights from files, networks from elsewhere, frozen backbones."""

import importlib.util

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from commentaries.errors import BadInput
from commentaries.networks import Frozen, backbone, build, embed, resnet18
from commentaries.networks.normalise import IMAGENET_MEAN, IMAGENET_STD
from commentaries.student import Student
from commentaries.training import Examples, Recipe, fit, log_probabilities
from commentaries.types import Batch

timm_is_here = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)
TV = "torchvision:shufflenet_v2_x0_5"  # the smallest there is


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def used(module, channels=3, size=32):
    """The module with the running statistics of some images, so that its answers differ."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the plain average
    x = torch.rand(12, channels, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module.train()(x)
        z = module.eval()(x)
    assert float(z.std(0).min()) > 1e-2
    return module


@pytest.fixture(scope="module")
def small():
    return used(resnet18(6, width=4))


@pytest.fixture(scope="module")
def published():
    """A torchvision network with a head for 1000 classes, as its published weights are."""
    from torchvision import models

    return used(models.shufflenet_v2_x0_5(weights=None))


@pytest.fixture
def small_file(tmp_path, small):
    torch.save(small.state_dict(), tmp_path / "small.pt")
    return tmp_path / "small.pt"


@pytest.fixture(scope="module")
def published_file(tmp_path_factory, published):
    path = tmp_path_factory.mktemp("weights") / "published.pt"
    torch.save(published.state_dict(), path)
    return path


def from_file(path, outputs=6, **options):
    return build("resnet18", outputs, channels=3, size=32, weights=path, width=4, **options)


X = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))

WAYS = {
    "plain": lambda state: state,
    "nested": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": torch.ones(1)}},
    "module.": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {
        "state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}
    },
    "own": lambda state: (
        {f"network.{k}": v for k, v in state.items()}
        | {"normalise.mean": torch.zeros(3), "normalise.std": torch.ones(3)}
    ),
    "no counters": lambda state: {
        k: v for k, v in state.items() if not k.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_of_a_file(tmp_path, small, way):
    path = tmp_path / "weights.pt"
    torch.save(WAYS[way](small.state_dict()), path)
    torch.testing.assert_close(from_file(path).eval()(X), small(X))


def test_safetensors(tmp_path, small):
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{k}": v for k, v in small.state_dict().items()}, path)
    assert torch.equal(from_file(path).eval()(X), small(X))


def test_a_head_for_other_classes_is_dropped(small_file, small):
    network = from_file(small_file, 9)
    assert network.eval()(X).shape == (5, 9)
    own, theirs = network.state_dict(), small.state_dict()
    same = {key for key in own if own[key].shape == theirs[key].shape
            and torch.equal(own[key], theirs[key])}  # fmt: skip
    fresh = {key for key in set(own) - same if not key.endswith("num_batches_tracked")}
    assert fresh == {"fc.weight", "fc.bias"}


def test_a_built_network_can_be_saved_and_loaded(tmp_path):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    network = used(build("cbr", 4, channels=3, size=16, mean=mean, std=std), size=16)
    torch.save(network.state_dict(), tmp_path / "own.pt")
    # its normalisation comes with it
    again = build("cbr", 4, channels=3, size=16, weights=tmp_path / "own.pt").eval()
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(again(x), network(x))


def test_init_is_the_file_and_a_drawn_head(small_file, small):
    student = Student(lambda: from_file(small_file, 9))
    a, b, c = (student.init(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a["conv1.weight"], small.state_dict()["conv1.weight"])
    assert torch.equal(a["fc.weight"], b["fc.weight"])
    assert not torch.equal(a["fc.weight"], c["fc.weight"])


# Frozen


def frozen_student(path):
    return Student(lambda: from_file(path, 4, frozen=True))


def test_a_frozen_backbone_is_a_constant_of_a_training_pass(small_file, small):
    student = frozen_student(small_file)
    theta = student.init(torch.Generator().manual_seed(0))
    assert list(theta) == ["head.weight", "head.bias"]
    features = features_of(small, X)
    expected = features @ theta["head.weight"].mT + theta["head.bias"]
    # each example alone: no statistics of its batch
    torch.testing.assert_close(student(theta, X, seed=0), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(student(theta, X[:1], seed=0), expected[:1], rtol=1e-4, atol=1e-5)
    assert not student.uses_batch_statistics
    batch = Batch(X, torch.zeros(5), torch.arange(5))
    assert student.statistics(theta, [batch]) == {}
    assert student.statistics(theta, []) == {}  # no image needs to be looked at
    torch.testing.assert_close(
        student(theta, X, buffers={}), student(theta, X, seed=0), rtol=1e-6, atol=1e-6
    )


def features_of(network, x):
    body = resnet18(6, width=4)
    body.load_state_dict(network.state_dict())
    body.fc = nn.Identity()
    with torch.no_grad():
        return body.eval()(x)


def test_training_on_a_frozen_backbone_moves_the_head_alone(small_file, small):
    student = frozen_student(small_file)
    before = [value.clone() for part in student.modules() for value in part.state_dict().values()]
    x = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    examples = Examples(x, torch.arange(24) % 4, torch.ones(24))
    theta = fit(student, examples, Recipe(8, batch=8), seed=0)
    opinion = log_probabilities(student, theta, x, seen=x)
    after = [value for part in student.modules() for value in part.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    start = student.init(torch.Generator().manual_seed(0))
    assert not any(torch.equal(theta[name], start[name]) for name in start)
    features = features_of(small, x)
    logits = features @ theta["head.weight"].mT + theta["head.bias"]
    torch.testing.assert_close(opinion, logits.log_softmax(1), rtol=1e-4, atol=1e-5)


def test_frozen_stays_in_evaluation_mode():
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    network = nn.Sequential(Frozen(body), nn.Linear(72, 2)).train()
    assert network.training
    assert not any(part.training for part in network[0].modules())
    assert not any(value.requires_grad for value in network[0].parameters())
    x = torch.rand(3, 1, 8, 8)
    before = body[1].running_mean.clone()
    assert torch.equal(network(x), network(x))
    assert torch.equal(body[1].running_mean, before)


def test_only_the_part_that_trains_has_statistics():
    module = nn.Sequential(
        Frozen(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(8))), nn.Linear(8, 3), nn.BatchNorm1d(3)
    )
    student = Student(module)
    assert student.uses_batch_statistics
    theta = student.parameters()
    batch = Batch(torch.randn(9, 8), torch.zeros(9), torch.arange(9))
    assert set(student.statistics(theta, [batch])) == {"2.running_mean", "2.running_var"}


def test_frozen_statistics_of_other_makers_do_not_ask_for_batches():
    from torchvision.ops import FrozenBatchNorm2d

    student = Student(nn.Sequential(nn.Conv2d(1, 2, 3), FrozenBatchNorm2d(2)))
    batch = Batch(torch.rand(2, 1, 5, 5), torch.zeros(2), torch.arange(2))
    assert student.statistics(student.parameters(), [batch]) == {}


# torchvision


def test_a_torchvision_network_is_itself(published_file, published):
    network = build(TV, 1000, channels=3, size=32, weights=published_file).eval()
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(network(X), published((X - mean) / std))
    without = build(TV, 1000, channels=3, size=32)
    assert list(without.state_dict()) == list(published.state_dict())


def test_a_grey_image_is_a_colour_image_without_colour(published_file):
    grey = X[:, :1]
    colour = grey.expand(-1, 3, -1, -1)
    one = build(TV, 1000, channels=1, size=32, weights=published_file).eval()
    three = build(TV, 1000, channels=3, size=32, weights=published_file).eval()
    torch.testing.assert_close(one(grey), three(colour), rtol=1e-4, atol=1e-4)
    # with a normalisation for grey the first kernel is summed over its colours
    given = {"weights": published_file, "mean": (0.4,), "std": (0.2,)}
    summed = build(TV, 1000, channels=1, size=32, **given).eval()
    same = {"weights": published_file, "mean": (0.4,) * 3, "std": (0.2,) * 3}
    expected = build(TV, 1000, channels=3, size=32, **same).eval()(colour)
    assert float(expected.detach().std(0).mean()) > 0.05
    torch.testing.assert_close(summed(grey), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "googlenet", "swin_t"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_torchvision_network(name, channels):
    network = build(f"torchvision:{name}", 7, channels=channels, size=32)
    assert network.training
    assert network(torch.rand(2, channels, 32, 32)).shape == (2, 7)


def test_backbone_and_embed(published_file, published):
    body = backbone(TV, published_file, channels=3)
    assert not body.training
    assert not any(value.requires_grad for value in body.parameters())
    before = {key: value.clone() for key, value in body.state_dict().items()}
    x = torch.rand(11, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = embed(body, x, batch=4)
    assert found.shape == (11, 1024)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, embed(body.train(), x), rtol=1e-4, atol=1e-5)
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(
        found @ published.fc.weight.mT + published.fc.bias,
        published((x - mean) / std), rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    grey = embed(backbone(TV, published_file, channels=1), x[:, :1])
    torch.testing.assert_close(grey, embed(body, x[:, :1].expand(-1, 3, -1, -1)))
    after = body.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_backbone_of_an_own_network(tmp_path):
    network = used(build("cbr", 4, channels=1, size=16, mean=(0.3,), std=(0.2,)), 1, 16)
    torch.save(network.state_dict(), tmp_path / "own.pt")
    x = torch.rand(3, 1, 16, 16)
    body = backbone("cbr", tmp_path / "own.pt", channels=1, size=16)
    last = network.get_submodule("network.9")
    torch.testing.assert_close(last(embed(body, x)), network(x))


# timm


@timm_is_here
@pytest.mark.parametrize("channels", [1, 3])
def test_a_timm_network(tmp_path, channels):
    import timm

    theirs = used(timm.create_model("resnet10t", pretrained=False, num_classes=11))
    save_file(theirs.state_dict(), tmp_path / "timm.safetensors")
    path = tmp_path / "timm.safetensors"
    student = Student(lambda: build("timm:resnet10t", 4, channels=channels, size=32, weights=path))
    theta = student.init(torch.Generator().manual_seed(0))
    x = X[:, :channels]
    assert student(theta, x, seed=0).shape == (5, 4)
    assert torch.equal(theta["network.conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])
    body = backbone("timm:resnet10t", path, channels=channels)
    features = embed(body, x)
    settings = theirs.default_cfg
    mean, std = (torch.tensor(settings[each])[:, None, None] for each in ("mean", "std"))
    torch.testing.assert_close(theirs.fc(features), theirs((x - mean) / std))
    frozen = Student(
        lambda: build("timm:resnet10t", 4, channels=channels, size=32, weights=path, frozen=True)
    )
    assert set(frozen.parameters()) == {"network.head.weight", "network.head.bias"}


@timm_is_here
@pytest.mark.parametrize(
    ("name", "size"), [("mobilenetv3_small_050", 32), ("vit_tiny_patch16_224", 224)]
)
def test_any_timm_network(name, size):
    assert build(f"timm:{name}", 3, channels=1, size=size)(torch.rand(2, 1, size, size)).shape == (
        (2, 3)
    )


@timm_is_here
def test_timm_refusals(tmp_path):
    with pytest.raises(BadInput, match=r"no timm model 'resnet10tt'\. Did you mean 'resnet10t'"):
        build("timm:resnet10tt", 3, channels=3, size=32)
    with pytest.raises(BadInput, match=r"timm:vit_tiny_patch16_224 does not take .* 3 x 32 x 32"):
        build("timm:vit_tiny_patch16_224", 3, channels=3, size=32)


def test_without_timm(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"timm:resnet18 needs timm.*pip install timm"):
        build("timm:resnet18", 3, channels=3, size=32)


# Refusals


def test_torchvision_refusals(small_file, tmp_path):
    with pytest.raises(BadInput, match=r"no torchvision model 'resnet19'\. Did you mean 'resnet1"):
        build("torchvision:resnet19", 3, channels=3, size=32)
    with pytest.raises(
        BadInput, match=r"torchvision:vgg11 does not take images of 3 x 16 x 16 .*Resize them"
    ):
        build("torchvision:vgg11", 3, channels=3, size=16)
    with pytest.raises(BadInput, match="has no width to choose"):
        build("torchvision:resnet18", 3, channels=3, size=32, width=4)
    from torchvision import models

    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "squeeze.pt")
    with pytest.raises(BadInput, match="does not end in a linear layer"):
        backbone("torchvision:squeezenet1_1", tmp_path / "squeeze.pt", channels=3)


def test_weights_of_another_network(tmp_path, small, small_file):
    with pytest.raises(
        BadInput,
        match=r"small.pt do not fit resnet32: \d+ of its 1\d\d tensors are missing, \d+ in the "
        r"file are unexpected and \d+ have another shape \(first .*network it was saved from\.$",
    ):
        build("resnet32", 6, channels=3, size=32, weights=small_file, width=4)
    with pytest.raises(BadInput, match=r"0 of its 102 tensors are missing, 0 .* and 10[01] have"):
        build("resnet18", 6, channels=3, size=32, weights=small_file)
    state = small.state_dict()
    del state["bn1.bias"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(BadInput, match=r": 1 of its 102 tensors are missing.*first bn1.bias"):
        from_file(tmp_path / "part.pt")


class Evil:
    def __reduce__(self):
        return (print, ("never",))


def test_files_that_are_no_weights(tmp_path, small, capsys):
    with pytest.raises(BadInput, match=r"no weights file .*absent.pt.*nothing is downloaded"):
        from_file(tmp_path / "absent.pt")
    for name, content in (("text.pt", b"hello"), ("empty.pt", b""), ("text.safetensors", b"hi")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=rf"{name} is no file of weights"):
            from_file(tmp_path / name)
    with pytest.raises(BadInput, match="is no file of weights"):
        from_file(tmp_path)
    torch.save(small, tmp_path / "module.pt")
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    for name in ("module.pt", "evil.pt"):
        with pytest.raises(BadInput, match=rf"{name} is no file of weights.*state_dict\(\)"):
            from_file(tmp_path / name)
    assert not capsys.readouterr().out
    torch.save({"epoch": 3}, tmp_path / "nothing.pt")
    with pytest.raises(BadInput, match="holds no named tensors"):
        from_file(tmp_path / "nothing.pt")
    state = small.state_dict()
    torch.save(state | {"fc.bias": torch.full((6,), torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(
        BadInput, match=r"not finite in 1 of 122 tensors, the first of them fc\.bias"
    ):
        from_file(tmp_path / "nan.pt")


def test_embed_of_any_module_is_in_evaluation_mode():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).train()
    before = module[1].running_mean.clone()
    whole = embed(module, X)
    torch.testing.assert_close(whole[:1], embed(module, X[:1]))
    assert whole.shape == (5, 2 * 30 * 30)
    assert torch.equal(module[1].running_mean, before)


def test_embed_explains_images_that_are_too_small(tmp_path):
    from torchvision import models

    torch.save(models.alexnet(weights=None).state_dict(), tmp_path / "alexnet.pt")
    body = backbone("torchvision:alexnet", tmp_path / "alexnet.pt", channels=3)
    with pytest.raises(BadInput, match="The backbone does not take images of 3 x 32 x 32"):
        embed(body, X)
    with pytest.raises(BadInput, match="batch is 0"):
        embed(body, X, batch=0)
