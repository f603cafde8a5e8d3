"""A Label Studio that goes away is asked again, where that does no harm, and not for ever."""

from __future__ import annotations

import threading
from collections import deque
from http.server import BaseHTTPRequestHandler

import pytest

from tests.harness.http_server import RecordingServer, StartServer, reply
from yolo_backend.label_studio import patience as patience_module
from yolo_backend.label_studio.errors import StudioError, StudioMissingError, StudioRefusedError, StudioRejectedError
from yolo_backend.label_studio.patience import PatientStudio
from yolo_backend.label_studio.studio import Studio

LEGACY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "_ASK_AGAIN_AFTER_S", (0.01, 0.02))
    monkeypatch.setattr(patience_module, "_WAIT_AT_MOST_S", 0.5)


class House:
    """Label Studio answers with these statuses, then with 200; what it remarks on."""

    def __init__(self, serve: StartServer, *statuses: int) -> None:
        self.statuses = deque(statuses)
        self.server: RecordingServer = serve(self.answer)
        self.remarks: list[str] = []
        self.stop = threading.Event()
        self.studio: Studio = PatientStudio(self.server.url, LEGACY, self.remarks.append, self.stop)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        status = self.statuses.popleft() if self.statuses else 200
        reply(b'{"detail": "No."}' if 400 <= status < 500 else b'{"total": 3}', status)(handler)

    def call(self, method: str) -> object:
        return self.studio.call(method, "/api/tasks/", "total", 5)


def test_who_is_there_is_asked_once(serve: StartServer) -> None:
    house = House(serve)
    assert house.call("GET") == house.call("POST") == 3
    assert house.remarks == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_it_asks_again_and_says_so_once(method: str, serve: StartServer) -> None:
    house = House(serve, 502, 503, 500)
    assert house.call(method) == 3
    assert len(house.server.requests) == 4
    away, back = house.remarks
    assert "answers 502" in away
    assert "going on" in back


def test_nothing_is_sent_twice(serve: StartServer) -> None:
    house = House(serve, 502)
    with pytest.raises(StudioError):
        house.call("POST")
    assert len(house.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "expected"), [(401, StudioRefusedError), (404, StudioMissingError), (400, StudioRejectedError)]
)
def test_a_clear_answer_is_one(status: int, expected: type[StudioError], serve: StartServer) -> None:
    house = House(serve, status)
    with pytest.raises(expected):
        house.call("GET")
    assert len(house.server.requests) == 1


def test_it_gives_up_in_the_end(serve: StartServer) -> None:
    house = House(serve, *[502] * 1000)
    with pytest.raises(StudioError, match="answers 502"):
        house.call("GET")
    assert len(house.remarks) == 1
    assert 1 < len(house.server.requests) < 1000


def test_whoever_stops_waits_no_longer(serve: StartServer) -> None:
    house = House(serve, *[502] * 1000)
    house.stop.set()
    with pytest.raises(StudioError):
        house.call("GET")
    assert len(house.server.requests) == 1


def test_each_absence_has_its_own_time(serve: StartServer) -> None:
    house = House(serve, 502, 200, 502)
    house.call("GET")
    house.call("GET")
    assert len(house.remarks) == 4
