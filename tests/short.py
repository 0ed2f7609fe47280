"""Networks that train for a moment, where tests have no need of good ones."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from commentaries.training import fit


def shorten(patch: pytest.MonkeyPatch, steps: int, *modules: ModuleType) -> None:
    """What these modules fit takes so many steps; the processes of other tests take their time."""

    def short_fit(student, examples, recipe, **options):
        return fit(student, examples, replace(recipe, steps=steps), **options)

    for module in modules:
        patch.setattr(module, "fit", short_fit)
