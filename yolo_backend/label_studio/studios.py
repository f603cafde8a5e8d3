"""Which Label Studio a project's images come from: the configured one, or the one that introduced itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from yolo_backend.label_studio.connections import Connections
from yolo_backend.label_studio.outside import as_address
from yolo_backend.label_studio.studio import Studio
from yolo_backend.protocol import project_key
from yolo_backend.settings import Settings, is_sendable

# The hostname that `/setup` brings if Label Studio doesn't know its own address.
_UNKNOWN_HOSTNAME = "http://localhost:8080"
_MAX_INTRODUCTIONS = 1000


@dataclass(frozen=True)
class _Introduction:
    url: str
    token: str
    hostname: str | None  # it is only a name for Label Studio; nothing is sent there


class Studios:
    """Which Label Studio a project's images come from.

    A configured key goes to the configured address only. The token that comes with `/setup` may go to the configured
    address. The hostname that comes with it is called only if no address is configured. Otherwise it is a name: a
    task's address that begins with it means Label Studio itself. These introductions are kept in memory: Label Studio
    repeats them before every Retrieve Predictions.
    """

    def __init__(self, settings: Settings) -> None:
        key = settings.label_studio_api_key
        self._url = settings.label_studio_url
        self._key = key.get_secret_value() if key else None
        self._outside_url = settings.outside_url
        self._connections = Connections()  # of all projects, so that what is kept has a limit
        self._configured = self._studio(self._url, self._key) if self._url and key else None
        self._anonymous = self._studio(self._url, None) if self._url else None
        self._introduced: OrderedDict[str, tuple[_Introduction, Studio]] = OrderedDict()
        self._lock = threading.Lock()

    def introduce(self, project: str, hostname: str, token: str) -> None:
        """Remember what `/setup` says of a project's Label Studio."""
        token = self._key or token
        if not is_sendable(token) or not (self._url or hostname):
            return
        name = as_address(hostname) if hostname.rstrip("/") != _UNKNOWN_HOSTNAME else None
        introduction = _Introduction(self._url or hostname, token, name)
        with self._lock:
            known = self._introduced.get(project)
            if known is None or known[0] != introduction:
                self._introduced[project] = (introduction, self._introduced_studio(introduction))
            self._introduced.move_to_end(project)
            while len(self._introduced) > _MAX_INTRODUCTIONS:
                self._introduced.popitem(last=False)

    def _introduced_studio(self, introduction: _Introduction) -> Studio:
        """The Studio for this introduction; projects with the same one share it, and its access token."""
        if self._configured and (introduction.hostname is None or self._outside_url):
            return self._configured
        for known, studio in self._introduced.values():
            if known == introduction:
                return studio
        return self._studio(introduction.url, introduction.token, introduction.hostname)

    def _studio(self, url: str, token: str | None, introduced_as: str | None = None) -> Studio:
        set_by = "LABEL_STUDIO_API_KEY" + ("" if self._key else ", which is not set")
        return Studio(
            url,
            token,
            set_by=set_by,
            outside_url=self._outside_url,
            introduced_as=introduced_as,
            connections=self._connections,
        )

    def of_project(self, project: str | None) -> Studio | None:
        """The Label Studio of a project; None if none is configured and none has introduced itself."""
        with self._lock:
            known = self._introduced.get(project) if project else None
        return known[1] if known else self._configured or self._anonymous

    def sent_as(self, key: str) -> str | None:
        """What Label Studio sends as `project` for this key, None where no such project introduced itself."""
        with self._lock:
            introduced = [(project, studio.url) for project, (_, studio) in self._introduced.items()]
        return next((project for project, url in introduced if project_key(url, project) == key), None)

    def check(self, project: str | None) -> None:
        """Check the project's Label Studio, if an address is configured. Raises StudioError."""
        if self._url and (studio := self.of_project(project)):
            studio.check()
