"""Small files that are there whole or not at all: another process may read them, and this one be killed, any time."""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

_RANDOM_BYTES = 4
_HALF_WRITTEN = re.compile(rf"\..+\.[0-9a-f]{{{2 * _RANDOM_BYTES}}}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in the place of the one of this name, in a folder that is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM_BYTES)}")
    try:
        with making.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as `write_whole` does. Raises OSError."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(value), indent=2))


def remove_half_written(folder: Path, older_than_s: float = 0.0) -> None:
    """Remove the files of a folder that nobody finished writing, since so many seconds. Raises OSError."""
    before = time.time() - older_than_s
    for path in folder.glob(".*"):
        with suppress(FileNotFoundError):  # its writer was quicker
            if _HALF_WRITTEN.fullmatch(path.name) and path.stat().st_mtime <= before:
                path.unlink()
