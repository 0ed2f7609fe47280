import re

import pytest
import torch
from drawings import moved, plain, same, which
from elsewhere import DEVICE, Elsewhere

from commentaries.data import LabelledImages, load, swapped_backgrounds
from commentaries.data.backgrounds import ANIMALS_AND_VEHICLES, WOODS_AND_OPEN
from commentaries.data.look_alikes import CIFAR100_SUPERCLASSES
from commentaries.data.named import default_root
from commentaries.errors import BadInput

THINGS = {"animal": ("cat", "dog"), "vehicle": ("car",)}
PLACES = {"woods": ("forest",), "open": ("sea", "cloud")}
KINDS = {"foregrounds": THINGS, "backgrounds": PLACES}


@pytest.fixture(scope="module")
def photos():
    """Random pixels of 7 x 7, a quarter of them of a class that is in no kind."""
    x = torch.rand(200, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200) % 4
    files = tuple(f"{row}.png" for row in range(200))
    return LabelledImages(x, y, ("car", "tree", "dog", "cat"), "pets", files)


@pytest.fixture(scope="module")
def scenes():
    return plain(("sea", "cloud", "forest", "road"), side=16)


def made(photos, scenes, **chosen):
    return swapped_backgrounds(photos, scenes, **{"seed": 0, "size": 7} | KINDS | chosen)


def test_photos_lie_in_their_boxes_and_scenes_beside_them(photos, scenes):
    found = made(photos, scenes)
    kept = (photos.y != 1).nonzero().flatten()
    assert found.images.files == tuple(f"{row}.png" for row in kept.tolist())
    assert found.images.y.tolist() == (photos.y[kept] == 0).long().tolist()
    assert found.images.classes == ("animal", "vehicle")
    assert (found.images.name, found.inside) == ("pets_on_plain", "label")
    assert found.images.x.shape == (150, 3, 16, 16)
    for row, (top, left, bottom, right) in enumerate(found.box.tolist()):
        inside = found.images.x[row, :, top:bottom, left:right]
        assert torch.equal(inside, photos.x[kept[row]])
    outside = ~found.region()
    red = (found.images.x[:, :1] * outside).flatten(1).amax(1)
    scene = which(red, len(scenes))
    outside = outside.expand(-1, 3, -1, -1)
    assert torch.equal(found.images.x[outside], scenes.x[scene][outside])
    kind = torch.tensor([1, 1, 0, -1])[scenes.y[scene]]
    assert torch.equal(kind, found.cue)


def test_a_photo_is_scaled(photos, scenes):
    flat = LabelledImages(photos.x[:, :, :1, :1].expand(-1, -1, 7, 7).contiguous(), photos.y,
                          photos.classes)  # fmt: skip
    for size in (1, 4, 16):
        found = made(flat, scenes, size=size)
        assert ((found.box[:, 2:] - found.box[:, :2]) == size).all()
        values = photos.x[photos.y != 1, :, :1, :1].expand_as(found.images.x)
        inside = found.region().expand_as(values)
        torch.testing.assert_close(found.images.x[inside], values[inside])


@pytest.mark.parametrize("correlation", [0, 0.5, 0.95, 1])
def test_groups_are_things_on_backgrounds_in_exact_numbers(photos, scenes, correlation):
    found = made(photos, scenes, correlation=correlation)
    assert found.groups == ("animal, woods", "animal, open", "vehicle, woods", "vehicle, open")
    assert found.cues == ("woods", "open")
    assert torch.equal(found.group, 2 * found.images.y + found.cue)
    own, other = (round(correlation * n) for n in (100, 50))
    expected = [own, 100 - own, 50 - other, other]
    assert found.group.bincount(minlength=4).tolist() == expected


def test_scenes_are_used_evenly(photos, scenes):
    found = made(photos, scenes, correlation=0.5)
    corners = found.images.x[:, 0, 0, 0], found.images.x[:, 0, -1, -1]
    beside = torch.where(found.region()[:, 0, 0, 0], corners[1], corners[0])
    uses = which(beside, 100).bincount(minlength=100)
    assert uses[scenes.y == 3].sum() == 0
    assert set(uses[scenes.y == 2].tolist()) == {3}  # 75 images, 25 scenes of woods
    assert set(uses[scenes.y < 2].tolist()) == {1, 2}  # 75 and 50


