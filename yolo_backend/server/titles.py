"""What people call the projects, and where they are: asked of Label Studio, for the page."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import requests

from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.protocol import project_id_of

log = logging.getLogger(__name__)

_TIMEOUT_S, _PAGE_WAITS_S = 5.0, 0.5
_ASK_AGAIN_AFTER_S = 300.0
_MAX_PROJECTS = 200


@dataclass(frozen=True)
class ProjectTitle:
    """A project's title, and the address of its page as a person's browser reaches it."""

    title: str
    url: str


class ProjectTitles:
    """The titles that are known. A new one is waited for a moment, and then asked for behind. For any thread."""

    def __init__(self, studio_of: Callable[[str], Studio | None]) -> None:
        self._studio_of = studio_of
        self._known: dict[str, ProjectTitle] = {}
        self._asked_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="titles")

    def of(self, projects: Iterable[str | None]) -> Mapping[str, ProjectTitle]:
        """Those that are known, by their ids; the others of these are asked for, and known a little later."""
        asked = [self._ask(project) for project in dict.fromkeys(projects) if project]
        wait([question for question in asked if question], _PAGE_WAITS_S)
        with self._lock:
            return dict(self._known)

    def _ask(self, project: str) -> Future[None] | None:
        """`project` is its id, or what Label Studio sends, which says more: which Label Studio it is."""
        number, now = project_id_of(project), time.monotonic()
        with self._lock:
            if not number.isdecimal() or now < self._asked_at.get(number, float("-inf")) + _ASK_AGAIN_AFTER_S:
                return None
            self._asked_at[number] = now
            for old in list(self._asked_at)[:-_MAX_PROJECTS]:
                del self._asked_at[old]
                self._known.pop(old, None)
        return self._thread.submit(self._learn, project, number)

    def _learn(self, project: str, number: str) -> None:
        try:
            studio = self._studio_of(project)
            if studio is None or studio.token is None:
                return
            title = studio.call("GET", f"/api/projects/{number}/", "title", _TIMEOUT_S, query={"include": "title"})
            url = f"{(studio.known_outside_url or studio.url).rstrip('/')}/projects/{number}/data"
        except (StudioError, requests.Timeout) as error:
            log.debug("Project %s: its title isn't known: %s", number, error)
            return
        with self._lock:
            if number in self._asked_at:
                self._known[number] = ProjectTitle(str(title), url)
