"""Hundreds of tasks behind a slow image server: one click, and every prediction is stored exactly once.

`make proofs` has two thousand.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.bulk import wait_until_idle
from tests.harness.http_server import Answer, RecordingServer, StartServer, reply
from tests.harness.stack import (
    BackendServer,
    LabelStudioServer,
    backend_server,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import BCCD_CONFIG, StudioClient, boxes, uploaded_name

# Sixteen images at a time: for two thousand forty seconds, or two minutes.
SLOW_S, VERY_SLOW_S = 0.3, 1.0
HELD_BACK_S = 20.0
FINISHED_WITHIN_S = 300.0
# What an answer at the deadline brings, Label Studio stores one by one; so it brings hardly any where it could import.
MORE_THAN_THE_DEADLINE_S = 5.0
pytestmark = pytest.mark.timeout(900)

StartBackend = Callable[..., BackendServer]


@dataclass(frozen=True)
class Size:
    """How many tasks, by when only a part of them can be ready, and how long an image takes that is to take long."""

    tasks: int
    deadline_s: int
    slow_s: float


SIZES = [Size(250, 2, SLOW_S), pytest.param(Size(2000, 10, VERY_SLOW_S), marks=pytest.mark.proof)]


@pytest.fixture(scope="module", params=SIZES, ids=["250 tasks", "2000 tasks"])
def size(request: pytest.FixtureRequest) -> Size:
    made: Size = request.param
    return made


@pytest.fixture
def count(size: Size) -> int:
    """How many tasks."""
    return size.tasks


@pytest.fixture
def photographs(bccd_files: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in bccd_files[:3]]


@pytest.fixture
def images(serve: StartServer, photographs: list[bytes]) -> RecordingServer:
    return serve(answer_late(photographs, SLOW_S))


@pytest.fixture
def slower_images(serve: StartServer, photographs: list[bytes]) -> RecordingServer:
    return serve(answer_late(photographs, VERY_SLOW_S))


def answer_late(photographs: list[bytes], after_s: float) -> Answer:
    """Answer an address that ends in `?<number>` with one of three photographs."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(after_s)
        reply(photographs[number_of(handler.path) % 3])(handler)

    return answer


@pytest.fixture(scope="module")
def settings(model_environment: dict[str, str], size: Size) -> dict[str, str]:
    """Those of all backends here."""
    return {
        **model_environment,
        "PREDICT_DEADLINE_SECONDS": str(size.deadline_s),
        "MODEL_IMAGE_SIZE": "160",
        "CACHE_MEGABYTES": "0",  # the same three photographs again and again
        "ENGINE": "torch",  # sixteen tasks at a time, whatever the cores
    }


@pytest.fixture
def start_backend(settings: dict[str, str], tmp_path: Path) -> Iterator[StartBackend]:
    """Starts backends that end with the test; `port` may be that of one before."""
    with ExitStack() as stack:

        def start(environment: dict[str, str], port: int | None = None) -> BackendServer:
            log = tmp_path / f"backend-{time.monotonic_ns()}.log"
            server = stack.enter_context(backend_server(port or pick_port(0), settings | environment, log))
            wait_until_ready(server.url)
            return server

        yield start


