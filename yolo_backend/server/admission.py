"""How many requests may wait for predictions, so that some of gunicorn's threads are free for other calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Some of gunicorn's threads never wait for predictions: they are for /health and /setup, and for a lone person.
_THREADS_FOR_OTHERS = 2
_THREADS_FOR_A_PERSON = 1


class Admission:
    """How many requests may wait for predictions at once."""

    def __init__(self, threads: int) -> None:
        self._all = threading.BoundedSemaphore(threads - _THREADS_FOR_OTHERS)
        self._bulk = threading.BoundedSemaphore(threads - _THREADS_FOR_OTHERS - _THREADS_FOR_A_PERSON)

    @contextmanager
    def take(self, task_count: int) -> Iterator[bool]:
        """Let a request wait, or yield False if too many do already. A one-task request may be the last one."""
        semaphores = [self._all] if task_count == 1 else [self._bulk, self._all]
        taken = []
        try:
            for semaphore in semaphores:
                if not semaphore.acquire(blocking=False):
                    break
                taken.append(semaphore)
            yield len(taken) == len(semaphores)
        finally:
            for semaphore in taken:
                semaphore.release()
