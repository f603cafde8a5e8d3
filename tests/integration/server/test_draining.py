"""SIGTERM on the real server: what runs is finished and answered, and /health says why nothing more is taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from tests.harness.http_server import RecordingServer, StartServer, reply
from tests.harness.stack import ROOT, BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG


@pytest.fixture
def server(bccd_environment: dict[str, str], tmp_path: Path) -> Iterator[BackendServer]:
    environment = {
        **bccd_environment,
        "MODEL_IMAGE_SIZE": "160",
        "ENGINE": "torch",  # sixteen tasks at a time, whatever the cores
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
    }
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as running:
        wait_until_ready(running.url)
        yield running


@pytest.fixture
def gate() -> Iterator[Event]:
    """Until it opens, no image is sent."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def images(serve: StartServer, gate: Event, bccd_files: list[Path]) -> RecordingServer:
    content = bccd_files[0].read_bytes()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(20)
        reply(content)(handler)

    return serve(answer)


def predict(server: BackendServer, addresses: list[str]) -> requests.Response:
    tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
    body: dict[str, Any] = {"tasks": tasks, "label_config": BCCD_CONFIG, "project": "1.1"}
    return requests.post(f"{server.url}/predict", json=body, timeout=60)


def test_what_runs_is_answered_before_the_end(server: BackendServer, images: RecordingServer, gate: Event) -> None:
    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(predict, server, [f"{images.url}/{number}.jpg" for number in range(100)])
        while len(images.requests) < 16:
            time.sleep(0.05)
        lone = pool.submit(predict, server, [f"{images.url}/lone.jpg"])
        while len(images.requests) < 17:
            time.sleep(0.05)

        server.process.send_signal(signal.SIGTERM)
        while (health := requests.get(f"{server.url}/health", timeout=5)).ok:
            time.sleep(0.05)
        assert (health.status_code, health.reason) == (503, "The backend is stopping: try again when it is back")
        refused = predict(server, [f"{images.url}/late.jpg"])
        assert (refused.status_code, refused.reason) == (503, health.reason)
        assert "Retry-After" not in health.headers
        assert requests.get(f"{server.url}/", timeout=5).json()["status"] == "STOPPING"
        assert not bulk.done()
        assert not lone.done()

        gate.set()
        results = bulk.result().json()["results"]
        assert len(results) == 100
        predicted = [result for result in results if result != []]
        assert 16 <= len(predicted) < 100  # those that were under way, and no new ones
        assert all(len(prediction["result"]) > 2 for prediction in predicted)
        assert len(lone.result().json()["results"][0]["result"]) > 2
    assert server.process.wait(20) == 0
    assert not any(request.path == "/late.jpg" for request in images.requests)


def test_an_idle_server_ends_at_once(server: BackendServer) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    "program",
    [
        pytest.param([str(ROOT / "_wsgi.py")], id="as it is"),
        # A worker has its parent's handlers at first, which took the signal for nothing.
        pytest.param(
            [
                "-c",
                "import sys, time; from gunicorn import util; util.seed = lambda: time.sleep(1);"  # a call in between
                "from yolo_backend.server.startup import serve; serve(sys.argv[1:])",
            ],
            id="before its worker heeds signals",
        ),
    ],
)
def test_a_server_that_is_told_to_end_while_it_starts(
    program: list[str], bccd_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {**os.environ, **bccd_environment}
    command = [sys.executable, *program, "--host", "127.0.0.1", "--port", str(pick_port(0))]
    with (tmp_path / "backend.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while "Booting worker" not in (tmp_path / "backend.log").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "backend.log").read_text()
