"""By what a project's trained weights are known: its key, of what Label Studio sends, or says where that is not all."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import requests

from yolo_backend.detection.pool import WeightsLoadingError
from yolo_backend.label_studio.errors import StudioError, StudioRefusedError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.label_studio.studios import Studios
from yolo_backend.protocol import project_key, sent_project

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0  # Label Studio waits three for its /setup
_KEPT = 1000


class ProjectKeys:
    """The keys of projects; safe to share between threads.

    The server of label-studio-ml 2.x tells a class the project's id alone, without the time when it was created. Then
    Label Studio is asked, once, and only for an id that something was trained for.
    """

    def __init__(self, studios: Studios, model_dir: Path) -> None:
        self._studios = studios
        self._trained = model_dir / "trained"
        self._sent: dict[tuple[str, str], str | None] = {}
        self._lock = threading.Lock()

    def known(self, project: str | None) -> str | None:
        """The key of what is sent as `project`; None where no Label Studio is known, or nothing was trained for its id.

        Raises WeightsLoadingError where Label Studio is to be asked, and doesn't answer.
        """
        studio = self._studios.of_project(project)
        if studio is None or not project:
            return None
        if project.isdigit() and not any(self._trained.glob(f"{project}-*")):
            return None
        try:
            return project_key(studio.url, self._whole(studio, project) or "")
        except (StudioError, requests.Timeout):
            raise WeightsLoadingError(
                f"Label Studio doesn't say which project {project} is, so its weights aren't known: try again"
            ) from None

    def of(self, project: str) -> str | None:
        """The key, for whoever is to have weights. Raises StudioError, requests.Timeout where Label Studio is asked."""
        studio = self._studios.of_project(project)
        return project_key(studio.url, self._whole(studio, project) or "") if studio else None

    def _whole(self, studio: Studio, project: str) -> str | None:
        """With the time of creation; None for a project that the token doesn't see."""
        if not project.isdigit():
            return project
        known = (studio.url, project)
        with self._lock:
            if known in self._sent:
                return self._sent[known]
        query = {"include": "created_at"}
        sent = None
        try:
            sent = sent_project(
                project, studio.call("GET", f"/api/projects/{project}/", "created_at", _TIMEOUT_S, query=query)
            )
        except StudioRefusedError as error:
            log.warning("The trained weights of project %s can't be found: %s", project, error)
        with self._lock:
            self._sent[known] = sent
            if len(self._sent) > _KEPT:
                del self._sent[next(iter(self._sent))]
        return sent
