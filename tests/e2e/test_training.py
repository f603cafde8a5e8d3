"""Start Training: from a project whose labels no weights know to boxes, on the real pages and in the real server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import expect

from tests.harness.browser import studio_browser
from tests.harness.labelled_scenes import CONFIG, LABELS, region, sent_as
from tests.harness.stack import BackendServer, LabelStudioServer, backend_server, pick_port, wait_until_ready
from tests.harness.studio_client import StudioClient, uploaded_name
from tests.harness.trainings import of_project, trainings_of, until, wait_for_the_end
from yolo_backend.demo.evaluate import match_boxes, region_box_xyxy
from yolo_backend.demo.scenes import Scene, draw_scene, save_scene

LABELLED, NEW = 40, 10
FIRST_SEED = 500_000
_TRAINS_FOR_S = 400


@pytest.fixture(scope="module")
def training_backend(
    label_studio: LabelStudioServer, personal_access_token: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BackendServer]:
    """A backend that trains, a CPU minute at 160 pixels."""
    folder = tmp_path_factory.mktemp("training")
    environment = {
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": personal_access_token,
        "ALLOWED_IMAGE_HOSTS": "127.0.0.1",
        "MODEL_NAME": "demo",
        "MODEL_DIR": str(folder / "data"),
        "MODEL_IMAGE_SIZE": "160",
        "TRAINING": "on",
        "TRAIN_MINUTES": "1",
    }
    with backend_server(pick_port(0), environment, folder / "backend.log") as server:
        wait_until_ready(server.url)
        yield server


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """The scenes by the names of their files."""
    return {f"scene-{seed}.jpg": draw_scene(seed) for seed in range(FIRST_SEED, FIRST_SEED + LABELLED + NEW)}


@pytest.mark.proof
@pytest.mark.alone
def test_a_person_labels_presses_start_training_and_gets_boxes(
    request: pytest.FixtureRequest,
    chromium: Path,
    label_studio: LabelStudioServer,
    client: StudioClient,
    training_backend: BackendServer,
    scenes: dict[str, Scene],
    tmp_path: Path,
) -> None:
    project = client.create_project("Workbench", CONFIG)
    files = [tmp_path / name for name in scenes]
    for file in files:
        save_scene(scenes[file.name], file)
    client.upload(project, files[:25])
    client.upload(project, files[25:])

    with studio_browser(label_studio, chromium, request.node.name) as browser:
        assert browser.connect_model(project, "YOLO", training_backend.url).ok
        expect(browser.model_card).to_contain_text("Connected", timeout=30_000)
        assert of_project(training_backend, project)["model_version"] == "untrained"
        assert browser.retrieve_predictions(project).ok
        assert client.total_predictions(project) == 0, "nothing is stored before anything is trained"

        labelled = client.tasks(project)[:LABELLED]
        for task in labelled:
            scene = scenes[uploaded_name(task)]
            result = [region(scene, number) for number in range(len(scene.class_ids))]
            client.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result})

        with AskingMeanwhile(training_backend, client.tasks(project)[-1], sent_as(client, project)) as asking:
            browser.press_start_training(project)
            browser.page.goto(training_backend.url)
            expect(browser.page.locator("#training + article")).to_contain_text("epoch", timeout=1000 * _TRAINS_FOR_S)
            browser.keep_picture("it-trains")
            run = wait_for_the_end(training_backend, project)
            ended_at = time.monotonic()
            until(lambda: asking.versions[-1] is not None, 30)
            named_after_s = time.monotonic() - ended_at
        assert run["result"]["promoted"], run
        assert named_after_s < 15, "10 s, and one answer"
        assert [version is None for version in asking.versions] == sorted(
            (version is None for version in asking.versions), reverse=True
        ), "nothing before, and boxes ever after"
        (version,) = set(asking.versions) - {None}

        assert browser.retrieve_predictions(project).ok
        browser.keep_picture("predicted")
        browser.page.goto(training_backend.url)
        expect(browser.page.locator("#training + article")).to_contain_text("the model of run 1 serves")
        browser.keep_picture("trained")

    assert run["result"]["images"] == {"train": 30, "val": 10}
    assert set(run["result"]["labels"]) == set(LABELS)
    assert of_project(training_backend, project)["model_version"] == version == run["result"]["model_version"]
    predictions = client.predictions(project)
    assert [len(of_task) for of_task in predictions.values()] == [1] * (LABELLED + NEW)
    assert {prediction["model_version"] for (prediction,) in predictions.values()} == {version}
    new = client.tasks(project)[LABELLED:]
    assert recall(new, scenes) > 0.4, "of boxes in pictures that nobody labelled"

    spoil_labels(client, project)
    (connection,) = client.call("GET", f"/api/ml?project={project}")
    client.call("POST", f"/api/ml/{connection['id']}/train", json={})
    until(lambda: len(trainings_of(training_backend, project)["runs"]) == 2, 60)
    refused = wait_for_the_end(training_backend, project)
    assert not refused["result"]["promoted"], refused
    assert re.fullmatch(  # so it teaches nothing, and changes nothing
        r"the labels of (9|10) of 10 validation images changed; the serving model fell from 0\.\d\d to 0\.\d\d",
        refused["result"]["reason"],
    )
    client.call("GET", f"/api/ml?project={project}")  # as the page does, with a `/setup`
    assert of_project(training_backend, project)["model_version"] == version


def spoil_labels(client: StudioClient, project: int) -> None:
    """Give all boxes that people drew another label, as good as any."""
    for task in client.tasks(project)[:LABELLED]:
        (annotation,) = task["annotations"]
        for number, each in enumerate(annotation["result"]):
            each["value"]["rectanglelabels"] = [LABELS[(int(task["id"]) + number) % len(LABELS)]]
        client.call("PATCH", f"/api/annotations/{annotation['id']}/", json={"result": annotation["result"]})


class AskingMeanwhile:
    """Somebody who asks for one task again and again; `versions` are those of the answers, None for one without."""

    def __init__(self, backend: BackendServer, task: dict[str, Any], project: str) -> None:
        self.versions: list[str | None] = []
        self._url = f"{backend.url}/predict"
        self._data, self._project = task["data"], project
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> AskingMeanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._is_over.wait(0.2):
            # Each time another task, as what was given once is stored by Label Studio, and not given again.
            task = {"id": 1_000_000 + len(self.versions), "data": self._data}
            body = {"tasks": [task], "label_config": CONFIG, "project": self._project}
            response = requests.post(self._url, json=body, timeout=60)
            (entry,) = response.json()["results"]
            self.versions.append(entry["model_version"] if entry else None)


def recall(tasks: list[dict[str, Any]], scenes: dict[str, Scene]) -> float:
    """Which part of the objects is found, by boxes of their label."""
    found = there = 0
    for task in tasks:
        scene, ((prediction,)) = scenes[uploaded_name(task)], task["predictions"]
        regions = prediction["result"]
        boxes_xyxy = np.array([region_box_xyxy(each) for each in regions]).reshape(-1, 4)
        labels = [each["value"]["rectanglelabels"][0] for each in regions]
        match = match_boxes(boxes_xyxy, labels, scene.boxes_xyxy, [LABELS[number] for number in scene.class_ids])
        found, there = found + len(match.ious), there + match.there
    return found / there
