"""A Label Studio that takes imports of predictions late, twice or not at all, by a test's own clock."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from tests.fakes.clock import Clock
from tests.harness.http_server import RecordingServer, reply

PROJECT = 7
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LabelStudio:
    """Holds tasks and their predictions, as Label Studio does. Each call takes the next of `faults`, "" being none.

    A fault is a status; a reason why nothing is answered is "late": what was sent is stored after `later_s`. "after"
    stores and answers 500. `drops_deleted` takes what it can, as some releases do; others refuse the whole chunk.
    """

    clock: Clock
    tasks: set[int]
    label_config: str = "<View/>"
    drops_deleted: bool = False
    later_s: float = 50.0
    stored: Counter[int] = field(default_factory=Counter)
    faults: deque[str] = field(default_factory=deque)
    storing: list[tuple[float, list[int]]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def store(self, task_ids: Sequence[int], after_s: float = 0.0) -> None:
        self.storing.append((self.clock.now_s + after_s, list(task_ids)))
        self.catch_up()

    def catch_up(self) -> None:
        for due in [due for due in self.storing if due[0] <= self.clock.now_s]:
            self.storing.remove(due)
            self.stored.update(task_id for task_id in due[1] if task_id in self.tasks)

    def delete(self, task_id: int) -> None:
        self.tasks.discard(task_id)
        self.stored.pop(task_id, None)

    def _fault(self, call: str) -> str:
        self.calls.append(call)
        self.catch_up()
        return self.faults.popleft() if self.faults else ""

    def get_project(self) -> tuple[int, Any]:
        fault = self._fault("project")
        return _wrong(fault) or (200, {"label_config": self.label_config})

    def get_tasks(self, task_ids: Sequence[int]) -> tuple[int, Any]:
        fault = self._fault("tasks")
        return _wrong(fault) or (200, {"tasks": [{"id": each} for each in task_ids if self.stored[each]]})

    def import_predictions(self, task_ids: Sequence[int]) -> tuple[int, Any]:
        fault = self._fault("import")
        if fault == "late":
            self.store(task_ids, self.later_s)
        elif fault == "after":
            self.store(task_ids)
        if wrong := _wrong(fault):
            return wrong
        kept = [task_id for task_id in task_ids if task_id in self.tasks]
        if len(kept) < len(task_ids) and not self.drops_deleted:
            return 400, {"detail": "Validation error"}
        self.store(kept)
        return 201, {"created": len(kept)}

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        """The same over HTTP; "late" hangs up without an answer."""
        address = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        recording = cast(RecordingServer, self.server)
        if address.path == f"/api/projects/{PROJECT}/":
            status, body = self.get_project()
        elif address.path == "/api/tasks/":
            status, body = self.get_tasks(json.loads(query["query"])["selectedItems"]["included"])
        else:
            # Others may have asked since.
            body = next(each.body for each in reversed(recording.requests) if each.method == "POST")
            predictions = json.loads(body)
            status, body = self.import_predictions([prediction["task"] for prediction in predictions])
        if status == 0:
            handler.close_connection = True
        else:
            reply(json.dumps(body).encode(), status)(handler)

    server: RecordingServer | None = None


def _wrong(fault: str) -> tuple[int, Any] | None:
    statuses = {"": None, "late": 0, "after": 500}
    status = statuses[fault] if fault in statuses else int(fault)
    return None if status is None else (status, {"detail": "no"})
