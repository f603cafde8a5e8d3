"""What is kept of a task that waits, and how much memory it takes."""

from __future__ import annotations

import sys
from typing import Any

from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.labels.task_values import fields_of, find_value
from yolo_backend.protocol import Task, task_data_of, task_id_of

# The JSON reader makes short keys only once, for all tasks.
_SHARED_KEY = 32


def kept_of(task: Task, plan: ProjectPlan) -> Task:
    """The task's id and the fields of its data that the plan's controls read: it is predicted as the whole task is."""
    kept: Task = {}
    if (task_id := task_id_of(task)) is not None:
        kept["id"] = task_id
    data = task_data_of(task)
    if data is None:
        return kept
    controls = [served.control for served in plan.controls]
    values = [value for control in controls for value in (control.value, control.labels_value) if value]
    needed = {name for value in values for name in fields_of(data, value)}
    if all(find_value(data, value) is not None for value in values):
        kept["data"] = {name: item for name, item in data.items() if name in needed}
    else:  # because the failure says which fields there are
        kept["data"] = {name: item if name in needed else None for name, item in data.items()}
    return kept


def size_of(task: Any) -> int:
    """About how many bytes a task takes as Python objects. An object that is in it twice counts once."""
    total = 0
    seen: set[int] = set()
    rest = [task]
    while rest:
        item = rest.pop()
        if item is None or isinstance(item, bool) or id(item) in seen:
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, dict):
            rest += [key for key in item if len(key) > _SHARED_KEY]
            rest += item.values()
        elif isinstance(item, (list, tuple)):
            rest += item
    return total
