"""What people call the projects, and where they are: asked of Label Studio, for the page."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue

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


@dataclass(frozen=True)
class _Question:
    """A project, as Label Studio sends it if that is known, and what is set when there is an answer, or none."""

    project: str
    is_over: threading.Event


class ProjectTitles:
    """The titles that are known. A new one is waited for a moment, and then asked for behind. For any thread."""

    def __init__(self, studio_of: Callable[[str], Studio | None]) -> None:
        self._studio_of = studio_of
        self._known: dict[str, ProjectTitle] = {}
        self._asked_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._questions: SimpleQueue[_Question] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def of(self, projects: Iterable[str | None]) -> Mapping[str, ProjectTitle]:
        """Those that are known, by their ids; the others of these are asked for, and known a little later.

        A project is its id, or what Label Studio sends, which also says which Label Studio it is.
        """
        seen = list(dict.fromkeys(project for project in projects if project))
        sent = Counter(project_id_of(project) for project in seen if "." in project)
        asked = [question for project in seen if (question := self._ask(project))]
        ends_at = time.monotonic() + _PAGE_WAITS_S
        for question in asked:
            question.is_over.wait(max(0.0, ends_at - time.monotonic()))
        with self._lock:
            # Projects of two Label Studios may have one id, and the page tells them apart by nothing else.
            return {number: title for number, title in self._known.items() if sent[number] <= 1}

    def _ask(self, project: str) -> _Question | None:
        number, now = project_id_of(project), time.monotonic()
        with self._lock:
            if not number.isdecimal() or now < self._asked_at.get(number, float("-inf")) + _ASK_AGAIN_AFTER_S:
                return None
            self._asked_at[number] = now
            for old in list(self._asked_at)[:-_MAX_PROJECTS]:
                del self._asked_at[old]
                self._known.pop(old, None)
            if self._thread is None:  # one that a stop of the process needn't wait for
                self._thread = threading.Thread(target=self._answer, name="titles", daemon=True)
                self._thread.start()
        question = _Question(project, threading.Event())
        self._questions.put(question)
        return question

    def _answer(self) -> None:
        while True:
            question = self._questions.get()
            try:
                self._learn(question.project, project_id_of(question.project))
            except Exception:
                log.exception("The title of project %s can't be asked for", question.project)
            finally:
                question.is_over.set()

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
