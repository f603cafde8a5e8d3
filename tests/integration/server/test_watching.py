"""What an operator looks at: the log of the real server, in which each line says its request, and its /metrics."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.harness.http_server import StartServer, reply
from tests.harness.pictures import encode
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG, metric

WAIT_S = 20
PAGES_CONFIG = BCCD_CONFIG.replace('value="$image"', 'valueList="$images"')
OWN_ID = r"[a-z2-7]{8}"
# It has a remark, which is logged by whichever thread decodes it.
TWO_PAGES = encode(np.zeros((8, 8), np.uint8), "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))])
AT_0_FROM_THE_START = [
    "yolo_queue_tasks",
    "yolo_queue_age_seconds",
    "yolo_held_bytes",
    *(
        f'yolo_deliveries_total{{outcome="{outcome}",way="{way}"}}'
        for way in ("answer", "import")
        for outcome in ("stored", "held", "lost", "rejected", "unknown")
    ),
]


@pytest.fixture(scope="module")
def environment(bccd_environment: dict[str, str]) -> dict[str, str]:
    return {**bccd_environment, "ALLOWED_IMAGE_HOSTS": "127.0.0.1", "PREDICT_DEADLINE_SECONDS": "1"}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    with backend_server(pick_port(0), environment, tmp_path_factory.mktemp("watching") / "backend.log") as running:
        wait_until_ready(running.url)
        yield running


def click(server: BackendServer, task_id: int, addresses: list[str], **headers: str) -> requests.Response:
    """A person opens a task of several images, which brings nothing."""
    task = {"id": task_id, "data": {"images": addresses}}
    body = {"tasks": [task], "label_config": PAGES_CONFIG, "project": "7.1"}
    answer = requests.post(f"{server.url}/predict", json=body, headers=headers, timeout=WAIT_S)
    assert answer.json() == {"results": [[]]}
    return answer


def lines_of(server: BackendServer, task_id: int) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if f" Task {task_id}" in line]


def test_all_lines_of_a_click_have_its_id_and_two_at_once_do_not_mix(server: BackendServer, serve: StartServer) -> None:
    both = threading.Barrier(2, timeout=WAIT_S)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        both.wait()  # each of the two clicks is there at each step
        (reply(TWO_PAGES) if handler.path.endswith(".tif") else reply(b"no", 404))(handler)

    images = serve(answer)

    def ask(task_id: int) -> str:
        addresses = [f"{images.url}/{task_id}.tif", f"{images.url}/{task_id}.jpg"]
        return click(server, task_id, addresses).headers["X-Request-ID"]

    with ThreadPoolExecutor(2) as people:
        ids = dict(zip([501, 502], people.map(ask, [501, 502]), strict=True))
    assert ids[501] != ids[502]
    for task_id, request_id in ids.items():
        assert re.fullmatch(OWN_ID, request_id)
        remark, failure = lines_of(server, task_id)  # by the thread that decoded it, and by the one that answered
        told, page = f"[{request_id}] Task {task_id}", f"{images.url}/{task_id}"
        assert remark.endswith(
            f"] [WARNING] [yolo_backend.serving.image] {told}: {page}.tif: only the first of its pages is looked at"
        )
        assert f"] [WARNING] [yolo_backend.serving.request] {told} is not predicted: {page}.jpg: " in failure


def test_an_id_of_the_caller_is_taken_over_where_it_is_harmless(server: BackendServer, serve: StartServer) -> None:
    gone = serve(reply(b"no", 404)).url + "/a.jpg"
    given = "3f0c9d8e-5b7a-4c1e-9d2f-0a1b2c3d4e5f"
    assert click(server, 511, [gone], **{"X-Request-ID": given}).headers["X-Request-ID"] == given
    (line,) = lines_of(server, 511)
    assert f"] [{given}] Task 511 is not predicted: " in line

    own = click(server, 512, [gone], **{"X-Request-ID": "a] [forged] x"}).headers["X-Request-ID"]
    assert re.fullmatch(OWN_ID, own)
    (line,) = lines_of(server, 512)
    assert f"] [{own}] Task 512 is not predicted: " in line
    assert "forged" not in server.log.read_text()


def test_the_line_of_the_deadline_and_those_of_no_request(server: BackendServer, serve: StartServer) -> None:
    opened = threading.Event()
    images = serve(lambda handler: (opened.wait(WAIT_S), reply(b"no", 404)(handler))[1])
    request_id = click(server, 521, [images.url + "/a.jpg"]).headers["X-Request-ID"]
    opened.set()
    (line,) = [line for line in lines_of(server, 521) if "deadline" in line]
    assert f"] [{request_id}] Task 521 is not predicted: it wasn't ready by the deadline " in line
    (ready,) = [line for line in server.log.read_text().splitlines() if line.endswith("is ready")]
    assert "[INFO] [yolo_backend.detection.detector] [-] " in ready


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [("GET", "/health", None, 200), ("GET", "/nothing", None, 404), ("POST", "/predict", "{", 400)],
)
def test_every_answer_says_its_id(server: BackendServer, method: str, path: str, body: Any, status: int) -> None:
    answer = requests.request(method, server.url + path, data=body, timeout=WAIT_S)
    assert answer.status_code == status
    assert re.fullmatch(OWN_ID, answer.headers["X-Request-ID"])


def test_the_seconds_of_a_request_are_those_until_its_answer(server: BackendServer, serve: StartServer) -> None:
    def numbers(route: str) -> list[float]:
        return [metric(server.url, f'yolo_request_seconds_{part}{{route="{route}"}}') for part in ("count", "sum")]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        reply(b"no", 404)(handler)

    images = serve(answer)

    def within(bound: str) -> float:
        return metric(server.url, f'yolo_request_seconds_bucket{{le="{bound}",route="/predict"}}')

    before, unknown_before = numbers("/predict"), numbers("unknown")
    within_before = [within("0.25"), within("120.0")]
    began = time.monotonic()
    click(server, 531, [images.url + "/a.jpg"])
    took_s = time.monotonic() - began
    requests.get(f"{server.url}/S3CR3T", timeout=WAIT_S)

    count, seconds = np.subtract(numbers("/predict"), before)
    assert count == 1
    assert 0.4 <= seconds <= took_s
    assert numbers("unknown")[0] == unknown_before[0] + 1
    assert [within("0.25"), within("120.0")] == [within_before[0], within_before[1] + 1]
    assert "S3CR3T" not in requests.get(f"{server.url}/metrics", timeout=WAIT_S).text


def test_what_happened_never_yet_is_0_and_not_missing(server: BackendServer) -> None:
    """This server has no Label Studio and no bulk work, so it delivers nothing."""
    lines = requests.get(f"{server.url}/metrics", timeout=WAIT_S).text.splitlines()
    assert [line for line in AT_0_FROM_THE_START if f"{line} 0.0" not in lines] == []


def test_flasks_own_server_says_the_id_in_its_line_too(environment: dict[str, str], tmp_path: Path) -> None:
    entry = ("-m", "yolo_backend", "serve", "--debug")
    with backend_server(pick_port(0), environment, tmp_path / "backend.log", entry) as server:
        request_id = requests.get(f"{server.url}/versions", timeout=WAIT_S).headers["X-Request-ID"]
    (line,) = [line for line in (tmp_path / "backend.log").read_text().splitlines() if "GET /versions" in line]
    assert f"[INFO] [werkzeug] [{request_id}] 127.0.0.1 " in line
