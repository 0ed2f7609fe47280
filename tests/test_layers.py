"""The layers of DESIGN.md, section 2: a file imports only from layers before its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "commentaries"

LAYERS = [
    ["types", "errors", "params", "tree"],
    ["kernels"],
    ["primitives", "problem", "student"],
    ["curvature", "inner", "solvers"],
    ["hypergradient", "commentary", "networks"],
    ["fewshot", "landscape", "data"],
    ["training"],
    ["cleaning", "teaching"],
    ["report"],
    ["cli"],
]
# Single files of one layer may import one another; folders of one layer may not.
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}
FREE = {"__init__", "__main__"}  # the public names and `python -m commentaries`
HEAVY = ["matplotlib", "sklearn", "jinja2", "tyro", "torchvision", "scipy", "pandas", "higher"]


def unit_of(path: Path) -> str:
    """The file or folder directly under the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(source: str, package: tuple[str, ...]) -> set[str]:
    """Units of `commentaries` that a file imports, wherever in the file the import stands.

    Args:
        source: The file's text.
        package: The package the file is in, from ``commentaries`` down.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            # `from .. import params`: the names themselves are the units
            modules = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {parts[1] for parts in modules if parts[0] == "commentaries" and len(parts) > 1}
    return found


def allowed(unit: str, other: str) -> bool:
    if other == unit:
        return True
    if other == "report":
        return unit == "cli"
    if other not in LEVEL:  # a public name: `from commentaries import Student`
        return False
    if LEVEL[other] == LEVEL[unit]:
        return not any((PACKAGE / each).is_dir() for each in (unit, other))
    return LEVEL[other] < LEVEL[unit]


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_and_folder_has_a_layer():
    units = {unit_of(path) for path in FILES} - FREE
    unknown = sorted(units - LEVEL.keys())
    assert not unknown, (
        f"commentaries/ holds {unknown}, which have no layer. Put them where DESIGN.md section 2 "
        "has them, or give them a place in LAYERS of tests/test_layers.py and in the README."
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_layers_before(path):
    unit = unit_of(path)
    if unit in FREE:
        return
    package = ("commentaries", *path.relative_to(PACKAGE).parts[:-1])
    late = sorted(
        other for other in imported_units(path.read_text(), package) if not allowed(unit, other)
    )
    assert not late, f"{path.relative_to(PACKAGE)} ({unit}) imports {late}, not of an earlier layer"


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import commentaries.cli", ("commentaries",), {"cli"}),
        ("from . import params, tree", ("commentaries",), {"params", "tree"}),
        ("from .. import params as p", ("commentaries", "inner"), {"params"}),
        ("from .gradient import x", ("commentaries", "curvature"), {"curvature"}),
        ("from ..curvature.hessian import H", ("commentaries", "inner"), {"curvature"}),
        ("from commentaries.data import load", ("commentaries", "inner"), {"data"}),
        ("def f():\n    from ..report import page", ("commentaries", "training"), {"report"}),
        ("from ... import data", ("commentaries", "a", "b"), {"data"}),
        ("import torch\nfrom torch import nn", ("commentaries",), set()),
        ("from commentaries import Student", ("commentaries",), {"Student"}),
    ],
)
def test_the_walk_sees_every_form_of_import(source, package, expected):
    assert imported_units(source, package) == expected


@pytest.mark.parametrize(
    ("unit", "other", "expected"),
    [
        ("inner", "curvature", False),
        ("curvature", "inner", False),
        ("solvers", "inner", False),
        ("solvers", "curvature", False),
        ("hypergradient", "commentary", False),
        ("hypergradient", "inner", True),
        ("commentary", "student", True),
        ("params", "types", True),
        ("types", "student", False),
        ("training", "report", False),
        ("cleaning", "report", False),
        ("report", "training", True),
        ("cli", "report", True),
        ("cleaning", "training", True),
        ("training", "cleaning", False),
        ("training", "Student", False),
    ],
)
def test_the_rule(unit, other, expected):
    assert allowed(unit, other) == expected


def test_importing_the_package_loads_torch_and_nothing_heavier():
    code = (
        "import sys; before = set(sys.modules); import torch; torch_only = set(sys.modules)\n"
        "import commentaries, commentaries.hypergradient, commentaries.commentary\n"
        f"print([m for m in {HEAVY} if m in sys.modules and m not in torch_only])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
