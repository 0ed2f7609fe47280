import re

import pytest
import torch

from commentaries.data import LabelledImages, Marked
from commentaries.errors import BadInput

N = 5


def marked(**changed):
    given = {
        "images": LabelledImages(
            torch.rand(N, 3, 6, 8), torch.tensor([0, 1, 0, 1, 1]), ("a", "b"), "pets",
            tuple(f"{row}.png" for row in range(N)),
        ),
        "box": torch.tensor([[0, row, 2 + row, 4 + row] for row in range(N)]),
        "inside": "label",
        "cue": torch.tensor([0, 1, 1, 0, 2]),
        "cues": ("red", "green", "blue"),
        "group": torch.tensor([0, 0, 1, 1, 1]),
        "groups": ("agrees", "disagrees"),
    }  # fmt: skip
    return Marked(**given | changed)


@pytest.mark.parametrize(
    "index", [torch.tensor([4, 1, 1]), torch.tensor([False, True, False, False, True])]
)
def test_rows_stay_aligned(index):
    some = marked()
    part = some.rows(index)
    where = index.tolist() if index.dtype == torch.int64 else [1, 4]
    assert len(part) == len(where)
    assert torch.equal(part.images.x, some.images.x[where])
    for name in ("box", "cue", "group"):
        assert torch.equal(getattr(part, name), getattr(some, name)[where])
    assert part.images.y.tolist() == some.images.y[where].tolist()
    assert part.images.files == tuple(f"{row}.png" for row in where)
    assert (part.inside, part.cues, part.groups) == (some.inside, some.cues, some.groups)


def test_no_rows_at_all():
    none = marked().rows(torch.tensor([], dtype=torch.int64))
    assert (len(none), none.region().shape) == (0, (0, 1, 6, 8))


def test_the_region_is_what_the_box_cuts_out():
    some = marked()
    inside = some.region()
    assert inside.shape == (N, 1, 6, 8)
    for row, (top, left, bottom, right) in enumerate(some.box.tolist()):
        assert int(inside[row].sum()) == (bottom - top) * (right - left)
        assert bool(inside[row, 0, top:bottom, left:right].all())


def test_to_a_device():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = marked().to(device)
    tensors = (there.images.x, there.images.y, there.box, there.cue, there.group, there.region())
    assert {each.device.type for each in tensors} == {device}
    assert there.rows(torch.tensor([4])).cue.tolist() == [2]


def box(*row):
    return torch.tensor([[0, 0, 6, 8]] * 3 + [list(row)] + [[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": LabelledImages(torch.rand(N, 4), torch.arange(N), tuple("abcde"), "flat")},
         "flat: features of shape (5, 4) have no places. Give images"),
        ({"box": torch.zeros(4, 4, dtype=torch.int64)}, "pets: boxes of shape (4, 4) and type "
         "torch.int64 do not fit 5 images. Give whole numbers (torch.int64) of shape (5, 4)."),
        ({"box": torch.rand(5, 4)}, "pets: boxes of shape (5, 4) and type torch.float32"),
        ({"cue": torch.zeros(5, 1, dtype=torch.int64)}, "pets: cues of shape (5, 1)"),
        ({"group": torch.zeros(4, dtype=torch.int64)}, "pets: groups of shape (4,)"),
        ({"inside": "nothing"}, "pets: inside is 'nothing'. Say 'label'"),
        ({"cues": ("red", "red", "blue")}, "pets: a cue is named twice"),
        ({"groups": ("all", "all")}, "pets: a group is named twice"),
        ({"cues": ("red", "green")}, "pets: the cue 2 at position 4 is out of range for 2 names"),
        ({"group": torch.tensor([0, 1, -1, 0, 0])}, "pets: the group -1 at position 2 is out of"),
        *(({"box": box(*row)}, f"pets: the box {list(row)} at position 3 is empty or not within "
           "6 x 8 pixels.")
          for row in ((2, 0, 2, 5), (0, 5, 2, 5), (3, 0, 2, 5), (-1, 0, 2, 5), (0, -1, 2, 5),
                      (0, 0, 7, 8), (0, 0, 6, 9))),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changed, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        marked(**changed)
