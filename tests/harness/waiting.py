"""Waiting for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(is_so: Callable[[], Any], timeout_s: float = 120, every_s: float = 0.05) -> Any:
    """What it says, as soon as that is true."""
    ends_at = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < ends_at, "it doesn't come"
        time.sleep(every_s)
    return found
