"""The CPU cores that this process may keep busy: less than the machine has, in a container."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MARKS_OF_CONTAINERS = (".dockerenv", "run/.containerenv")
_USUAL_SHARES = (("cpu.weight", 100), ("cpu/cpu.shares", 1024))  # cgroups v2, and v1


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """The cores that the process may run on, and that its cgroup's quota (v2, or v1) pays for; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_quota(cgroup) or cores)))


def keep_to_core(index: int, of: int) -> None:
    """Keep the calling thread to a core of its own, if there are just as many cores as such threads (`of`).

    Else Linux lets two busy threads share a core for some milliseconds while another core is idle.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    # With fewer threads, the cores that others leave idle are better; and a quota has no cores of its own.
    if 1 < of == len(cores) == usable_cores():
        with contextlib.suppress(OSError):  # forbidden: then it is slower
            os.sched_setaffinity(0, {cores[index]})


def has_full_share(root: Path = Path("/")) -> bool:
    """Returns True in a container that has as large a share of the cores as others have.

    Whatever policy its processes have, they give way only to each other then.
    """
    if any((root / mark).exists() for mark in _MARKS_OF_CONTAINERS):
        for name, usual in _USUAL_SHARES:
            with contextlib.suppress(OSError, ValueError):
                return int((root / "sys" / "fs" / "cgroup" / name).read_text()) >= usual
    return False


def _quota(cgroup: Path) -> float | None:
    """In cores. A container sees its own cgroup as the root."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except (OSError, ValueError):
            return None
    try:
        return float(limit) / float(period) if float(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
