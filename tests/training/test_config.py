"""Dataclasses from the JSON that they became, or a sentence of what does not fit."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from commentaries.errors import BadInput, BadRun, check_positive
from commentaries.training import RunFolder
from commentaries.training.config import read_config, rebuild


@dataclass(frozen=True)
class Inside:
    rate: float = 0.5
    names: tuple[str, ...] = ("a", "b")

    def __post_init__(self):
        check_positive("rate", self.rate)


@dataclass(frozen=True)
class Outside:
    where: Path = Path("x/y")
    count: int | None = None
    test: int | Path | None = 3
    pair: tuple[int, str] = (1, "one")
    flag: bool = True
    choice: Literal["this", "that"] = "this"
    inside: Inside = field(default_factory=Inside)
    kind: Literal["outside"] = "outside"


@dataclass(frozen=True)
class Other:
    kind: Literal["other"] = "other"


KINDS: dict[str, type] = {"outside": Outside, "other": Other}
WHOLE = {
    "where": "x/y", "count": None, "test": 3, "pair": [1, "one"], "flag": True, "choice": "this",
    "inside": {"rate": 0.5, "names": ["a", "b"]}, "kind": "outside",
}  # fmt: skip


def written(tmp_path, config):
    folder = RunFolder.create(tmp_path / "run", {})
    (folder.path / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        Outside(),
        Outside(count=4, test=Path("t"), inside=Inside(2.0, ())),
        Outside(test=None, flag=False, choice="that", pair=(0, "")),
        Other(),
    ],
)
def test_what_was_written_comes_back(tmp_path, config):
    found = read_config(RunFolder.create(tmp_path / "run", config), KINDS)
    assert found == config
    assert type(found) is type(config)


def test_whole_numbers_become_floats_and_lists_become_tuples():
    found = rebuild(Outside, {**WHOLE, "inside": {"rate": 2, "names": []}})
    assert (found.inside.rate, type(found.inside.rate)) == (2.0, float)
    assert found.inside.names == ()
    assert found.pair == (1, "one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": 1}, "it has more, which is not known"),
        ({"inside": {"rate": 1.0}}, "it lacks inside.names"),
        ({"inside": {"rate": 1.0, "names": [], "x": 0}}, "it has inside.x, which is not known"),
        ({"inside": None}, "inside is not an object"),
        ({"count": 1.5}, "count is 1.5"),
        ({"count": True}, "count is True"),
        ({"flag": 1}, "flag is 1"),
        ({"where": 3}, "where is 3"),
        ({"test": [1]}, "test is [1]"),
        ({"choice": "neither"}, "choice is 'neither'"),
        ({"choice": ["this"]}, "choice is ['this']"),
        ({"pair": [1]}, "pair is [1]"),
        ({"pair": [1, 2]}, "pair[1] is 2"),
        ({"pair": {"0": 1}}, "pair is {'0': 1}"),
        ({"inside": {"rate": "fast", "names": []}}, "inside.rate is 'fast'"),
        ({"inside": {"rate": 1.0, "names": ["a", 2]}}, "inside.names[1] is 2"),
        ({"kind": "outsight"}, "its kind is 'outsight', not one of outside, other"),
        ({"kind": None}, "its kind is None"),
        ({"kind": ["outside"]}, "its kind is ['outside']"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, message):
    folder = written(tmp_path, {**WHOLE, **changes})
    with pytest.raises(BadRun, match=re.escape(message)) as error:
        read_config(folder, KINDS)
    assert str(error.value).endswith("or start a new run.")
    assert str(folder.path) in str(error.value)


@pytest.mark.parametrize("config", [[1], "outside", None, 3])
def test_what_is_no_object(tmp_path, config):
    with pytest.raises(BadRun, match="it is not an object"):
        read_config(written(tmp_path, config), KINDS)


def test_of_another_kind_than_is_asked_for(tmp_path):
    with pytest.raises(BadRun, match="its kind is 'outside', not one of other"):
        read_config(written(tmp_path, WHOLE), {"other": Other})


def test_a_value_out_of_range_is_said_by_the_dataclass(tmp_path):
    folder = written(tmp_path, {**WHOLE, "inside": {"rate": -1.0, "names": []}})
    with pytest.raises(BadInput, match=re.escape("rate is -1.0, but must be positive")):
        read_config(folder, KINDS)
