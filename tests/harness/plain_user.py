"""A user who may not read everything, for tests that root runs, as in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NOBODY = 65534


@contextmanager
def as_a_plain_user() -> Iterator[int]:
    """In the block, this process is the user whose number it gives: root, who may read everything, is another one."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    os.seteuid(_NOBODY)
    try:
        yield _NOBODY
    finally:
        os.seteuid(0)
