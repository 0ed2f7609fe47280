"""Which classes are taken for which others: asymmetric label noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import BadInput


class _Table(NamedTuple):
    """Names of all classes of a set, and the flips between them."""

    classes: frozenset[str]
    flips: dict[str, str]


def look_alikes(classes: Sequence[str]) -> dict[int, int]:
    """The class that each affected class is taken for, both as positions in `classes`.

    Sets are recognised by the names of their classes, in any order:

    - mnist, digits, svhn ("0" to "9"): 7 → 1, 2 → 7, 5 ↔ 6, 3 → 8 (Patrini et al. 2017);
    - cifar10: truck → automobile, bird → airplane, deer → horse, cat ↔ dog (the same);
    - cifar100: to the next class of the same superclass by its number, from the last to the
      first; all 100 classes are affected (the same);
    - fashion_mnist: T-shirt/top ↔ Shirt, Pullover ↔ Coat, Sandal → Sneaker, Sneaker → Ankle boot.

    Raises:
        BadInput: Classes of none of these sets.

    Reference: Patrini et al., "Making deep neural networks robust to label noise: a loss
    correction approach", CVPR 2017, section 5.
    """
    for table in _tables():
        if table.classes == set(classes):
            place = {name: i for i, name in enumerate(classes)}
            return {place[name]: place[other] for name, other in table.flips.items()}
    named = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    raise BadInput(
        f"Asymmetric noise does not know which of the classes {named} look alike. Use it with "
        "digits, mnist, svhn, fashion_mnist, cifar10 or cifar100, or choose pair noise."
    )


def _tables() -> Iterator[_Table]:
    digits = {"7": "1", "2": "7", "5": "6", "6": "5", "3": "8"}
    yield _Table(frozenset("0123456789"), digits)
    cifar10 = {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }
    yield _Table(frozenset({*cifar10, *cifar10.values(), "frog", "ship"}), cifar10)
    fashion = {
        "T-shirt/top": "Shirt",
        "Shirt": "T-shirt/top",
        "Pullover": "Coat",
        "Coat": "Pullover",
        "Sandal": "Sneaker",
        "Sneaker": "Ankle boot",
    }
    others = {"Trouser", "Dress", "Bag"}
    yield _Table(frozenset({*fashion, *fashion.values(), *others}), fashion)
    superclasses = [line.split() for line in CIFAR100_SUPERCLASSES.splitlines()]
    cifar100 = {
        name: members[(i + 1) % len(members)]
        for members in superclasses
        for i, name in enumerate(members)
    }
    yield _Table(frozenset(cifar100), cifar100)


CIFAR100_SUPERCLASSES = """\
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor"""
"""One superclass a line, its classes in the order of their numbers, which is alphabetical."""
