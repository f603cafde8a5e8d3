"""A first project for the weights' classes, connected to the backend: for Docker Compose and the demo."""

from __future__ import annotations

import colorsys
import time
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

import httpx
import requests
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from yolo_backend.errors import UserError
from yolo_backend.messages import api_message
from yolo_backend.remote_backend import BackendError, BackendLoginError, RemoteBackend
from yolo_backend.settings import Settings
from yolo_backend.studio import Studio

_POLL_EVERY_S = 2.0
_REQUEST_TIMEOUT_S = 5.0
# Label Studio's own limits for a backend's answer are 1 s and 3 s, so a busy machine may need another try.
_PASSING_FAILURES = ("503", "timed out", "health check failed")


class ConnectError(UserError):
    """The project can't be made or connected; the message says what to do."""


def wait_until_up(url: str, timeout_s: float) -> None:
    """Wait until `/health` of a Label Studio or a backend answers 200. Raises ConnectError."""
    deadline = time.monotonic() + timeout_s
    while (problem := _health_problem(url)) is not None:
        if time.monotonic() > deadline:
            raise ConnectError(f"{url} is not up after {timeout_s:g} s ({problem}): see its log")
        time.sleep(_POLL_EVERY_S)


def class_names_of(backend: RemoteBackend, timeout_s: float) -> list[str]:
    """The names of the classes that a backend predicts; waits until its weights are read. Raises ConnectError."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer: dict[str, Any] = {}
        try:
            answer = backend.index()
        except BackendLoginError as error:
            raise ConnectError(f"{error}. {error.fix}") from None
        except BackendError:  # perhaps it isn't up yet
            pass
        if names := answer.get("classes"):
            return [str(name) for name in names]
        if reason := answer.get("reason"):
            raise ConnectError(f"the backend can't predict: {reason}")
        if time.monotonic() > deadline:
            raise ConnectError(f"{backend.shown_url} has not read its weights after {timeout_s:g} s: see its log")
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


def ensure_project(client: LabelStudio, title: str, label_config: str) -> int:
    """The id of the project of this title; made if there is none, left as it is otherwise."""
    for project in client.projects.list(title=title):  # the filter also finds titles that only contain ours
        if project.title == title:
            return int(project.id)
    made = client.projects.create(title=title, label_config=label_config, show_collab_predictions=True)
    return int(made.id)


def ensure_connected(
    client: LabelStudio,
    project_id: int,
    backend_url: str,
    title: str,
    *,
    basic_auth: tuple[str, str] | None = None,
    timeout_s: float = 120,
) -> None:
    """Connect a project to a backend, unless it is; tries again while the backend loads its weights.

    `backend_url` is the backend's address as Label Studio reaches it. Raises ConnectError.
    """
    connected = {str(backend.url).rstrip("/") for backend in client.ml.list(project=project_id)}
    if backend_url.rstrip("/") in connected:
        return
    login = {}
    if basic_auth:
        login = {"auth_method": "BASIC_AUTH", "basic_auth_user": basic_auth[0], "basic_auth_pass": basic_auth[1]}
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client.ml.create(project=project_id, url=backend_url, title=title, **login)
        except ApiError as error:
            message = api_message(error.body)
            if not any(sign in message for sign in _PASSING_FAILURES) or time.monotonic() > deadline:
                raise ConnectError(_advice(message, backend_url)) from None
            time.sleep(_POLL_EVERY_S)
        else:
            return


def connect_first_project(
    settings: Settings, backend_url: str, title: str, *, public_url: str | None = None, timeout_s: float = 300
) -> str:
    """Wait for Label Studio and the backend, make the project, connect it; a line that says where it is.

    `public_url` is Label Studio as a person's browser reaches it. Raises ConnectError and StudioError.
    """
    if not settings.label_studio_url or not settings.label_studio_api_key:
        raise ConnectError("set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    api_key = settings.label_studio_api_key.get_secret_value()
    try:
        wait_until_up(settings.label_studio_url, timeout_s)
        Studio(settings.label_studio_url, api_key).check()
        wait_until_up(backend_url, timeout_s)
        class_names = class_names_of(RemoteBackend(backend_url, settings.basic_auth), timeout_s)
        client = LabelStudio(base_url=settings.label_studio_url, api_key=api_key)
        project_id = ensure_project(client, title, labeling_config_for(class_names))
        ensure_connected(client, project_id, backend_url, "YOLO", basic_auth=settings.basic_auth, timeout_s=timeout_s)
    except ApiError as error:
        raise ConnectError(f"Label Studio answers {error.status_code}: {api_message(error.body)}") from None
    except (httpx.HTTPError, requests.RequestException) as error:
        raise ConnectError(f"the connection broke ({type(error).__name__}): try again") from None
    address = f"{(public_url or settings.label_studio_url).rstrip('/')}/projects/{project_id}"
    return f'Ready: project "{title}" at {address} is connected to {backend_url}'


def _health_problem(url: str) -> str | None:
    try:
        response = requests.get(f"{url.rstrip('/')}/health", timeout=_REQUEST_TIMEOUT_S)
    except requests.RequestException as error:
        return f"no answer, {type(error).__name__}"
    return None if response.ok else f"{response.status_code} {response.reason}"


def _colour(number: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(number / count, 0.5, 0.8)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _advice(message: str, backend_url: str) -> str:
    if "reserved network address" in message:
        return (
            f"Label Studio's network guard refuses {backend_url}: start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false (docs/docker.md tells what to close again)"
        )
    return f"Label Studio doesn't connect to {backend_url}: {message}"
