"""Label Studio's tasks and predictions, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Task = Mapping[str, Any]
Prediction = dict[str, Any]


def task_id_of(task: Task) -> int | None:
    """The task's id in Label Studio."""
    task_id = task.get("id")
    return task_id if isinstance(task_id, int) and not isinstance(task_id, bool) else None


def project_id_of(project: str | None) -> str:
    """The project's id of what Label Studio sends as `project`: "7.1699..." is the id and when it was created."""
    return (project or "").partition(".")[0]
