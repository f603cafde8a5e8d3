"""What a training does so that nobody beside it waits: how the kernel treats this process, set before torch comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from yolo_backend.cores import usable_cores

_Wish = tuple[str, Callable[[], object]]

_PROCESS = Path("/proc/self")
_NICE = 19
# Read when their libraries are loaded, which make a thread for each core of the machine otherwise, and let a thread
# that waits for another keep its core: where others want that core, a step took ten times the CPU time (measured).
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def use_cores(cores: Collection[int]) -> list[str]:
    """Let this process run on these cores, and the libraries to come make as many threads.

    The thread that spawned it may have been kept to one core. Returns what couldn't be had, a sentence each.
    """
    failed = (
        _grant(("run on all cores that the program may use", lambda: os.sched_setaffinity(0, cores))) if cores else []
    )
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(usable_cores())), OMP_WAIT_POLICY="PASSIVE")
    return failed


def give_way(*, on_gpu: bool) -> list[str]:
    """Let everything else go first, from this thread on; returns what couldn't be had, a sentence each.

    The process is the leader of a session of its own: there, the kernel weighs sessions against each other
    (autogroups), so that the idle policy alone would have no effect on others. On a GPU the CPU's part is short, and
    the GPU would wait for it: there it is only nice.
    """
    idle: list[_Wish] = [
        ("weigh less than other sessions", lambda: _write("autogroup", _NICE)),
        ("run only where a core is idle", lambda: os.sched_setscheduler(0, _IDLE, os.sched_param(0))),
    ]
    return _grant(
        *([] if on_gpu else idle),
        ("be nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, _NICE)),
        ("be the first to go if memory runs out", lambda: _write("oom_score_adj", 1000)),
    )


_IDLE = getattr(os, "SCHED_IDLE", 5)


def _write(name: str, number: int) -> None:
    (_PROCESS / name).write_text(f"{number}\n")


def _grant(*wishes: _Wish) -> list[str]:
    failed = []
    for wish, grant in wishes:
        try:
            grant()
        except (OSError, AttributeError) as error:  # not allowed; or no Linux
            failed.append(f"The training can't {wish}: {getattr(error, 'strerror', None) or error}")
    return failed
