"""A Label Studio that doesn't answer in time: these wait for the limits themselves, so they are no unit tests."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest
import requests

from tests.fakes.token_label_studio import LEGACY, PERSONAL, FakeLabelStudio
from tests.harness.http_server import StartServer
from yolo_backend.label_studio.studio import Studio

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("token", [LEGACY, PERSONAL, None])
def test_a_label_studio_too_busy_to_answer_is_no_error(serve: StartServer, token: str | None) -> None:
    label_studio = FakeLabelStudio()
    busy = [True]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if busy[0]:
            time.sleep(1.5)
        label_studio(handler)

    server = serve(answer)
    studio = Studio(server.url, token)
    started_at = time.monotonic()
    studio.check()
    assert time.monotonic() - started_at < 3  # what Label Studio waits for the answer of /setup
    asked = len(server.requests)
    busy[0] = False
    studio.check()  # and it is asked again, for nothing is known yet
    assert len(server.requests) > asked


def test_a_check_does_not_queue_behind_those_who_wait_for_an_access_token(serve: StartServer) -> None:
    server = serve(lambda handler: time.sleep(8))  # accepts, and doesn't answer
    studio = Studio(server.url, PERSONAL)

    def ask() -> None:
        with pytest.raises(requests.Timeout):
            studio.authorization()

    started_at = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask) for _ in range(4)]
        while not server.requests:
            time.sleep(0.01)
        asked_at = time.monotonic()
        studio.check()
        assert time.monotonic() - asked_at < 3
        for future in waiting:
            future.result()
    assert time.monotonic() - started_at < 12  # all four know after the time-out of one


@pytest.mark.parametrize("path", ["/api/current-user/whoami", "/health"])
def test_an_answer_that_drips_ends_in_time(serve: StartServer, path: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    studio = Studio(serve(drip).url, LEGACY if "whoami" in path else None)
    started_at = time.monotonic()
    studio.check()  # no answer in time is no failure
    assert time.monotonic() - started_at < 5
