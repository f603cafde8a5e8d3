"""A first project for the weights' classes, connected to the backend: for Docker Compose and the demo."""

from __future__ import annotations

import colorsys
import time
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

import requests

from yolo_backend.addresses import redact
from yolo_backend.connecting.remote_backend import BackendError, BackendLoginError, RemoteBackend
from yolo_backend.errors import UserError
from yolo_backend.label_studio.errors import StudioError, explain
from yolo_backend.label_studio.studio import Studio
from yolo_backend.settings import Settings

_POLL_EVERY_S = 2.0
_TELL_EVERY_S = 60.0
_REQUEST_TIMEOUT_S = 5.0
_CREATE_TIMEOUT_S = 60.0  # Label Studio asks the backend meanwhile
# Label Studio's own limits for a backend's answer are 1 s and 3 s, so a busy machine may need another try.
_PASSING_FAILURES = ("503", "timed out", "health check failed")


class ConnectError(UserError):
    """The project can't be made or connected; the message says what to do."""


class _Waiting:
    """Tells a person what is waited for: at the first try in vain, and then each minute, with the reason."""

    def __init__(self, what: str, told: Callable[[str], None]) -> None:
        self._what = what
        self._told = told
        self._tell_at: float | None = None

    def tell(self, why: str) -> None:
        """It isn't there yet, and why."""
        now = time.monotonic()
        if self._tell_at is None:
            self._told(f"Waiting for {self._what}")
        elif now < self._tell_at:
            return
        else:
            self._told(f"Still waiting for {self._what}: {why}")
        self._tell_at = now + _TELL_EVERY_S


def wait_for_studio(url: str, timeout_s: float, told: Callable[[str], None] = lambda _: None) -> None:
    """Wait until Label Studio answers at its address; `told` hears of it.

    Raises ConnectError, and StudioError where waiting is in vain.
    """
    studio = Studio(url, None)
    waiting = _Waiting(f"Label Studio at {redact(url)}", told)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            studio.call("GET", "/api/version/", "release", _REQUEST_TIMEOUT_S)
        except (StudioError, requests.Timeout) as error:
            if isinstance(error, StudioError) and error.trouble and error.trouble.lasts:
                raise
            if time.monotonic() > deadline:
                raise ConnectError(f"Label Studio is not up after {timeout_s:g} s. {explain(error)}") from None
            waiting.tell(explain(error))
        else:
            return
        time.sleep(_POLL_EVERY_S)


def class_names_of(backend: RemoteBackend, timeout_s: float, told: Callable[[str], None] = lambda _: None) -> list[str]:
    """The names of the classes that a backend predicts; waits until its weights are read, and `told` hears of it.

    Raises ConnectError.
    """
    waiting = _Waiting(f"the backend at {backend.shown_url}", told)
    deadline = time.monotonic() + timeout_s
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
        if time.monotonic() > deadline:
            raise ConnectError(f"{backend.shown_url} has not read its weights after {timeout_s:g} s: {problem}")
        waiting.tell(problem)
        time.sleep(_POLL_EVERY_S)


def labeling_config_for(class_names: Iterable[str]) -> str:
    """A labeling config with one rectangle label for each class, each in a colour of its own."""
    names = list(dict.fromkeys(class_names))
    labels = "".join(
        f'\n    <Label value={quoteattr(name)} background="{_colour(number, len(names))}"/>'
        for number, name in enumerate(names)
    )
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="label" toName="image">{labels}\n  </RectangleLabels>\n</View>\n'
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
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            studio.call("POST", "/api/ml/", "id", _CREATE_TIMEOUT_S, body=body)
        except StudioError as error:
            if not error.reason:  # it isn't Label Studio that refuses
                raise
            if not any(sign in error.reason for sign in _PASSING_FAILURES) or time.monotonic() > deadline:
                raise ConnectError(_advice(error.reason, backend_url)) from None
            time.sleep(_POLL_EVERY_S)
        else:
            return


def connect_first_project(
    settings: Settings,
    backend_url: str,
    title: str,
    *,
    public_url: str | None = None,
    timeout_s: float = 300,
    told: Callable[[str], None] = lambda _: None,
) -> str:
    """Wait for Label Studio and the backend, make the project, connect it; a line that says where it is.

    `public_url` is Label Studio as a person's browser reaches it; `told` hears what is waited for. Raises ConnectError,
    StudioError, requests.Timeout.
    """
    if not settings.label_studio_url or not settings.label_studio_api_key:
        raise ConnectError("set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    studio = Studio(settings.label_studio_url, settings.label_studio_api_key.get_secret_value())
    wait_for_studio(studio.url, timeout_s, told)
    studio.check()
    class_names = class_names_of(RemoteBackend(backend_url, settings.basic_auth), timeout_s, told)
    project_id = ensure_project(studio, title, labeling_config_for(class_names))
    ensure_connected(studio, project_id, backend_url, "YOLO", basic_auth=settings.basic_auth, timeout_s=timeout_s)
    address = f"{(public_url or studio.url).rstrip('/')}/projects/{project_id}"
    return f'Ready: project "{title}" at {address} is connected to {backend_url}'


def _colour(number: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number / count, 0.5, 0.8)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _advice(message: str, backend_url: str) -> str:
    if "reserved network address" in message:
        return (
            f"Label Studio's network guard refuses {backend_url}: start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false (docs/docker.md says what to ban again)"
        )
    return f"Label Studio doesn't connect to {backend_url}: {message}"
