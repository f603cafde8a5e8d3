"""Which browser the tests drive."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest

_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@cache
def find_chromium() -> Path | None:
    """The browser to drive: what `CHROMIUM` names, else the first one on the path, else playwright's own.

    Raises pytest.UsageError where `CHROMIUM` names no program.
    """
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else _CHROMIUM_NAMES:
        if found := shutil.which(name):
            return Path(found)
    if named:
        raise pytest.UsageError(f"CHROMIUM={named} is no program")
    return _playwrights_chromium()


def _playwrights_chromium() -> Path | None:
    """What `make browser` puts into playwright's own folder, or what playwright keeps in the user's cache."""
    from playwright.sync_api import sync_playwright

    for folder in ("0", None):
        with patch.dict(os.environ, {"PLAYWRIGHT_BROWSERS_PATH": folder} if folder else {}), sync_playwright() as own:
            path = Path(own.chromium.executable_path)
        if path.exists() and not subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
            return path  # and what it needs of the system is there, too
    return None
