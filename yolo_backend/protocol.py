"""Label Studio's tasks and predictions, as plain data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

Task = Mapping[str, Any]
Prediction = dict[str, Any]


def task_id_of(task: Task) -> int | None:
    """The task's id in Label Studio."""
    task_id = task.get("id")
    return task_id if isinstance(task_id, int) and not isinstance(task_id, bool) else None


def project_id_of(project: str | None) -> str:
    """The project's id of what Label Studio sends as `project`: "7.1699..." is the id and when it was created."""
    return (project or "").partition(".")[0]


def to_json(value: Any) -> bytes:
    """JSON in UTF-8. Raises TypeError for what has no JSON."""
    try:
        return msgspec.json.encode(value)  # in a tenth of the time, and there may be thousands of predictions
    except (TypeError, ValueError):  # such as half a character
        return json.dumps(value).encode()


def from_json(content: bytes) -> Any:
    """What JSON says; as with Python's own reader, NaN and half a character are let pass. Raises ValueError."""
    with contextlib.suppress(ValueError):
        return msgspec.json.decode(content)
    return json.loads(content)
