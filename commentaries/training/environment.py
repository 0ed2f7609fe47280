"""What a run's numbers depend on besides its configuration."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("commentaries", "torch", "torchvision", "numpy")


def describe(device: str | torch.device = "cpu") -> dict[str, Any]:
    """The machine and the software, as an object for ``environment.json``.

    Args:
        device: Where the run computes.

    Returns:
        python, versions (package -> version, None where it is not installed), platform,
        processor, device (as torch names it), device_name (as its maker does), threads (of
        torch's CPU kernels) and commit (of this library, "-dirty" after it where a file differs;
        None outside a checkout).
    """
    place = torch.device(device)
    processor = _processor()
    on_gpu = place.type == "cuda" and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES}
        | {"torch": str(torch.__version__)},  # the metadata lacks its build, such as +cu132
        "platform": platform.platform(),
        "processor": processor,
        "device": str(place),
        "device_name": torch.cuda.get_device_name(place) if on_gpu else processor,
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def commit() -> str | None:
    """The git commit of this library, or None where it does not run from a checkout."""
    here = Path(__file__).resolve()
    try:
        # Tracked there? Otherwise the checkout is a user's, with us somewhere in its .venv.
        _git("ls-files", "--error-unmatch", here.name, folder=here.parent)
        return _git(
            "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=here.parent
        )
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str, folder: Path) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model of the CPU; Linux tells it only in /proc."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
