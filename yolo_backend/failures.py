"""Why tasks were not predicted: for the log, the metrics, and the status page."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from yolo_backend import metrics, request_ids
from yolo_backend.failure_kinds import FailureKind

log = logging.getLogger(__name__)

_KEPT = 100


@dataclass(frozen=True)
class Failure:
    """A task that was not predicted. `address` is redacted; `at` is the time of day.

    With `is_passing` it isn't the task's fault: Label Studio is away, and bulk work tries again when it is back.
    """

    project: str
    task_id: int | None
    kind: FailureKind
    reason: str
    address: str | None = None
    at: float = field(default_factory=time.time)
    is_passing: bool = False

    def __str__(self) -> str:
        address = f"{self.address}: " if self.address else ""
        return f"Task {self.task_id} is not predicted: {address}{self.reason}"


class FailureLog:
    """Counts failures and keeps the last ones; safe to share between threads."""

    def __init__(self) -> None:
        self._last: deque[Failure] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def add(self, failure: Failure) -> None:
        """Count the failure and keep it; the caller writes it to the log."""
        metrics.TASKS.labels("failed").inc()
        metrics.IMAGE_FAILURES.labels(failure.kind).inc()
        with self._lock:
            self._last.append(failure)

    def last(self) -> list[Failure]:
        """The last failures, the newest first."""
        with self._lock:
            return list(reversed(self._last))


class CommonCause:
    """Holds lines back while all tasks fail for one cause, so that the log can say that cause first."""

    def __init__(self, project: str, failures: FailureLog) -> None:
        self._project = project
        self._failures = failures
        self._held: list[tuple[Failure, str]] = []  # with the id of the request that it is a line of
        self._is_common = True
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """A task was predicted: what fails now fails alone."""
        with self._lock:
            self._is_common = False
            self._write()

    def failed(self, failure: Failure) -> None:
        """A task failed; its line comes now, or with those of the same cause."""
        self._failures.add(failure)
        with self._lock:
            first = self._held[0][0] if self._held else failure
            if (failure.kind, failure.reason) != (first.kind, first.reason):
                self._is_common = False
            self._held.append((failure, request_ids.current()))
            if not self._is_common:
                self._write()

    def close(self) -> None:
        """All is done, or the answer is due: say the common cause, then what was held back."""
        with self._lock:
            if self._is_common and len(self._held) > 1:
                log.error(
                    "Project %s: none of %d tasks is predicted, for one cause: %s",
                    self._project,
                    len(self._held),
                    self._held[0][0].reason,
                )
            self._write()
            self._is_common = True

    def _write(self) -> None:
        for failure, request_id in self._held:
            with request_ids.working_for(request_id):
                log.warning("%s", failure)
        self._held.clear()
