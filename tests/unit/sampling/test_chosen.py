"""What is written to tasks that are there: the measure alone, beside what people changed meanwhile."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.harness.http_server import StartServer, reply
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.studio import Studio
from yolo_backend.sampling.chosen import Written, write_to_tasks
from yolo_backend.sampling.pool import PoolImage
from yolo_backend.sampling.scoring import Scored

AS_SCORED = {"image": "/data/upload/7/a.jpg", "note": "old"}


def scored(task_id: int, uncertainty: float) -> Scored:
    served: Any = {"result": [], "score": 0.0, "model_version": "cells-00c0ffee"}
    return Scored(PoolImage(f"{task_id}.jpg", {"id": task_id, "data": AS_SCORED}), uncertainty, served, served)


def test_what_people_changed_meanwhile_stays_and_a_deleted_task_costs_nothing(serve: StartServer) -> None:
    """Of three tasks the second was deleted, and the third has another note and a new field."""
    now: dict[int, dict[str, Any]] = {1: AS_SCORED, 3: {**AS_SCORED, "note": "new", "patient": "x"}}
    changed: dict[int, dict[str, Any]] = {}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = server.requests[-1].body
        if handler.command == "PATCH":
            changed[int(handler.path.rstrip("/").rpartition("/")[2])] = json.loads(body)["data"]
            reply(b'{"id": 1}')(handler)
        elif handler.command == "POST":
            reply(json.dumps({"created": len(json.loads(body))}).encode(), 201)(handler)
        else:
            is_held = "selectedItems" in handler.path  # asked before an import: no task holds a prediction
            tasks = [] if is_held else [{"id": task_id, "data": data} for task_id, data in now.items()]
            reply(json.dumps({"tasks": tasks, "total": len(tasks)}).encode())(handler)

    server = serve(answer)
    project = Project(Studio(server.url, "0" * 40), 7, "Cells", "<View/>")
    written = list(write_to_tasks(project, [scored(1, 0.126), scored(2, 0.5), scored(3, 0.9)]))
    assert changed == {
        1: {**AS_SCORED, "uncertainty": 0.13},
        3: {"image": "/data/upload/7/a.jpg", "note": "new", "patient": "x", "uncertainty": 0.9},
    }
    assert [each.task_id for each in written if each.task_id] == [1, 3]
    assert sum(each.predicted for each in written) == 2
    assert Written(rejected=1) not in written
