"""What is written down of a run while it runs: whoever watches it reads that."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from yolo_backend.training.records import Progress, Run, Stage, State
from yolo_backend.training.registry import ProjectModels

CANCELLED = "It was cancelled, and what serves is as before"


class Diary:
    """The run.json of a run under way. The first end that is written is the last: nothing is written after it."""

    def __init__(self, models: ProjectModels, run: Run) -> None:
        self._models = models
        self._run = run
        self._lock = threading.Lock()

    @property
    def run(self) -> Run:
        return self._run

    def change(self, **changes: Any) -> None:
        """Note other values of these fields. Raises OSError."""
        with self._lock:
            if not self._run.is_over:
                self._write(replace(self._run, **changes))

    def remark(self, *sentences: str) -> None:
        """Note what a person should know."""
        if sentences:
            self.change(remarks=(*self._run.remarks, *sentences))

    def progress(
        self,
        stage: Stage,
        *,
        epoch: int | None = None,
        epochs: int | None = None,
        score: float | None = None,
        seconds_left: float | None = None,
    ) -> None:
        """Note how far the run is."""
        self.change(state=stage, progress=Progress(stage, time.time(), epoch, epochs, score, seconds_left))

    def end(self, state: State, **changes: Any) -> None:
        """Note how it ended."""
        self.change(state=state, ended_at=time.time(), **changes)

    def fail(self, failure: str) -> None:
        """Note that it failed, unless its model serves already. Raises OSError."""
        with self._lock:
            if not self._run.is_over:
                self._write(self._models.ended(self._run, "failed", failure))

    def cancel(self, timeout_s: float) -> None:
        """Note that it was cancelled, from any thread, unless it has ended; no later than this. Raises OSError."""
        if self._lock.acquire(timeout=timeout_s):
            try:
                if not self._run.is_over:
                    self._write(self._models.ended(self._run, "cancelled", CANCELLED))
            finally:
                self._lock.release()

    def _write(self, run: Run) -> None:
        self._models.write(run)
        self._run = run
