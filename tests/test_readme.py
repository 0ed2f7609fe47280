"""The README's code runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs(number):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_the_readme_has_code_and_exactly_the_two_commands():
    commands = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    assert BLOCKS
    assert [command.strip() for command in commands] == [
        "pip install -e . && commentaries learn weights",
        'pip install -e ".[dev]" && pytest -n 2',
    ]
