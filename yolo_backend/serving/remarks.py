"""What a person should know of tasks that were predicted: for the log, and the status page."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_KEPT = 20


@dataclass(frozen=True)
class Remark:
    """Something about the prediction of a task; `at` is the time of day."""

    project: str
    task_id: int | None
    text: str
    at: float = field(default_factory=time.time)


class RemarkLog:
    """Writes remarks to the log and keeps the last ones; safe to share between threads."""

    def __init__(self) -> None:
        self._last: deque[Remark] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def add(self, remark: Remark) -> None:
        """Write it to the log, and keep it in place of what was said of the same task before."""
        log.warning("Task %s: %s", remark.task_id, remark.text)
        about = (remark.project, remark.task_id)
        with self._lock:
            others = [each for each in self._last if (each.project, each.task_id) != about]
            self._last = deque([*others, remark], _KEPT)

    def last(self) -> list[Remark]:
        """The last remarks, the newest first."""
        with self._lock:
            return list(reversed(self._last))
