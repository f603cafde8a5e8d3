"""What a real backend tells of its trainings."""

from __future__ import annotations

from functools import partial
from typing import Any

import requests

from tests.harness.stack import BackendServer
from tests.harness.waiting import wait_for

until = partial(wait_for, every_s=0.2)  # who asks more often takes the time of the training


def trainings_of(backend: BackendServer, project: int) -> dict[str, Any]:
    """What the backend tells of the trainings of a project."""
    told = requests.get(backend.url, timeout=10).json()["trainings"]
    return next((each for each in told if each["project"] == str(project)), {"runs": [], "running": None})


def of_project(backend: BackendServer, project: int) -> dict[str, Any]:
    """What the backend tells of a project since its last `/setup`."""
    projects = requests.get(backend.url, timeout=10).json()["projects"]
    return next(each for each in projects if each["project"] == str(project))


def wait_for_the_end(backend: BackendServer, project: int, within_s: float = 400) -> dict[str, Any]:
    """The project's last run, as soon as none runs and none waits."""

    def is_over() -> bool:
        told = trainings_of(backend, project)
        return bool(told["runs"]) and told["running"] is None and told["asked_at"] is None

    until(is_over, within_s)
    return dict(trainings_of(backend, project)["runs"][0])
