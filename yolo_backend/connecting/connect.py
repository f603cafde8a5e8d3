"""A first project for the weights' classes, connected to the backend: for Docker Compose and the demo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

import requests

from yolo_backend.connecting.remote_backend import BackendError, BackendLoginError, RemoteBackend
from yolo_backend.errors import UserError
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.colors import label_color
from yolo_backend.settings import Settings

Tell = Callable[[str], None]

_POLL_EVERY_S = 2.0
_TELL_EVERY_S = 15.0
_REQUEST_TIMEOUT_S = 5.0
_LABELS_AT_A_GLANCE = 15
_CREATE_TIMEOUT_S = 60.0  # Label Studio asks the backend meanwhile
# Label Studio's own limits for a backend's answer are 1 s and 3 s, so a busy machine may need another try.
_PASSING_FAILURES = ("503", "timed out", "health check failed")


def _tell_nobody(_: str) -> None: ...


class ConnectError(UserError):
    """The project can't be made or connected; the message says what to do."""


class _Waiting:
    """Tells what is waited for: at the first try in vain, and then now and then, with the reason."""

    def __init__(self, what: str, timeout_s: float, tell: Tell) -> None:
        self._what = what
        self._tell = tell
        self._began_at = time.monotonic()
        self._timeout_s = timeout_s
        self._tell_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Returns True if it took too long."""
        return time.monotonic() > self._began_at + self._timeout_s

    def go_on(self, why: str) -> None:
        """Wait a little more, because of this."""
        now = time.monotonic()
        if self._tell_at is None:
            self._tell(f"Waiting for {self._what}")
            self._tell_at = now + _TELL_EVERY_S
        elif now >= self._tell_at:
            self._tell(f"Still waiting for {self._what}, {now - self._began_at:.0f} of {self._timeout_s:g} s: {why}")
            self._tell_at = now + _TELL_EVERY_S
        time.sleep(_POLL_EVERY_S)


def wait_for_studio(url: str, timeout_s: float, tell: Tell = _tell_nobody) -> None:
    """Wait until Label Studio answers at its address. Raises ConnectError, and StudioError where waiting is in vain."""
    studio = Studio(url, None)
    waiting = _Waiting(f"Label Studio at {studio.url}", timeout_s, tell)
    while True:
        try:
            studio.call("GET", "/api/version/", "release", _REQUEST_TIMEOUT_S)
        except (StudioError, requests.Timeout) as error:
            if isinstance(error, StudioError) and error.trouble and error.trouble.lasts:
                raise
            if waiting.is_over:
                raise ConnectError(f"Label Studio is not up after {timeout_s:g} s. {explain(error)}") from None
            waiting.go_on(explain(error))
        else:
            return


def class_names_of(backend: RemoteBackend, timeout_s: float, tell: Tell = _tell_nobody) -> list[str]:
    """The names of the classes that a backend predicts; waits until its weights are read. Raises ConnectError."""
    waiting = _Waiting(f"the backend at {backend.shown_url}", timeout_s, tell)
    while True:
        answer: dict[str, Any] = {}
        problem = "it reads its weights, which may have to be downloaded first; its log tells more"
        try:
            answer = backend.index()
        except BackendLoginError as error:
            raise ConnectError(f"{error}. {error.fix}") from None
        except BackendError as error:  # perhaps it isn't up yet
            problem = f"{error}. {error.fix}"
        if names := answer.get("classes"):
            return [str(name) for name in names]
        if reason := answer.get("reason"):
            raise ConnectError(f"the backend can't predict: {reason}")
        if waiting.is_over:
            raise ConnectError(f"{backend.shown_url} has not read its weights after {timeout_s:g} s: {problem}")
        waiting.go_on(problem)


def labeling_config_for(class_names: Iterable[str]) -> str:
    """A labeling config with one rectangle label for each class, each in a color of its own.

    What is in a box can be seen through it. Above 15 labels there is a field to search them, which has a key of its
    own, because Label Studio would give it the key of the first label.
    """
    names = list(dict.fromkeys(class_names))
    labels = "".join(
        f'\n    <Label value={quoteattr(name)} background="{label_color(number)}"/>'
        for number, name in enumerate(names)
    )
    search = (
        '  <Filter name="filter" toName="label" minlength="0" hotkey="shift+f"/>\n'
        if len(names) > _LABELS_AT_A_GLANCE
        else ""
    )
    return (
        f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{search}'
        f'  <RectangleLabels name="label" toName="image" strokeWidth="2" opacity="0.1">{labels}\n'
        "  </RectangleLabels>\n</View>\n"
    )


def ensure_project(studio: Studio, title: str, label_config: str) -> int:
    """The id of the project of this title; made if there is none, left as it is otherwise."""
    query = {"title": title, "include": "id,title", "page_size": "1000"}
    found = studio.call("GET", "/api/projects/", "results", _CREATE_TIMEOUT_S, query=query)
    for project in found:  # the filter also finds titles that only contain ours
        if project["title"] == title:
            return int(project["id"])
    body = {"title": title, "label_config": label_config, "show_collab_predictions": True}
    return int(studio.call("POST", "/api/projects/", "id", _CREATE_TIMEOUT_S, body=body))


def ensure_connected(
    studio: Studio,
    project_id: int,
    backend_url: str,
    title: str,
    *,
    basic_auth: tuple[str, str] | None = None,
    timeout_s: float = 120,
    tell: Tell = _tell_nobody,
) -> None:
    """Connect a project to a backend, unless it is; tries again while the backend loads its weights.

    `backend_url` is the backend's address as Label Studio reaches it. Raises ConnectError, StudioError.
    """
    models = studio.call("GET", "/api/ml/", None, _CREATE_TIMEOUT_S, query={"project": str(project_id)})
    if backend_url.rstrip("/") in {str(model["url"]).rstrip("/") for model in models}:
        return
    body: dict[str, Any] = {"project": project_id, "url": backend_url, "title": title}
    if basic_auth:
        body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": basic_auth[0], "basic_auth_pass": basic_auth[1]}
    waiting = _Waiting(f"Label Studio to connect {backend_url}", timeout_s, tell)
    while True:
        try:
            studio.call("POST", "/api/ml/", "id", _CREATE_TIMEOUT_S, body=body)
        except StudioError as error:
            if not error.reason:  # it isn't Label Studio that refuses
                raise
            if not any(sign in error.reason for sign in _PASSING_FAILURES) or waiting.is_over:
                raise ConnectError(_advice(error.reason, backend_url)) from None
            waiting.go_on(error.reason)
        else:
            return


def connect_first_project(
    settings: Settings,
    backend_url: str,
    title: str,
    *,
    public_url: str | None = None,
    timeout_s: float = 300,
    tell: Tell = _tell_nobody,
) -> str:
    """Wait for Label Studio and the backend, make the project, connect it; a line that says where it is.

    `public_url` is Label Studio as a person's browser reaches it, and `tell` gets lines about what is waited for.
    Raises ConnectError, StudioError, requests.Timeout.
    """
    if not settings.label_studio_url or not settings.label_studio_api_key:
        raise ConnectError("set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    studio = Studio(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
    wait_for_studio(studio.url, timeout_s, tell)
    studio.check()
    class_names = class_names_of(RemoteBackend(backend_url, settings.basic_auth), timeout_s, tell)
    project_id = ensure_project(studio, title, labeling_config_for(class_names))
    ensure_connected(
        studio, project_id, backend_url, "YOLO", basic_auth=settings.basic_auth, timeout_s=timeout_s, tell=tell
    )
    address = f"{(public_url or studio.url).rstrip('/')}/projects/{project_id}"
    return f'Ready: project "{title}" at {address} is connected to {backend_url}'


def _advice(message: str, backend_url: str) -> str:
    if "reserved network address" in message:
        return (
            f"Label Studio's network guard refuses {backend_url}: start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false (docs/docker.md says what to ban again)"
        )
    return f"Label Studio doesn't connect to {backend_url}: {message}"
