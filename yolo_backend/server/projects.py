"""The projects that connected last by `/setup`, for the page and for `/versions`."""

from __future__ import annotations

import logging
import threading
import time

from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.plans import ProjectPlan
from yolo_backend.protocol import project_id_of
from yolo_backend.server.status import ProjectStatus

log = logging.getLogger(__name__)

_MAX_PROJECTS = 200


class ConnectedProjects:
    """What became of the last `/setup` of each project; safe to share between threads."""

    def __init__(self) -> None:
        self._projects: dict[str, ProjectStatus] = {}
        self._lock = threading.Lock()

    def newest_first(self) -> list[ProjectStatus]:
        """The projects, that of the last `/setup` first."""
        with self._lock:
            return list(reversed(self._projects.values()))

    def connected(self, project: str, plan: ProjectPlan) -> None:
        """Remember a project that is served, and log which parts of its labeling config are not."""
        _log_what_is_left_out(project, plan)
        self._keep(project, ProjectStatus(project_id_of(project), plan, time.time(), sent_as=project))

    def refused(self, project: str, reason: str) -> None:
        """Remember why a project can't be served, because Settings > Model shows it cut short, and only in Latin-1."""
        self._keep(project, ProjectStatus(project_id_of(project), None, time.time(), reason, project))

    def _keep(self, project: str, status: ProjectStatus) -> None:
        with self._lock:
            self._projects.pop(project, None)
            self._projects[project] = status
            if len(self._projects) > _MAX_PROJECTS:
                del self._projects[next(iter(self._projects))]


def _log_what_is_left_out(project: str, plan: ProjectPlan) -> None:
    for sentence in plan.not_served:
        log.info("Project %s: %s", project, sentence)
    for served in plan.controls:
        if served.label_map.labels_without_class:
            log.info(
                "Project %s, %s: no class of %s for the labels %s; classes without a label: %s",
                project,
                served.control.from_name,
                served.shown_weights,
                ", ".join(served.label_map.labels_without_class),
                ", ".join(served.label_map.classes_without_label) or "none",
            )
            if reason := kind_of(served.control).why_unmatched(served.control, served.weights, served.shown_weights):
                log.info("Project %s: %s", project, reason)
