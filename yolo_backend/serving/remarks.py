"""What a person should know of tasks that were predicted: for the log, and the status page."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_KEPT = 20
_KNOWN = 10_000


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
        self._known: dict[tuple[str, int | None, str], None] = {}
        self._lock = threading.Lock()

    def add(self, remark: Remark) -> None:
        """Write it to the log, if it isn't there yet, and keep it in place of what was said of the same task before."""
        about = (remark.project, remark.task_id)
        with self._lock:
            is_new = (*about, remark.text) not in self._known
            self._known[*about, remark.text] = None
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
            others = [each for each in self._last if (each.project, each.task_id) != about]
            self._last = deque([*others, remark], _KEPT)
        if is_new:
            log.warning("Task %s: %s", remark.task_id, remark.text)

    def last(self) -> list[Remark]:
        """The last remarks, the newest first."""
        with self._lock:
            return list(reversed(self._last))
