"""The real server while bulk requests wait: Label Studio's short calls and a lone person still get their answers."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import Answer, StartServer, reply
from tests.e2e.studio_client import BCCD_CONFIG, wait_until_ready
from yolo_backend.demo.stack import BackendServer, backend_server, pick_port

THREADS = 6


@pytest.fixture(scope="module")
def server(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    environment = {
        "MODEL_NAME": "bccd-yolo11n.pt",
        "MODEL_ROOT": str(data_dir / "weights"),
        "THREADS": str(THREADS),
        "PREDICT_DEADLINE_SECONDS": "12",
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
    }
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("load") / "backend.log") as running:
        wait_until_ready(running.url)
        yield running


def post(server: BackendServer, path: str, body: dict[str, Any]) -> Any:
    answer = requests.post(server.url + path, json=body, timeout=60)
    assert answer.ok, answer.text
    return answer.json()


def predict(server: BackendServer, addresses: list[str]) -> list[Any]:
    tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
    results = post(server, "/predict", {"tasks": tasks, "label_config": BCCD_CONFIG, "project": "1.1"})["results"]
    assert len(results) == len(addresses)
    return list(results)


def reply_slowly(content: bytes, after_s: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(after_s)
        reply(content)(handler)

    return answer


def test_more_bulk_requests_than_threads_leave_room_for_the_rest(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    content = bccd_files[0].read_bytes()
    slow = serve(reply_slowly(content, after_s=2))
    inline = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    with ThreadPoolExecutor(2 * THREADS) as pool:
        bulk = [pool.submit(predict, server, [f"{slow.url}/{number}.jpg" for number in range(60)]) for _ in range(9)]
        while len(slow.requests) < 8:  # they are under way
            time.sleep(0.05)
        for _ in range(5):
            # The limits are Label Studio's own.
            assert requests.get(f"{server.url}/health", timeout=1).ok
            started_at = time.monotonic()
            post(server, "/setup", {"project": "1.1", "schema": BCCD_CONFIG})
            assert time.monotonic() - started_at < 3
            (prediction,) = predict(server, [inline])
            assert len(prediction["result"]) > 3
            assert not all(future.done() for future in bulk)
        answers = [future.result() for future in bulk]

    predicted = [sum(result != [] for result in results) for results in answers]
    assert 0 < sum(predicted) < 9 * 60  # by the deadline some were ready, and the rest is asked for again
    assert sum(count > 0 for count in predicted) <= THREADS - 3


def test_bulk_requests_side_by_side_take_turns(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    slow = serve(reply_slowly(bccd_files[0].read_bytes(), after_s=0.5))
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(predict, server, [f"{slow.url}/{number}.jpg" for number in range(400)])
        while len(slow.requests) < 20:
            time.sleep(0.05)
        small = pool.submit(predict, server, [f"{slow.url}/{number}.jpg" for number in range(10)])
        assert all(result != [] for result in small.result())
        assert not large.done()
        assert any(result == [] for result in large.result())


def test_a_lone_request_is_answered_by_the_deadline_too(server: BackendServer, serve: StartServer) -> None:
    hanging = serve(lambda handler: time.sleep(30))
    started_at = time.monotonic()
    assert predict(server, [hanging.url]) == [[]]
    assert time.monotonic() - started_at < 20  # 12 s is the deadline, 20 s the read time-out
