"""Small sets made for tests of what is coloured, pasted and put on backgrounds."""

import torch

from commentaries.data import LabelledImages


def drawings(n=200, classes=10, side=12, seed=0):
    """Grey images with ink of random brightness in a random box; classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 1, side, side)
    boxes = []
    for image in x:
        (top, left), size = (torch.randint(*ends, (2,), generator=generator).tolist()
                             for ends in ((0, side - 6), (2, 7)))  # fmt: skip
        image[0, top : top + size[0], left : left + size[1]] = 0.1 + 0.9 * torch.rand(
            size, generator=generator
        )
        boxes.append([top, left, top + size[0], left + size[1]])
    y = torch.arange(n) % classes
    files = tuple(f"{label}/{row}.png" for row, label in enumerate(y.tolist()))
    names = tuple(str(label) for label in range(classes))
    return LabelledImages(x, y, names, "strokes", files), torch.tensor(boxes)


def plain(classes, n=100, side=16):
    """Colour images of one colour each, which says which image it is: red is row / n."""
    x = torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    x[:, 0, 0, 0] = torch.arange(n) / n
    y = torch.arange(n) % len(classes)
    return LabelledImages(x.expand(n, 3, side, side).contiguous(), y, tuple(classes), "plain")


def which(pixels, n):
    """The rows of `plain` images of which these are red values."""
    return (pixels * n).round().long()


def same(a, b):
    """Whether two marked sets are equal in everything."""
    tensors = (("box",), ("cue",), ("group",))
    return (
        torch.equal(a.images.x, b.images.x)
        and torch.equal(a.images.y, b.images.y)
        and all(torch.equal(getattr(a, name), getattr(b, name)) for (name,) in tensors)
        and (a.images.files, a.cues, a.groups) == (b.images.files, b.cues, b.groups)
    )


def moved(marked, near):
    """All tensors of a marked set after `near`."""
    return [near(each) for each in (marked.images.x, marked.images.y, marked.box, marked.cue,
                                    marked.group)]  # fmt: skip
