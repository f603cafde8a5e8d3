"""The repository as a fresh clone would have it: a build of the package leaves folders beside its sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.stack import ROOT


def copy_sources(folder: Path) -> Path:
    """Copy the files that git knows, or would take, into this folder."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder
