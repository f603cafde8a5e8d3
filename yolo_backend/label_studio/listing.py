"""A project's tasks as rows: for a table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from yolo_backend.addresses import file_name_in, redact
from yolo_backend.label_studio.projects import Project
from yolo_backend.label_studio.selection import Selection, selected_tasks
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.task_values import find_value
from yolo_backend.protocol import Task, task_data_of

_FIELDS = ("id", "data", "predictions", "total_predictions", "total_annotations", "created_at")


@dataclass(frozen=True)
class TaskRow:
    """A task. `image` is redacted, and `file` is its file's name.

    Version and score are those of the prediction that counts for the selection.
    """

    id: int
    image: str
    predictions: int
    model_version: str | None
    score: float | None
    annotations: int
    created_at: str
    file: str


def task_rows(project: Project, selection: Selection) -> Iterator[TaskRow]:
    """The rows of the selected tasks. Raises StudioError, requests.Timeout."""
    image_values = _image_values(project.label_config)
    for task in selected_tasks(project, selection, _FIELDS):
        newest = selection.newest_prediction(task)
        addresses = _addresses_of(task, image_values)
        others = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        yield TaskRow(
            id=int(task["id"]),
            image=redact(addresses[0]) + others if addresses else "",
            predictions=int(task["total_predictions"]),
            model_version=newest["model_version"] if newest else None,
            score=newest["score"] if newest else None,
            annotations=int(task["total_annotations"]),
            created_at=str(task["created_at"]),
            file=(file_name_in(addresses[0]) or redact(addresses[0])) + others if addresses else "",
        )


def _image_values(label_config: str) -> list[str]:
    """Where in a task's data the images are; nothing if the labeling config isn't served."""
    try:
        return [control.value for control in parse_labeling_config(label_config).controls]
    except LabelingConfigError:
        return []


def _addresses_of(task: Task, image_values: list[str]) -> list[Any]:
    """Where the task's images are; those of its first image tag that has any."""
    data = task_data_of(task) or {}
    values = [found for value in image_values if (found := find_value(data, value))] or [
        value for value in data.values() if isinstance(value, str)
    ]
    if not values:
        return []
    return values[0] if isinstance(values[0], list) else [values[0]]
