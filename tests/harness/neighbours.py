"""Another person at work in a project while a click is under way, and what Label Studio's log says of it."""

from __future__ import annotations

import itertools
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.harness.studio_client import StudioClient

_EVERY_S = 0.2
_FAILED = re.compile(r'HTTP/1\.\d" 5\d\d |database is locked|deadlock detected', re.IGNORECASE)


class Neighbour:
    """Saves an annotation and opens a task, each every 0.2 s, in two threads; a longer call delays the next."""

    def __init__(self, client: StudioClient, project: int, task_ids: Sequence[int]) -> None:
        self.saved: Counter[int] = Counter()
        self.saving_s: list[float] = []
        self.opening_s: list[float] = []
        self.failures: list[str] = []
        self._client = client
        self._project = project
        self._tasks = itertools.cycle(task_ids)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(self._save, self.saving_s)),
            threading.Thread(target=self._repeat, args=(self._open, self.opening_s)),
        ]

    def __enter__(self) -> Neighbour:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, call: Callable[[int], None], took_s: list[float]) -> None:
        while not self._stop.wait(max(0.0, _EVERY_S - (took_s[-1] if took_s else 0.0))):
            task_id = next(self._tasks)
            started_at = time.monotonic()
            try:
                call(task_id)
            except requests.RequestException as error:
                self.failures.append(f"task {task_id}: {str(error)[:300]}")
            took_s.append(time.monotonic() - started_at)

    def _save(self, task_id: int) -> None:
        self._client.call("POST", f"/api/tasks/{task_id}/annotations/", json={"result": []})
        self.saved[task_id] += 1

    def _open(self, task_id: int) -> None:
        self._client.call("GET", f"/api/tasks/{task_id}/?project={self._project}")


def percentiles(took_s: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 95th, in seconds, of two or more."""
    hundredths: Any = statistics.quantiles(took_s, n=100, method="inclusive")
    return hundredths[49], hundredths[94]


def failures_in(log: Path, after: int = 0) -> list[str]:
    """The lines of Label Studio's log, from this byte on, that tell of a 5xx, a deadlock or a locked database."""
    with log.open("rb") as file:
        file.seek(after)
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if _FAILED.search(line)]
