"""The one-shot that makes a first project and connects it, against small servers that answer as Label Studio does."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface

from tests.harness.http_server import StartServer, redirect
from yolo_backend.connecting import connect
from yolo_backend.connecting.connect import (
    ConnectError,
    class_names_of,
    ensure_connected,
    ensure_project,
    labeling_config_for,
    wait_for_studio,
)
from yolo_backend.connecting.remote_backend import RemoteBackend
from yolo_backend.label_studio.errors import StudioError
from yolo_backend.label_studio.studio import Studio
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config

# As Label Studio 1.23.2 says it when /setup answers 503.
LOADING = (
    "Successfully connected to http://ml-backend:9090 but it doesn't look like a valid ML backend. Reason: 503 Server "
    "Error: Loading x.pt, try again for url: http://ml-backend:9090/setup.\nCheck the ML backend server console logs"
)

TOKEN = "0" * 40


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_POLL_EVERY_S", 0.01)


class Answers:
    """Answers to `METHOD /path`, each given once but the last, which stays."""

    def __init__(self, **answers: list[tuple[int, Any]]) -> None:
        self._answers = answers

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        name = f"{request.command}{request.path.partition('?')[0].rstrip('/').replace('/', '_')}"
        answers = self._answers[name]
        status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        body = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.mark.parametrize(
    "class_names",
    [
        ["car"],
        ["car", "truck", "traffic light"],
        ['24" <wide> & "flat"', "it's", "día", "車"],
        [f"class {number}" for number in range(80)],
    ],
)
def test_the_labeling_config_serves_every_class(class_names: list[str]) -> None:
    config = labeling_config_for(class_names)

    LabelInterface(config).validate()
    [control] = parse_labeling_config(config).controls
    label_map = map_labels(control, dict(enumerate(class_names)), 0.25)
    assert dict(label_map.label_of_class) == dict(enumerate(class_names))
    assert label_map.labels_without_class == ()
    assert control.value == "$image"


def test_every_label_has_a_colour_of_its_own() -> None:
    [control] = LabelInterface(labeling_config_for(f"class {number}" for number in range(80))).controls

    assert len({label.attr["background"] for label in control.labels_attrs.values()}) == 80


def test_what_is_in_a_box_can_be_seen_and_many_labels_can_be_searched() -> None:
    few, many = (labeling_config_for(f"class {number}" for number in range(count)) for count in (15, 16))
    for config in (few, many):
        [control] = LabelInterface(config).controls
        assert (control.attr["strokeWidth"], control.attr["opacity"]) == ("2", "0.1")
    assert "<Filter" not in few
    assert '<Filter name="filter" toName="label"' in many
    assert 'hotkey="shift+f"' in many  # without one, Label Studio gives it the key 1, which is the first label's


def test_classes_of_one_name_share_a_label() -> None:
    [control] = parse_labeling_config(labeling_config_for(["car", "truck", "car"])).controls

    assert [label.value for label in control.labels] == ["car", "truck"]


def test_waits_until_label_studio_answers(serve: StartServer) -> None:
    server = serve(Answers(GET_api_version=[(503, {}), (502, {}), (200, {"release": "1.23.2"})]))

    wait_for_studio(server.url, timeout_s=10)

    assert len(server.requests) == 3


def test_says_what_was_wrong_with_a_label_studio_that_never_came_up(serve: StartServer) -> None:
    server = serve(Answers(GET_api_version=[(503, {})]))

    with pytest.raises(ConnectError) as raised:
        wait_for_studio(server.url, timeout_s=0.05)

    assert str(raised.value) == (
        f"Label Studio is not up after 0.05 s. {server.url} answers 503: Label Studio is starting, or stopped: see "
        "that it runs, then the proxy's log"
    )


def test_what_no_waiting_mends_is_told_at_once(serve: StartServer) -> None:
    server = serve(redirect("https://studio.example/api/version/"))

    with pytest.raises(
        StudioError, match=r"answers a redirect to https://studio\.example: set LABEL_STUDIO_URL to that$"
    ):
        wait_for_studio(server.url, timeout_s=60)


def test_class_names_come_once_the_weights_are_read(serve: StartServer) -> None:
    loading: dict[str, Any] = {"model_class": "YoloBackend", "status": "LOADING", "classes": [], "reason": None}
    ready = loading | {"status": "UP", "classes": ["car", "truck"]}
    server = serve(Answers(GET=[(502, {}), (200, loading), (200, ready)]))

    assert class_names_of(RemoteBackend(server.url), timeout_s=10) == ["car", "truck"]


def test_weights_that_cannot_be_had_are_not_waited_for(serve: StartServer) -> None:
    down = {"model_class": "YoloBackend", "status": "DOWN", "classes": [], "reason": "x.pt is broken"}
    server = serve(Answers(GET=[(200, down)]))

    with pytest.raises(ConnectError, match=r"x\.pt is broken"):
        class_names_of(RemoteBackend(server.url), timeout_s=60)


def test_who_waits_hears_for_what_at_once_and_then_now_and_then(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading: dict[str, Any] = {"model_class": "YoloBackend", "status": "LOADING", "classes": [], "reason": None}
    ready = loading | {"status": "UP", "classes": ["car"]}
    told: list[str] = []

    backend = RemoteBackend(serve(Answers(GET=[(200, loading)] * 9 + [(200, ready)])).url)
    assert class_names_of(backend, 10, told.append) == ["car"]
    studio = serve(Answers(GET_api_version=[(503, {})] * 9 + [(200, {"release": "1.23.2"})]))
    wait_for_studio(studio.url, 10, told.append)
    assert told == [f"Waiting for the backend at {backend.url}", f"Waiting for Label Studio at {studio.url}"]

    told.clear()
    monkeypatch.setattr(connect, "_TELL_EVERY_S", 0.0)
    backend = RemoteBackend(serve(Answers(GET=[(200, loading)] * 3 + [(200, ready)])).url)
    class_names_of(backend, 10, told.append)
    why = "it reads its weights, which may have to be downloaded first; its log tells more"
    assert (
        told
        == [f"Waiting for the backend at {backend.url}"]
        + [f"Still waiting for the backend at {backend.url}, 0 of 10 s: {why}"] * 2
    )


def test_who_needs_not_wait_hears_nothing(serve: StartServer) -> None:
    ready = {"model_class": "YoloBackend", "status": "UP", "classes": ["car"], "reason": None}
    told: list[str] = []

    class_names_of(RemoteBackend(serve(Answers(GET=[(200, ready)])).url), 10, told.append)
    wait_for_studio(serve(Answers(GET_api_version=[(200, {"release": "1.23.2"})])).url, 10, told.append)
    assert told == []


def test_a_wrong_login_is_not_waited_for(serve: StartServer) -> None:
    server = serve(Answers(GET=[(401, {"error": "The login is missing or wrong"})]))

    with pytest.raises(ConnectError, match=r"refuses the login.*BASIC_AUTH_USER"):
        class_names_of(RemoteBackend(server.url, ("user", "secret")), timeout_s=60)


def test_a_project_of_this_title_is_left_as_it_is(serve: StartServer) -> None:
    # Label Studio's filter finds every title that contains ours.
    projects = [{"id": 3, "title": "YOLO of May"}, {"id": 7, "title": "YOLO"}]
    server = serve(Answers(GET_api_projects=[(200, {"count": 2, "results": projects})]))

    assert ensure_project(Studio(server.url, TOKEN), "YOLO", "<View/>") == 7
    assert {request.method for request in server.requests} == {"GET"}


def test_a_connected_backend_is_left_as_it_is(serve: StartServer) -> None:
    server = serve(Answers(GET_api_ml=[(200, [{"id": 1, "project": 7, "url": "http://ml-backend:9090/"}])]))

    ensure_connected(Studio(server.url, TOKEN), 7, "http://ml-backend:9090", "YOLO")

    assert {request.method for request in server.requests} == {"GET"}


def test_connecting_waits_for_weights_that_load(serve: StartServer) -> None:
    refusal = {"status_code": 400, "detail": "Validation error", "validation_errors": {"non_field_errors": [LOADING]}}
    made = {"id": 1, "project": 7, "url": "http://ml-backend:9090"}
    server = serve(Answers(GET_api_ml=[(200, [])], POST_api_ml=[(400, refusal), (400, refusal), (201, made)]))

    ensure_connected(Studio(server.url, TOKEN), 7, "http://ml-backend:9090", "YOLO", basic_auth=("user", "secret"))

    posts = [json.loads(request.body) for request in server.requests if request.method == "POST"]
    login = {"auth_method": "BASIC_AUTH", "basic_auth_user": "user", "basic_auth_pass": "secret"}
    assert posts == [{"project": 7, "url": "http://ml-backend:9090", "title": "YOLO"} | login] * 3


@pytest.mark.parametrize(
    ("status", "answer", "advice"),
    [
        (
            403,
            {"detail": "URL resolves to a reserved network address (block: ::1/128)"},
            "USE_DEFAULT_BANNED_SUBNETS",
        ),
        (400, {"validation_errors": {"non_field_errors": ["Reason: 422 No RectangleLabels"]}}, "No RectangleLabels"),
        (400, {"validation_errors": {"url": ["Enter a valid URL."]}}, "Enter a valid URL"),
    ],
)
def test_a_refusal_is_told_at_once(serve: StartServer, status: int, answer: dict[str, Any], advice: str) -> None:
    server = serve(Answers(GET_api_ml=[(200, [])], POST_api_ml=[(status, answer)]))

    with pytest.raises(ConnectError, match=advice):
        ensure_connected(Studio(server.url, TOKEN), 7, "http://ml-backend:9090", "YOLO")
