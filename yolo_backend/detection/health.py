"""What became of a model's last batches: whether it may go on, and what is told about it."""

from __future__ import annotations

import threading
import time

MAX_HANGS = 3  # in a row, because each leaves a thread and a model that nobody can end
_FAILED_BATCHES = 3
_TRY_AGAIN_AFTER_S = 60.0


class ModelHealth:
    """The faults in a row of one model, kept if its detector is replaced. For any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hangs = 0
        self._failed_batches = 0
        self._last_failure = ""
        self._failed_at = 0.0
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """A batch gave boxes to one image at least."""
        with self._lock:
            self._hangs = self._failed_batches = 0

    def failed(self, reason: str) -> None:
        """A batch failed for every image."""
        with self._lock:
            self._count_failure(reason)

    def hung(self, reason: str) -> None:
        """A batch didn't come to an end."""
        with self._lock:
            self._hangs += 1
            self._count_failure(reason)

    def has_hung(self) -> bool:
        """Returns True if it hung, with no good batch since."""
        return self._hangs > 0

    def given_up_reason(self) -> str | None:
        """Why no detector is made any more."""
        if self._hangs < MAX_HANGS:
            return None
        return f"{self._last_failure}, {self._hangs} times in a row: restart the backend"

    def down_reason(self) -> str | None:
        """Why sending images is of no use now; None after a while, so that somebody tries again."""
        if reason := self.given_up_reason():
            return reason
        with self._lock:
            is_news = time.monotonic() - self._failed_at < _TRY_AGAIN_AFTER_S
            if self._failed_batches < _FAILED_BATCHES or not is_news:
                return None
            return (
                f"{self._name} failed on its last {self._failed_batches} batches ({self._last_failure}): "
                "see the backend's log, and restart the backend if it stays so"
            )

    def _count_failure(self, reason: str) -> None:
        self._failed_batches += 1
        self._last_failure = reason
        self._failed_at = time.monotonic()
