"""Bodies that there is no room for: answered at the right length, in little memory."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from tests.fakes.engine import FakeEngine, info_of
from tests.fakes.weights import fake_catalog
from yolo_backend.protocol import from_json
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="car"/></RectangleLabels></View>"""


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Predictor]:
    monkeypatch.setattr("yolo_backend.server.bodies._WAIT_FOR_ROOM_S", 0.2)
    made = Predictor(
        load_settings(model_name="fake.pt", max_request_megabytes=10),
        fake_catalog(lambda name: FakeEngine(info_of(name))),
    )
    yield made
    made.close()


def body_of(tasks: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps({"tasks": tasks, "label_config": CONFIG, "project": "1.2", **more}).encode()


def client_of(predictor: Predictor) -> FlaskClient:
    class Backend:
        """As YoloBackend, over this predictor."""

        def __init__(self, **_: Any) -> None:
            pass

        def predict(self, tasks: list[Any], context: dict[str, Any] | None = None, **_: Any) -> Any:
            return predictor.predict(tasks, CONFIG, project="1", context=context, deadline_s=0.5)

    return create_app(ModelClass("Backend", lambda: Backend), predictor).test_client()  # type: ignore[arg-type,return-value]


def post(client: FlaskClient, body: bytes, *, chunked: bool = False) -> Any:
    if not chunked:
        return client.post("/predict", data=body, content_type="application/json")
    return client.post(
        "/predict",
        input_stream=io.BytesIO(body),
        headers={"Transfer-Encoding": "chunked"},
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
    )


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("more", "entry"), [({}, []), ({"params": {"context": {"result": []}}}, {"result": []})])
def test_many_large_bodies_at_once_are_answered_in_little_memory(
    predictor: Predictor, more: dict[str, Any], entry: Any, chunked: bool
) -> None:
    assert predictor.held.take(79_000_000)  # others'
    client = client_of(predictor)
    body = body_of([{"id": n, "data": {"image": "/x.jpg", "x": "A" * 100_000}} for n in range(60)], **more)
    tracemalloc.start()
    try:
        with ThreadPoolExecutor(6) as callers:
            answers = list(callers.map(lambda _: post(client, body, chunked=chunked), range(6)))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [answer.get_json()["results"] for answer in answers] == [[entry] * 60] * 6
    assert predictor.held.held_bytes == 79_000_000
    assert peak_bytes < len(body) * 2  # six bodies, as bytes and as objects, would be twelve times


def test_a_body_without_room_that_is_not_json_gets_its_400(predictor: Predictor) -> None:
    assert predictor.held.take(80_000_000)
    answer = post(client_of(predictor), b'{"tasks": [{}')
    assert (answer.status_code, answer.get_json()) == (400, {"error": "The body is not JSON"})


@pytest.mark.parametrize("body", [b"no", b"[]", body_of([])])
def test_what_is_refused_gives_its_room_back(predictor: Predictor, body: bytes) -> None:
    assert post(client_of(predictor), body).status_code == 400
    assert predictor.held.held_bytes == 0


class SlowUpload(io.RawIOBase):
    """A body of which little comes, and then nothing until the test says so."""

    def __init__(self) -> None:
        self.is_read = threading.Event()
        self.goes_on = threading.Event()
        self._pieces = [b'{"tasks": [']

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.is_read.set()
        if self._pieces:
            piece = self._pieces.pop()
            buffer[: len(piece)] = piece
            return len(piece)
        self.goes_on.wait(10)
        return 0


def test_a_body_that_is_announced_and_does_not_come_takes_nobodys_room(predictor: Predictor) -> None:
    client = client_of(predictor)
    uploads = [SlowUpload() for _ in range(4)]

    def upload(body: SlowUpload) -> Any:
        announced = {"wsgi.input": body, "CONTENT_LENGTH": "9000000"}
        return client.post("/predict", content_type="application/json", environ_overrides=announced)

    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(upload, body) for body in uploads]
        assert all(body.is_read.wait(10) for body in uploads)
        assert predictor.held.held_bytes < 1000
        for body in uploads:
            body.goes_on.set()
        assert {answer.result().status_code for answer in answers} == {400}
    assert predictor.held.held_bytes == 0


