"""What the bodies of Label Studio's calls hold, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolo_backend.server.errors import BadRequestError

_MAX_KEPT_TEXT = 4000


@dataclass(frozen=True)
class PredictRequest:
    """A body of `/predict`: tasks of a project, and the context of a person's smart tool."""

    tasks: list[dict[str, Any]]
    project: str
    label_config: str
    context: dict[str, Any] | None

    @classmethod
    def of(cls, body: dict[str, Any]) -> PredictRequest:
        """Raises BadRequestError."""
        return cls(_tasks(body), short_text(body, "project"), text(body, "label_config"), _context(body))


def text(body: dict[str, Any], key: str) -> str:
    """A text that has to be there. Raises BadRequestError."""
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequestError(f'The body has no "{key}"')
    return value


def short_text(body: dict[str, Any], key: str) -> str:
    """A text that is kept, or "" where there is none. Raises BadRequestError for a long one."""
    value = str(body.get(key) or "")
    if len(value) > _MAX_KEPT_TEXT:
        raise BadRequestError(f'"{key}" is longer than {_MAX_KEPT_TEXT} characters')
    return value


def _tasks(body: dict[str, Any]) -> list[dict[str, Any]]:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise BadRequestError('"tasks" should be a list of at least one task')
    if not all(isinstance(task, dict) for task in tasks):
        raise BadRequestError('Each of the "tasks" should be an object')
    return tasks


def _context(body: dict[str, Any]) -> dict[str, Any] | None:
    params = body.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    if context is not None and not isinstance(context, dict):
        raise BadRequestError('"params.context" should be an object')
    return context
