"""A Label Studio with one process and one thread, which can't answer the backend while it waits for the backend."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.bulk import wait_until_idle
from tests.harness.http_server import ServedFolder
from tests.harness.stack import (
    ONE_THREAD,
    BackendServer,
    backend_server,
    label_studio_server,
    pick_port,
    wait_until_ready,
)
from tests.harness.studio_client import StudioClient

pytestmark = [pytest.mark.proof, pytest.mark.alone]  # it starts two Label Studios of its own, and takes their times
TASKS = 30
# It is asked once whether it answers, which takes two seconds, and stores an answer one by one, ten a second or more.
MORE_S = 2.0 + TASKS / 10 + 1.0


@pytest.fixture
def addresses(image_server: ServedFolder, bccd_files: list[Path]) -> list[str]:
    """Of as many images, of which the model has seen none."""
    content = bccd_files[0].read_bytes()
    names = [f"one-thread-{number}.jpg" for number in range(TASKS)]
    for number, name in enumerate(names):
        (image_server.path / name).write_bytes(content + bytes([number]))
    return [f"{image_server.url}/{name}" for name in names]


def test_a_click_gets_its_boxes_by_the_answer(
    model_environment: Mapping[str, str], addresses: list[str], tmp_path: Path
) -> None:
    folder, port, backend_port = tmp_path / "label-studio", pick_port(0), pick_port(0)
    environment = {**model_environment, "CACHE_MEGABYTES": "0", "MODEL_IMAGE_SIZE": "160"}
    took_s = {}
    with label_studio_server(folder, port) as server:
        environment |= {"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": server.personal_access_token()}
        with backend_server(backend_port, environment, tmp_path / "backend.log") as backend:
            took_s["threads"] = click(StudioClient(server.url, server.personal_access_token()), backend, addresses)
    with (
        label_studio_server(folder, port, is_new=False, program=ONE_THREAD) as server,
        backend_server(backend_port, environment, tmp_path / "backend-of-one.log") as backend,
    ):
        took_s["one thread"] = click(StudioClient(server.url, server.personal_access_token()), backend, addresses)
    print(took_s)
    assert took_s["one thread"] < took_s["threads"] + MORE_S


def click(client: StudioClient, backend: BackendServer, addresses: list[str]) -> float:
    """The seconds of a click on all of them, after which each task holds its boxes; and no more of them ever."""
    wait_until_ready(backend.url)
    project = client.create_project("one thread or more")
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses[:2]])
    client.connect(project, backend.url)
    client.retrieve_predictions(project)  # the first one after a start takes longer
    client.import_tasks(project, [{"data": {"image": address}} for address in addresses[2:]])
    started_at = time.monotonic()
    client.retrieve_predictions(project)
    took_s = time.monotonic() - started_at
    at_once = client.predictions(project)
    assert [len(stored) for stored in at_once.values()] == [1] * TASKS, backend.log.read_text()
    assert all(prediction["result"] for (prediction,) in at_once.values())
    wait_until_idle(backend.url, 60, look_every_s=0.5)
    assert client.predictions(project) == at_once
    return took_s
