"""What a Python process of our own is started with."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def python_command(module: str) -> list[str]:
    """The command that runs this module of ours."""
    return [sys.executable, "-m", module]


def python_environment() -> dict[str, str]:
    """The environment in which it is found, also where the package isn't installed."""
    path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