@pytest.fixture(scope="module")
def key(label_studio: LabelStudioServer, personal_access_token: str) -> dict[str, str]:
    """The settings of a backend whose token may push."""
    return {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": personal_access_token}


@pytest.fixture(scope="module")
def backend(
    settings: dict[str, str], key: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackendServer]:
    """One whose token may push, of the tests that leave it as it is."""
    log = tmp_path_factory.mktemp("nothing-lost") / "backend.log"
    with backend_server(pick_port(0), settings | key, log) as server:
        wait_until_ready(server.url)
        yield server


def number_of(address: str) -> int:
    return int(address.rsplit("?", 1)[-1])


def addresses(images: RecordingServer, count: int) -> list[str]:
    return [f"{images.url}/photo.jpg?{number}" for number in range(count)]


def project_with_tasks(client: StudioClient, title: str, images: list[str]) -> int:
    project = client.create_project(title)
    client.import_tasks(project, [{"data": {"image": address}} for address in images])
    return project


def uploads(client: StudioClient, paths: list[Path]) -> list[str]:
    """The addresses of photographs that Label Studio itself serves."""
    project = client.create_project("uploads")
    client.upload(project, paths)
    address_of = {uploaded_name(task): str(task["data"]["image"]) for task in client.tasks(project)}
    return [address_of[path.name] for path in paths]


def wait_for_predictions(client: StudioClient, project: int, count: int, timeout_s: float = 300) -> None:
    ends_at = time.monotonic() + timeout_s
    while (stored := client.total_predictions(project)) < count:
        assert time.monotonic() < ends_at, f"{stored} of {count} predictions are stored"
        time.sleep(1)


def status(backend: BackendServer) -> dict[str, Any]:
    return dict(requests.get(f"{backend.url}/", timeout=10).json())


def assert_each_stored_once(client: StudioClient, backend: BackendServer, project: int, count: int) -> None:
    """Every task holds one prediction, all of one version, with the boxes that its photograph has when asked alone."""
    tasks = client.tasks(project)
    assert len(tasks) == count
    held = Counter(len(task["predictions"]) for task in tasks)
    assert held == {1: count}
    predictions = {number_of(task["data"]["image"]): task["predictions"][0] for task in tasks}
    assert len({prediction["model_version"] for prediction in predictions.values()}) == 1
    alone = [ask_alone(backend, task) for task in sorted(tasks, key=lambda task: number_of(task["data"]["image"]))[:3]]
    for number, prediction in predictions.items():
        expected = alone[number % 3]
        assert [box[0] for box in boxes(prediction)] == [box[0] for box in expected]
        assert [box[1:] for box in boxes(prediction)] == [pytest.approx(box[1:], abs=1e-3) for box in expected]


def ask_alone(backend: BackendServer, task: dict[str, Any]) -> list[Any]:
    # For a project of its own, for that has no part in what is delivered.
    body = {"tasks": [{"id": task["id"], "data": task["data"]}], "label_config": BCCD_CONFIG, "project": "alone"}
    answer = requests.post(f"{backend.url}/predict", json=body, timeout=60).json()
    assert len(answer["results"][0]["result"]) > 2
    return boxes(answer["results"][0])


def test_one_click_is_enough_where_the_token_may_push(
    client: StudioClient, images: RecordingServer, backend: BackendServer, size: Size
) -> None:
    count = size.tasks
    project = project_with_tasks(client, "one click", addresses(images, count))
    client.connect(project, backend.url)

    with ThreadPoolExecutor(1) as pool:
        click = pool.submit(client.retrieve_predictions, project)
        while not images.requests:  # Label Studio reads its tasks, and asks the backend
            time.sleep(0.01)
            if click.done():
                click.result()  # raises what went wrong, if it did
                pytest.fail("no image was asked for")
        asked_at = time.monotonic()
        click.result()
    answered_after_s = time.monotonic() - asked_at
    if size.deadline_s >= 10:  # a shorter one may pass, on a busy machine, before it is known that it could import
        assert answered_after_s < size.deadline_s + MORE_THAN_THE_DEADLINE_S

    wait_for_predictions(client, project, count)
    wait_until_idle(backend.url, FINISHED_WITHIN_S)
    (work,) = (each for each in status(backend)["work"] if each["project"] == str(project))
    assert work["answered"] + work["pushed"] == count
    assert work["pushed"] > 0
    assert_each_stored_once(client, backend, project, count)
    assert len(images.requests) < 1.1 * count  # and nothing was started twice


@pytest.mark.proof
def test_further_clicks_bring_the_rest_where_the_token_may_not_push(
    client: StudioClient, images: RecordingServer, start_backend: StartBackend, count: int
) -> None:
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    client.call("POST", "/api/jwt/settings", json=settings)
    try:
        backend = start_backend({})  # it has only the legacy token that Label Studio brings, which is refused
        project = project_with_tasks(client, "further clicks", addresses(images, count))
        client.connect(project, backend.url)
        for _ in range(12):
            client.retrieve_predictions(project)
            if client.total_predictions(project) >= count:
                break
        (work,) = status(backend)["work"]
    finally:
        client.call("POST", "/api/jwt/settings", json={**settings, "legacy_api_tokens_enabled": True})
    assert_each_stored_once(client, backend, project, count)
    assert work["pushed"] == 0
    assert work["trouble"]
    assert len(images.requests) < 1.1 * count


def test_a_backend_killed_half_way(
    client: StudioClient,
    serve: StartServer,
    photographs: list[bytes],
    start_backend: StartBackend,
    key: dict[str, str],
    size: Size,
    count: int,
) -> None:
    killed = threading.Event()
    late = answer_late(photographs, size.slow_s)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        """The last images aren't there before the backend was killed, however busy Label Studio is until then."""
        if number_of(handler.path) >= 0.8 * count:
            killed.wait(HELD_BACK_S)
        late(handler)

    first = start_backend(key)
    project = project_with_tasks(client, "a backend killed", addresses(serve(answer), count))
    client.connect(project, first.url)
    client.retrieve_predictions(project)
    stored = client.total_predictions(project)
    wait_for_predictions(client, project, stored + 1)  # the first push is there
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    killed.set()
    survived = client.total_predictions(project)
    assert stored < survived < count

    second = start_backend(key, port=int(first.url.rsplit(":", 1)[1]))
    assert client.total_predictions(project) == survived
    client.retrieve_predictions(project)

    wait_for_predictions(client, project, count)
    wait_until_idle(second.url, FINISHED_WITHIN_S)
    assert_each_stored_once(client, second, project, count)


def test_a_client_that_hangs_up(
    client: StudioClient,
    images: RecordingServer,
    backend: BackendServer,
    size: Size,
    count: int,
) -> None:
    project = project_with_tasks(client, "a client that hangs up", addresses(images, count))
    tasks = [{"id": task["id"], "data": task["data"]} for task in client.tasks(project)]
    body = {"tasks": tasks, "label_config": BCCD_CONFIG, "project": f"{project}.1700000000"}

    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{backend.url}/predict", json=body, timeout=size.deadline_s / 2)

    wait_for_predictions(client, project, count)
    wait_until_idle(backend.url, FINISHED_WITHIN_S)
    assert_each_stored_once(client, backend, project, count)
    assert len(images.requests) < 1.1 * count


@pytest.mark.proof
def test_clicks_at_once_and_one_after_the_other_join(
    client: StudioClient, images: RecordingServer, backend: BackendServer, count: int
) -> None:
    project = project_with_tasks(client, "clicks", addresses(images, count))
    client.connect(project, backend.url)

    with ThreadPoolExecutor(2) as pool:
        for click in [pool.submit(client.retrieve_predictions, project) for _ in range(2)]:
            click.result()
    client.retrieve_predictions(project)

    wait_for_predictions(client, project, count)
    wait_until_idle(backend.url, FINISHED_WITHIN_S)
    assert_each_stored_once(client, backend, project, count)
    assert len(images.requests) < 1.1 * count


@pytest.mark.proof  # it starts a Label Studio of its own, twice
@pytest.mark.parametrize("size", [Size(2000, 10, VERY_SLOW_S)], ids=["2000 tasks"], indirect=True)
def test_a_label_studio_restarted_half_way(
    slower_images: RecordingServer, start_backend: StartBackend, tmp_path: Path, bccd_files: list[Path], count: int
) -> None:
    """Also where it serves every second image itself: the work pauses while they can't be had."""
    folder, port = tmp_path / "label-studio", pick_port(0)
    with label_studio_server(folder, port) as first:
        token = first.personal_access_token()
        backend = start_backend({"LABEL_STUDIO_URL": first.url, "LABEL_STUDIO_API_KEY": token})
        client = StudioClient(first.url, token)
        images = addresses(slower_images, count)
        own = uploads(client, bccd_files[:3])
        images[1::2] = [f"{own[number % 3]}?{number}" for number in range(1, count, 2)]
        project = project_with_tasks(client, "a restart", images)
        client.connect(project, backend.url)
        client.retrieve_predictions(project)
        assert 0 < client.total_predictions(project) < count
    time.sleep(20)  # it is away, and results wait
    with label_studio_server(folder, port, is_new=False):
        wait_for_predictions(client, project, count)
        wait_until_idle(backend.url, FINISHED_WITHIN_S)
        assert_each_stored_once(client, backend, project, count)
    assert len(slower_images.requests) < 1.1 * count