def test_places_are_uniform_and_do_not_depend_on_the_correlation(scenes):
    n = 8_000
    x = torch.rand(2, 3, 4, 4).repeat(n // 2, 1, 1, 1)
    many = LabelledImages(x, torch.arange(n) % 2, ("car", "dog"))
    kinds = {"foregrounds": {"animal": ("dog",), "vehicle": ("car",)}, "size": 13}
    boxes = [made(many, scenes, correlation=share, **kinds).box for share in (0.5, 0.95)]
    assert torch.equal(*boxes)
    counts = (4 * boxes[0][:, 0] + boxes[0][:, 1]).bincount()
    assert len(counts) == 4 * 4
    # chi-squared of 15 degrees of freedom: above 37.7 once in a thousand times
    assert float(((counts - n / 16) ** 2).sum() / (n / 16)) < 37.7


def test_it_is_a_function_of_the_seed(photos, scenes):
    before, state = scenes.x.clone(), torch.get_rng_state()
    one, again, other = (made(photos, scenes, seed=seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert not torch.equal(one.box, other.box)
    assert torch.equal(scenes.x, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [7, 9])
def test_elsewhere_it_is_the_same(photos, scenes, size):
    here = made(photos, scenes, size=size)
    with Elsewhere():
        there = made(photos.to(DEVICE), scenes, size=size)
        found = moved(there, lambda each: each.near)
    assert all(map(torch.equal, found, moved(here, lambda each: each)))


NO_FOREST = plain(("sea", "cloud", "forest"), n=2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correlation": 2}, "correlation is 2, but must be"),
        ({"size": 17}, "size is 17, but a photo of that many pixels must fit into 16 x 16."),
        ({"foregrounds": {"animal": ("dog",)}}, "There are 1 kinds of photos. Name exactly two."),
        ({"foregrounds": THINGS | {"plant": ("tree",)}}, "There are 3 kinds of photos."),
        ({"foregrounds": {"animal": ("dgo",), "vehicle": ("car",)}},
         "There is no class of the photos pets 'dgo'. Did you mean 'dog'?"),
        ({"backgrounds": {"woods": ("forest", "sea"), "open": ("sea",)}},
         "The class 'sea' of the scenes stands twice. Name it once."),
        ({"backgrounds": {"woods": (), "open": ("sea",)}},
         "No scenes of the kind 'woods' are in plain. Give at least one image of its classes."),
        ({"scenes": NO_FOREST}, "No scenes of the kind 'woods' are in plain. Give at least one "
         "image of forest."),
        ({"scenes": LabelledImages(torch.rand(2, 1, 9, 9), torch.arange(2), ("sea", "forest"))},
         "The scenes images have the shape (2, 1, 9, 9). Give colour images"),
    ],
)  # fmt: skip
def test_bad_input(photos, scenes, changed, message):
    given = {"photos": photos, "scenes": scenes} | changed
    with pytest.raises(BadInput, match=re.escape(message)):
        made(given.pop("photos"), given.pop("scenes"), **given)


def test_the_classes_by_default_are_those_of_cifar():
    from commentaries.data.look_alikes import look_alikes

    ten = [name for names in ANIMALS_AND_VEHICLES.values() for name in names]
    assert look_alikes(ten)  # known as the ten of CIFAR-10
    hundred = CIFAR100_SUPERCLASSES.split()
    assert {name for names in WOODS_AND_OPEN.values() for name in names} <= set(hundred)


def test_real_photos_on_real_scenes():
    for folder, name in (("cifar-10-batches-py", "cifar10"), ("cifar-100-python", "cifar100")):
        if not (default_root() / folder).exists():
            pytest.skip(f"{name} is not in {default_root()}; set COMMENTARIES_DATA")
    photos = load("cifar10", "test").rows(torch.arange(2000))
    found = swapped_backgrounds(photos, load("cifar100", "test"), seed=0)
    assert found.images.x.shape == (2000, 3, 32, 32)
    assert found.images.y.bincount().tolist() == (
        torch.isin(photos.y, torch.tensor([0, 1, 8, 9])).long().bincount().tolist()
    )
    agreeing = float((found.cue == found.images.y).double().mean())
    assert abs(agreeing - 0.95) < 1e-3
