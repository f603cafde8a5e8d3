"""Small files that are there whole or not at all: another process may read them, and this one be killed, any time."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import msgspec


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in the place of the one of this name, in a folder that is made if need be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
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
