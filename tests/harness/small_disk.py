"""A disk of some megabytes that a test may fill."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import FileIO
from pathlib import Path

_FILLER = "filler"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk in memory, at `folder`, until the end. Raises CalledProcessError where this user may mount none."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@cache
def can_mount() -> Path | None:
    """The root of all disks, if this user may mount one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder, "disk"), 1):
                return Path("/")
        except (OSError, subprocess.CalledProcessError):
            return None


def fill(disk: Path) -> None:
    """Take all the room that is left."""
    with (disk / _FILLER).open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            while _takes(file, size):
                pass


def make_room(disk: Path) -> None:
    """Take no room any more."""
    (disk / _FILLER).unlink(missing_ok=True)


def _takes(file: FileIO, size: int) -> bool:
    try:
        return file.write(bytes(size)) == size
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
