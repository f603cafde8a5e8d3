"""Files below a folder, opened so that no name leads out of it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePath
from typing import BinaryIO


def open_below(root: Path, name: str) -> BinaryIO:
    """Open the regular file `name`, a relative path, below the folder `root` for reading.

    `root` may be a symlink, but nothing below it. Raises OSError, and ValueError for what can't be a name.
    """
    path = PurePath(name)
    if path.anchor or ".." in path.parts or not path.parts:
        raise ValueError("not a path below the folder")
    # Each folder is opened from its parent, so a folder that is replaced by a symlink meanwhile is an error.
    opened = _open_stepwise(root, path.parts) if os.open in os.supports_dir_fd else _open_checked(root, path)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(opened, "rb")


def reason_of(error: OSError | ValueError) -> str:
    """Why a file couldn't be opened or read, without its name."""
    if isinstance(error, UnicodeError):  # because its text tells a letter of the name
        return "its name has letters that the locale's encoding lacks: let it be UTF-8, by LC_ALL=C.UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _open_stepwise(root: Path, names: tuple[str, ...]) -> int:
    *folders, file = names
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folders:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # A named pipe would block until somebody writes.
        return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)


def _open_checked(root: Path, path: PurePath) -> int:
    """Check, then open: for systems that can't open a folder from its parent (Windows)."""
    whole = root.resolve() / path
    if os.path.realpath(whole, strict=True) != str(whole) or not whole.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    return os.open(whole, os.O_RDONLY | getattr(os, "O_BINARY", 0))
