"""Objects on backgrounds that go with their classes, after Waterbirds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import BadInput, unknown
from .boxes import CHUNK, drawn_places, placed, region
from .images import LabelledImages
from .marked import Marked, check_pictures, check_size
from .spurious import partners, spurious_cue

Kinds = Mapping[str, Sequence[str]]

ANIMALS_AND_VEHICLES: Kinds = {
    "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "vehicle": ("airplane", "automobile", "ship", "truck"),
}
"""The classes of "cifar10"."""

WOODS_AND_OPEN: Kinds = {
    "woods": ("forest", "maple_tree", "oak_tree", "pine_tree", "willow_tree"),
    "open": ("sea", "cloud", "plain"),
}
"""Classes of "cifar100" that make backgrounds."""


def swapped_backgrounds(
    photos: LabelledImages,
    scenes: LabelledImages,
    *,
    correlation: float = 0.95,
    seed: int,
    size: int = 20,
    foregrounds: Kinds = ANIMALS_AND_VEHICLES,
    backgrounds: Kinds = WOODS_AND_OPEN,
) -> Marked:
    """Photos of two kinds of things, shown small on scenes of two kinds.

    In exactly round(correlation · n_c) of the n_c images of a kind of things the background is of
    the scenes' kind of the same place in the mapping, by default animals in the woods and vehicles
    in the open; the others have the other one. Balanced groups have correlation 0.5, swapped ones
    0. Scenes are drawn, none twice before all of its kind have come: give training, trusted and
    test sets scenes of their own.

    A photo is scaled to `size` x `size` pixels, with antialiasing, and covers the scene within its
    box, at a place uniform over all where it fits. It brings along what is around the thing in the
    photo, a ship its water.

    Args:
        photos: (n, 3, h, w), such as "cifar10".
        scenes: (m, 3, height, width), such as "cifar100"; their size is that of the images made.
        correlation: Share of each kind of things on its own kind of background, in [0, 1].
        seed: Of everything random. The places do not depend on the correlation.
        size: Side of the photo in pixels.
        foregrounds: Name of each of the two new classes and the photos' classes it is made of.
            Photos of other classes are left out.
        backgrounds: Name of each of the two backgrounds and the scenes' classes it is made of.

    Returns:
        The images (n, 3, height, width) of the photos that are kept, in the order given, with
        labels in the order of `foregrounds`. box: the photo, which the label is about. cue: the
        kind of background. group: 2 · label + cue, each kind of thing on each kind of background.

    Raises:
        BadInput: Sets without three channels, other than two kinds, a class that a set does not
            have or that stands twice, a kind without an image, a photo larger than the scenes, a
            correlation out of range.

    Reference: after Sagawa et al., "Distributionally robust neural networks for group shifts",
    ICLR 2020 (Waterbirds, whose birds are cut out).
    """
    check_pictures(photos, "photos", 3)
    check_pictures(scenes, "scenes", 3)
    height, width = scenes.x.shape[2:]
    check_size(size, height, width, "a photo")
    scenes = scenes.to(photos.x.device)
    kept, y = _members(photos, foregrounds, "photos")
    usable, pool = _members(scenes, backgrounds, "scenes")
    generator = torch.Generator().manual_seed(seed)
    extent = torch.full((len(kept), 2), size)
    box = drawn_places(extent, height, width, generator).to(y.device)
    cue = spurious_cue(y, cues=2, correlation=correlation, generator=generator)
    scene = partners(cue, pool, kinds=tuple(backgrounds), generator=generator)
    x = scenes.x[usable[scene]]
    for rows in torch.arange(len(x), device=x.device).split(CHUNK):
        x[rows] = _covered(x[rows], photos.x[kept[rows]], box[rows], size)
    names = tuple(foregrounds), tuple(backgrounds)
    files = tuple(photos.files[row] for row in kept.cpu().tolist()) if photos.files else ()
    return Marked(
        images=LabelledImages(x, y, names[0], f"{photos.name}_on_{scenes.name}", files),
        box=box,
        inside="label",
        cue=cue,
        cues=names[1],
        group=2 * y + cue,
        groups=tuple(f"{thing}, {background}" for thing in names[0] for background in names[1]),
    )


def _covered(scene: Tensor, photo: Tensor, box: Tensor, size: int) -> Tensor:
    small = photo
    if photo.shape[2:] != (size, size):
        small = interpolate(photo, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    height, width = scene.shape[2:]
    return torch.where(region(box, height, width), placed(small, box[:, :2], height, width), scene)


def _members(images: LabelledImages, kinds: Kinds, what: str) -> tuple[Tensor, Tensor]:
    """(m,) positions of the images of the classes named, and (m,) which kind each is of."""
    if len(kinds) != 2:
        raise BadInput(f"There are {len(kinds)} kinds of {what}. Name exactly two.")
    members = [name for classes in kinds.values() for name in classes]
    for name in members:
        if name not in images.classes:
            raise unknown(f"class of the {what} {images.name}", name, images.classes)
        if members.count(name) > 1:
            raise BadInput(f"The class {name!r} of the {what} stands twice. Name it once.")
    kind_of = torch.full((len(images.classes),), -1)
    for kind, classes in enumerate(kinds.values()):
        kind_of[[images.classes.index(name) for name in classes]] = kind
    kind = kind_of.to(images.y.device)[images.y]
    for i, name in enumerate(kinds):
        if not bool((kind == i).any()):
            raise BadInput(
                f"No {what} of the kind {name!r} are in {images.name}. Give at least one image of "
                f"{', '.join(kinds[name]) or 'its classes'}."
            )
    rows = (kind >= 0).nonzero().flatten()
    return rows, kind[rows]
