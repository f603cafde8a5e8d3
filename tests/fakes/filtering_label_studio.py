"""A Label Studio that filters tasks as the Data Manager does, and breaks in the middle of imports."""

from __future__ import annotations

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.harness.http_server import RecordingServer, reply

PROJECT = 7
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LabelStudio:
    """Holds tasks and predictions, and answers as Label Studio does; imports take the next of `faults`, "" being none.

    A status is answered instead; "stored 500" stores before; "twice" stores what another client was storing, too.
    """

    predictions: dict[int, list[dict[str, Any]]]
    label_config: str = "<View/>"
    image: str = "a.jpg"  # of every task
    faults: deque[str] = field(default_factory=deque)
    away: int = 0
    imports: list[int] = field(default_factory=list)
    new_ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    before_import: Callable[[], None] = lambda: None

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        status, body = self.answer(handler.command, address.path, query)
        reply(json.dumps(body).encode() if status != 204 else b"", status)(handler)

    def answer(self, method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if self.away and method == "GET":
            self.away -= 1
            return 502, {}
        if path == f"/api/projects/{PROJECT}/":
            return 200, {"id": PROJECT, "title": "Cells", "label_config": self.label_config}
        if path == f"/api/projects/{PROJECT}/import/predictions":
            return self.take()
        if path == f"/api/projects/{PROJECT}/model-versions/":
            return self.versions(method)
        if path == "/api/tasks/":
            return self.tasks(query)
        number = int(path.rstrip("/").rpartition("/")[2])
        for held in self.predictions.values():
            held[:] = [prediction for prediction in held if prediction["id"] != number]
        return 204, None

    def store(self, task_id: int, version: str, score: float = 0.5) -> None:
        prediction = {"id": next(self.new_ids), "model_version": version, "score": score, "result": []}
        self.predictions[task_id].append(prediction)

    def delete(self, task_id: int) -> None:
        self.predictions.pop(task_id, None)

    def sent(self, method: str) -> Any:
        """What came last with this method; tasks may be listed at the same time."""
        return json.loads(next(one.body for one in reversed(self.server.requests) if one.method == method))

    def take(self) -> tuple[int, Any]:
        self.before_import()
        fault = self.faults.popleft() if self.faults else ""
        if fault.isdigit():
            return int(fault), {"detail": "no"}
        sent = self.sent("POST")
        if any(prediction["task"] not in self.predictions for prediction in sent):
            return 400, {"detail": "Validation error"}
        self.imports.append(len(sent))
        for prediction in sent * (2 if fault == "twice" else 1):
            self.store(prediction["task"], prediction["model_version"], prediction["score"])
        return (500, {}) if fault == "stored 500" else (201, {"created": len(sent)})

    def versions(self, method: str) -> tuple[int, Any]:
        if method == "DELETE":
            version = self.sent("DELETE")["model_version"]
            for held in self.predictions.values():
                held[:] = [prediction for prediction in held if prediction["model_version"] != version]
            return 200, {"deleted_predictions": 1}
        counts = Counter(held["model_version"] for task in self.predictions.values() for held in task)
        latest = "2026-11-22T10:00:00Z"
        static = [{"model_version": version, "count": count, "latest": latest} for version, count in counts.items()]
        return 200, {"static": static, "live": None}

    def tasks(self, query: dict[str, str]) -> tuple[int, Any]:
        selection = json.loads(query["query"])
        chosen = selection.get("selectedItems", {}).get("included", list(self.predictions))
        passes = [_filter(item) for item in selection.get("filters", {}).get("items", [])]
        ids = [one for one in chosen if all(each(one, self.predictions.get(one, [])) for each in passes)]
        ids = sorted(set(ids) & set(self.predictions), reverse=selection.get("ordering") == ["-tasks:id"])
        shown = ids[: int(query["page_size"])]
        tasks = [{"id": one, "data": {"image": self.image}, "predictions": self.predictions[one]} for one in shown]
        return 200, {"tasks": tasks, "total": len(ids)}

    def held(self) -> dict[int, list[str]]:
        return {one: sorted(each["model_version"] for each in held) for one, held in self.predictions.items()}

    server: RecordingServer = field(init=False)


def _filter(item: dict[str, Any]) -> Callable[[int, list[dict[str, Any]]], bool]:
    """What a filter of the Data Manager does with a task's id and predictions."""
    column, operator, value = item["filter"].removeprefix("filter:tasks:"), item["operator"], item["value"]
    if column == "predictions_model_versions":
        # As Label Studio does it: a part of the text is enough.
        return lambda _, held: any(value[0] in each["model_version"] for each in held) == (operator == "contains")
    column_of: Callable[[int, list[Any]], int] = {
        "id": lambda one, _: one,
        "total_predictions": lambda _, held: len(held),
    }[column]
    compare = {"greater": int.__gt__, "less": int.__lt__, "equal": int.__eq__}[operator]
    return lambda one, held: bool(compare(column_of(one, held), value))
