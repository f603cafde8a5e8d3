"""The model_versions of a project's predictions: who holds which, and which of them go."""

from __future__ import annotations

import re

from yolo_backend.label_studio.filters import holds, task_filter
from yolo_backend.label_studio.projects import HeldVersion, Project
from yolo_backend.protocol import Task

# What this backend calls its versions; a number that looks like a date is somebody else's.
_OWN_VERSION = re.compile(r".+-(?!(?:19|20)\d{6}$)[0-9a-f]{8}", re.DOTALL)


def delete_repeated(project: Project, model_version: str) -> int:
    """Delete the later ones where a task holds several predictions of this version. Returns how many that were.

    If a client is killed during an import, Label Studio may finish that import after it was asked what it holds.
    """
    held = {one.model_version: one.predictions for one in project.held_versions()}
    if held.get(model_version, 0) <= project.count([holds(model_version)]):
        return 0
    several = task_filter("total_predictions", "greater", 1, "Number")
    deleted = 0
    for task in project.tasks([holds(model_version), several], fields=["predictions"]):
        for prediction_id in sorted(_ids_of(task, model_version))[1:]:
            project.delete_prediction(prediction_id)
            deleted += 1
    return deleted


def is_own(model_version: str) -> bool:
    """Returns True if this backend may have made this version, by its form."""
    return _OWN_VERSION.fullmatch(model_version) is not None


def other_versions(project: Project, model_version: str) -> list[HeldVersion]:
    """The other versions of this backend's that the project's tasks hold, the newest first."""
    return [
        held
        for held in project.held_versions()
        if held.predictions and held.model_version != model_version and is_own(held.model_version)
    ]


def delete_older(project: Project, model_version: str) -> int:
    """Delete this backend's predictions of other versions from tasks that hold this version. Returns how many."""
    deleted = 0
    for held in other_versions(project, model_version):
        older, count = held.model_version, held.predictions
        both = [holds(older), holds(model_version)]
        if project.count(both) == project.count([holds(older)]):
            project.delete_version(older)
            deleted += count
            continue
        for task in project.tasks(both, fields=["predictions"]):  # one by one, which takes a while
            for prediction_id in _ids_of(task, older):
                project.delete_prediction(prediction_id)
                deleted += 1
    return deleted


def _ids_of(task: Task, model_version: str) -> list[int]:
    return [int(held["id"]) for held in task["predictions"] if held["model_version"] == model_version]
