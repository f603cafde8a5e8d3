"""The real server while bulk requests wait: Label Studio's short calls and a lone person still get their answers."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks.probes import measure
from tests.harness.http_server import Answer, RecordingServer, StartServer, reply
from tests.harness.stack import BackendServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import BCCD_CONFIG, metric
from tests.harness.waiting import wait_for

THREADS = 6
pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def server(bccd_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendServer]:
    environment = {
        **bccd_environment,
        "CACHE_MEGABYTES": "0",  # the same images again and again
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


def predict(server: BackendServer, addresses: list[str], project: str) -> list[Any]:
    tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
    results = post(server, "/predict", {"tasks": tasks, "label_config": BCCD_CONFIG, "project": project})["results"]
    assert len(results) == len(addresses)
    return list(results)


def addresses(images: RecordingServer, count: int) -> list[str]:
    return [f"{images.url}/{number}.jpg" for number in range(count)]


def predicted_in(results: list[Any]) -> int:
    return sum(result != [] for result in results)


def wait_until_at_rest(server: BackendServer) -> None:
    ends_at = time.monotonic() + 120
    while any(job["waiting"] or job["running"] for job in requests.get(server.url, timeout=10).json()["work"]):
        assert time.monotonic() < ends_at, "work goes on and on"
        time.sleep(0.2)


def reply_slowly(content: bytes, after_s: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(after_s)
        reply(content)(handler)

    return answer


@pytest.mark.proof
def test_more_bulk_requests_than_threads_leave_room_for_the_rest(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    content = bccd_files[0].read_bytes()
    images = serve(reply_slowly(content, after_s=2))
    inline = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    with ThreadPoolExecutor(2 * THREADS) as pool:
        bulk = [pool.submit(predict, server, addresses(images, 60), f"{number}.1") for number in range(9)]
        while len(images.requests) < 8:  # they are under way
            time.sleep(0.05)
        for _ in range(5):
            # The limits are Label Studio's own.
            assert requests.get(f"{server.url}/health", timeout=1).ok
            started_at = time.monotonic()
            post(server, "/setup", {"project": "1.1", "schema": BCCD_CONFIG})
            assert time.monotonic() - started_at < 3
            (prediction,) = predict(server, [inline], "lone")
            assert len(prediction["result"]) > 3
            assert not all(future.done() for future in bulk)
        answers = [future.result() for future in bulk]

    admitted = [number for number, results in enumerate(answers) if predicted_in(results)]
    assert 1 <= len(admitted) <= THREADS - 3
    assert all(predicted_in(answers[number]) < 60 for number in admitted)  # by the deadline some were ready
    images.answer = reply(content)
    wait_until_at_rest(server)  # what was begun goes on, and the next click begins what found no place
    for number, results in enumerate(answers):
        assert predicted_in(results) + predicted_in(predict(server, addresses(images, 60), f"{number}.1")) == 60
    assert len(images.requests) == 9 * 60


@pytest.mark.proof
def test_bulk_requests_side_by_side_take_turns(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    content = bccd_files[0].read_bytes()
    images = serve(reply_slowly(content, after_s=1))
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(predict, server, addresses(images, 240), "large")  # 15 s, for 16 are fetched at a time
        while len(images.requests) < 20:
            time.sleep(0.05)
        small = pool.submit(predict, server, addresses(images, 10), "small")
        assert predicted_in(small.result()) == 10
        assert not large.done()
        assert 0 < predicted_in(large.result()) < 240
    images.answer = reply(content)
    wait_until_at_rest(server)


def test_clicking_again_while_work_is_under_way_joins_it(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    images = serve(reply_slowly(bccd_files[0].read_bytes(), after_s=1))
    with ThreadPoolExecutor(3) as pool:
        clicks = [pool.submit(predict, server, addresses(images, 20), "joined") for _ in range(3)]
        answers = [click.result() for click in clicks]
    assert len(images.requests) == 20
    assert [sum(result != [] for result in of_task) for of_task in zip(*answers, strict=True)] == [1] * 20


def test_a_lone_request_is_answered_by_the_deadline_too(server: BackendServer, serve: StartServer) -> None:
    hanging = serve(lambda handler: time.sleep(30))
    started_at = time.monotonic()
    assert predict(server, [hanging.url], "lone") == [[]]
    assert time.monotonic() - started_at < 20  # 12 s is the deadline, 20 s the read time-out


@pytest.mark.proof
def test_probes_while_bulk_work_keeps_the_model_busy(tmp_path: Path) -> None:
    measured = measure(tmp_path / "backend.log", rounds=8, tasks_each=20)
    assert len(measured.probes_s["/health"]) == 8
    assert max(measured.probes_s["/health"]) < 1
    assert max(measured.probes_s["/setup"]) < 3
    assert max(image.queued for image in measured.lone_images) > 0
    assert [image.passed_by for image in measured.lone_images] == [0] * len(measured.lone_images)
    assert measured.problems() == []


def test_a_lone_person_who_has_gone_costs_no_batch_and_bulk_work_goes_on(
    server: BackendServer, serve: StartServer, bccd_files: list[Path]
) -> None:
    content, gate = bccd_files[0].read_bytes(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(20)
        reply(content)(handler)

    images = serve(answer)

    def told_of_the_gone() -> int:
        log = server.log.read_text()
        return log.count("has gone") + log.count("nobody waits")

    batches, told = metric(server.url, "yolo_batch_size_count"), told_of_the_gone()
    predicted = metric(server.url, 'yolo_tasks_total{outcome="predicted"}')
    for addresses in ([f"{images.url}/lone.jpg"], [f"{images.url}/{number}.jpg" for number in range(3)]):
        tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
        body = {"tasks": tasks, "label_config": BCCD_CONFIG, "project": "12.1"}
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{server.url}/predict", json=body, timeout=1)
    wait_for(lambda: len(images.requests) == 4, 20)
    wait_for(lambda: told_of_the_gone() == told + 2, 20)
    gate.set()

    wait_for(lambda: metric(server.url, 'yolo_tasks_total{outcome="predicted"}') == predicted + 3, 20)
    time.sleep(1)
    assert metric(server.url, 'yolo_tasks_total{outcome="predicted"}') == predicted + 3
    assert batches < metric(server.url, "yolo_batch_size_count") <= batches + 3
