"""`python -m yolo_backend.connect`: make a first project for the weights' classes and connect it to the backend."""

from __future__ import annotations

import argparse
import colorsys
import os
import sys
import time
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

import httpx
import requests
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from yolo_backend.messages import api_message
from yolo_backend.settings import SettingsError, load_settings
from yolo_backend.studio import Studio, StudioError

_POLL_EVERY_S = 2.0
_REQUEST_TIMEOUT_S = 5.0
# Label Studio's own limits for a backend's answer are 1 s and 3 s, so a busy machine may need another try.
_PASSING_FAILURES = ("503", "timed out", "health check failed")


class ConnectError(Exception):
    """The project can't be made or connected; the message says what to do."""


def wait_until_up(url: str, timeout_s: float) -> None:
    """Wait until `/health` of a Label Studio or a backend answers 200. Raises ConnectError."""
    deadline = time.monotonic() + timeout_s
    while (problem := _health_problem(url)) is not None:
        if time.monotonic() > deadline:
            raise ConnectError(f"{url} is not up after {timeout_s:g} s ({problem}): see its log")
        time.sleep(_POLL_EVERY_S)


def class_names_of(backend_url: str, timeout_s: float, basic_auth: tuple[str, str] | None = None) -> list[str]:
    """The names of the classes that a backend predicts; waits until its weights are read. Raises ConnectError."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = _index_of(backend_url, basic_auth)
        if names := answer.get("classes"):
            return [str(name) for name in names]
        if reason := answer.get("reason"):
            raise ConnectError(f"The backend can't predict: {reason}")
        if time.monotonic() > deadline:
            raise ConnectError(f"{backend_url} has not read its weights after {timeout_s:g} s: see its log")
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


def main() -> None:
    """Wait for both, make the project, connect it; exits with 1 and one line where that fails."""
    options = _parse_options()
    try:
        print(_connect(options), flush=True)
    except (ConnectError, SettingsError, StudioError) as error:
        _fail(str(error))
    except ApiError as error:
        _fail(f"Label Studio answers {error.status_code}: {api_message(error.body)}")
    except (httpx.HTTPError, requests.RequestException) as error:
        _fail(f"The connection broke ({type(error).__name__}): try again")


def _connect(options: argparse.Namespace) -> str:
    settings = load_settings()
    if not settings.label_studio_url or not settings.label_studio_api_key:
        raise ConnectError("Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    api_key = settings.label_studio_api_key.get_secret_value()
    basic_auth = None
    if settings.basic_auth_user and settings.basic_auth_pass:
        basic_auth = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())

    wait_until_up(settings.label_studio_url, options.timeout)
    Studio(settings.label_studio_url, api_key).check()
    wait_until_up(options.backend_url, options.timeout)
    class_names = class_names_of(options.backend_url, options.timeout, basic_auth)

    client = LabelStudio(base_url=settings.label_studio_url, api_key=api_key)
    project_id = ensure_project(client, options.project, labeling_config_for(class_names))
    ensure_connected(client, project_id, options.backend_url, "YOLO", basic_auth=basic_auth, timeout_s=options.timeout)
    address = f"{options.public_url or settings.label_studio_url}/projects/{project_id}"
    return f'Ready: project "{options.project}" at {address} is connected to {options.backend_url}'


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m yolo_backend.connect",
        description="Make a first project for the model's classes and connect it to the backend. "
        "Needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.",
    )
    parser.add_argument(
        "--backend-url",
        default=os.environ.get("BACKEND_URL") or "http://ml-backend:9090",
        help="the backend as Label Studio reaches it (BACKEND_URL, %(default)s)",
    )
    parser.add_argument(
        "--project",
        default=os.environ.get("PROJECT_TITLE") or "YOLO",
        help="the project's title (PROJECT_TITLE, %(default)s)",
    )
    parser.add_argument(
        "--public-url",
        default=os.environ.get("LABEL_STUDIO_PUBLIC_URL", "").rstrip("/"),
        help="Label Studio as a person's browser reaches it, for the closing line (LABEL_STUDIO_PUBLIC_URL)",
    )
    parser.add_argument("--timeout", type=float, default=300, help="seconds to wait for each (%(default)s)")
    return parser.parse_args()


def _health_problem(url: str) -> str | None:
    try:
        response = requests.get(f"{url.rstrip('/')}/health", timeout=_REQUEST_TIMEOUT_S)
    except requests.RequestException as error:
        return f"no answer, {type(error).__name__}"
    return None if response.ok else f"{response.status_code} {response.reason}"


def _index_of(backend_url: str, basic_auth: tuple[str, str] | None) -> dict[str, Any]:
    try:
        response = requests.get(f"{backend_url.rstrip('/')}/", auth=basic_auth, timeout=_REQUEST_TIMEOUT_S)
    except requests.RequestException:
        return {}
    if response.status_code == 401:
        raise ConnectError(f"{backend_url} refuses the login: check BASIC_AUTH_USER and BASIC_AUTH_PASS")
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


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


def _fail(message: str) -> None:
    print(f"Not connected: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