def test_a_persons_click_finds_room_in_any_case(predictor: Predictor) -> None:
    assert predictor.held.take(80_000_000)
    client = client_of(predictor)
    body = body_of([{"id": 1, "data": {"image": "data:,broken"}}])
    asked: list[Any] = []
    predict = predictor.predict

    def notice(tasks: Any, *arguments: Any, **more: Any) -> Any:
        asked.append(tasks)
        return predict(tasks, *arguments, **more)

    predictor.predict = notice  # type: ignore[method-assign]
    assert post(client, body).get_json() == {"results": [[]]}
    assert len(asked) == 1
    assert predictor.held.held_bytes == 80_000_000


@pytest.mark.parametrize(("text", "long_bytes"), [("A" * 1000, 0), ("A" * 100_000, 100_000)])
def test_while_a_body_is_answered_a_long_text_in_it_counts_once(
    predictor: Predictor, text: str, long_bytes: int
) -> None:
    """As Python objects, `data:` addresses take what they take as bytes, and all else eight times as much."""
    body = body_of([{"id": number, "data": {"image": text, "x": 1}} for number in (1, 2)])
    held: list[int] = []

    def notice(tasks: Any, *_: Any, **__: Any) -> Any:
        held.append(predictor.held.held_bytes)
        return [[] for _ in tasks]

    predictor.predict = notice  # type: ignore[method-assign]
    assert post(client_of(predictor), body).get_json() == {"results": [[], []]}
    assert held == [8 * (len(body) - 2 * long_bytes) + 2 * long_bytes]
    assert predictor.held.held_bytes == 0


# Bodies that are never so large: labeling configs and events, over a real connection


@pytest.fixture
def address(predictor: Predictor) -> Iterator[tuple[str, int]]:
    app = client_of(predictor).application
    app.config["MAX_CONTENT_LENGTH"] = 256_000_000  # as it is by default
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "127.0.0.1", server.port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address: tuple[str, int], route: str, head: str, *pieces: bytes) -> tuple[int, str]:
    """The status and the sentence of the answer to these bytes, and no more of them."""
    with socket.create_connection(address, 10) as connection:
        connection.sendall(f"POST {route} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        for piece in pieces:
            connection.sendall(piece)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, str(json.loads(answer.read()).get("error"))


@pytest.mark.parametrize("route", ["/setup", "/webhook"])
def test_a_labeling_config_or_an_event_that_says_it_is_very_large_is_refused_at_once(
    predictor: Predictor, address: tuple[str, int], route: str
) -> None:
    assert ask(address, route, "Content-Length: 16000001", b"{") == (413, too_large(route))
    assert predictor.held.held_bytes == 0


@pytest.mark.parametrize("route", ["/setup", "/webhook"])
def test_one_that_does_not_say_so_is_read_no_further(
    predictor: Predictor, address: tuple[str, int], route: str
) -> None:
    chunk = b"40000\r\n" + b" " * 0x40000 + b"\r\n"  # as much as is read at once
    assert ask(address, route, "Transfer-Encoding: chunked", *[chunk] * 62) == (413, too_large(route))
    assert predictor.held.held_bytes == 0


@pytest.mark.parametrize("route", ["/setup", "/webhook"])
def test_one_that_is_not_larger_is_read_whatever_others_hold_and_is_counted(
    predictor: Predictor, address: tuple[str, int], route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predictor.held.take(80_000_000)  # all there is
    counted: list[int] = []

    def notice(content: bytes) -> Any:
        counted.append(predictor.held.held_bytes)
        return from_json(content)

    monkeypatch.setattr("yolo_backend.server.bodies.from_json", notice)
    body = json.dumps({"schema": "", "action": ""}).encode().ljust(16_000_000)
    status, error = ask(address, route, f"Content-Length: {len(body)}", body)
    assert (status, error[:16]) == (400, "The body has no ")
    assert counted == [80_000_000 + 8 * 16_000_000]
    assert predictor.held.held_bytes == 80_000_000


def too_large(route: str) -> str:
    return f"{route} takes 16 MB at most: make the labeling config, or the annotation that is sent, smaller"
