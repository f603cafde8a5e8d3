"""YoloBackend under both contracts of label-studio-ml: 1.0.9, which is installed, and 2.x."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from label_studio_ml.model import LabelStudioMLBase

from model import YoloBackend as TemplateBackend
from tests.harness.http_server import StartServer, reply
from tests.harness.stack import ROOT, backend_server, pick_port
from tests.harness.studio_client import BCCD_CONFIG, boxes
from tests.harness.weights import wait_for
from yolo_backend.detection.trained import publish_trained
from yolo_backend.fit_hook import trains
from yolo_backend.model import YoloBackend
from yolo_backend.protocol import project_key

SERVE_WITH_2X = """
from label_studio_ml.api import init_app
from model import YoloBackend
init_app(YoloBackend).run(port={port}, threaded=True)
"""


@pytest.fixture(scope="module")
def environment(bccd_environment: dict[str, str]) -> dict[str, str]:
    return dict(bccd_environment)


@pytest.fixture(scope="module")
def server_2x(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of label-studio-ml 2.x's own server with our class."""
    with _server_2x(environment, tmp_path_factory.mktemp("2x")) as url:
        yield url


@contextlib.contextmanager
def _server_2x(environment: dict[str, str], folder: Path) -> Iterator[str]:
    port = pick_port(0)
    path = os.pathsep.join([str(ROOT / "tests" / "fakes" / "label_studio_ml_2x"), str(ROOT)])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE_WITH_2X.format(port=port)],
            env={**os.environ, **environment, "PYTHONPATH": path},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{url}/health", timeout=5).raise_for_status()
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_both_servers_predict_the_same(
    server_2x: str, environment: dict[str, str], bccd_files: list[Path], tmp_path: Path
) -> None:
    inline = "data:image/jpeg;base64," + base64.b64encode(bccd_files[0].read_bytes()).decode()
    tasks = [{"id": 1, "data": {"image": inline}}, {"id": 2, "data": {"image": "nowhere"}}]
    setup = {"project": "3.1700000000", "schema": BCCD_CONFIG, "hostname": "", "access_token": ""}
    predict = {"project": setup["project"], "label_config": BCCD_CONFIG, "tasks": tasks, "params": {"context": None}}
    answers = []
    with backend_server(pick_port(0), environment, tmp_path / "backend.log") as ours:
        for url in (server_2x, ours.url):
            (prediction, nothing) = requests.post(f"{url}/predict", json=predict, timeout=120).json()["results"]
            version = requests.post(f"{url}/setup", json=setup, timeout=10).json()["model_version"]
            assert nothing == []
            assert prediction["model_version"] == version
            assert version.startswith("bccd-")
            answers.append((version, boxes(prediction), prediction["score"]))

    assert answers[0] == answers[1]
    assert len(answers[0][1]) > 5


def test_2x_says_the_right_version_at_the_first_ask_or_refuses(
    environment: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its own answer would be 0.0.1, whatever is asked for."""
    misfit = BCCD_CONFIG.replace("RBC", "A").replace("WBC", "B").replace("Platelets", "C")
    with _server_2x(environment, tmp_path_factory.mktemp("2x")) as url:

        def ask(config: str, project: str = "9.1700000000") -> requests.Response:
            setup = {"project": project, "schema": config, "hostname": "", "access_token": ""}
            return requests.post(f"{url}/setup", json=setup, timeout=30)

        first = ask(BCCD_CONFIG)
        wait_for(lambda: ask(BCCD_CONFIG, "8.1700000000").ok)  # the weights are read by then
        refused, last = ask(misfit), ask(BCCD_CONFIG)
        assert last.json()["model_version"] == "bccd-d0c466ba"
        assert first.status_code >= 500 or first.json() == last.json()
        assert refused.status_code >= 500


def test_2x_serves_a_project_by_its_own_weights_though_it_tells_only_its_id(
    environment: dict[str, str], bccd_weights: Path, serve: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("2x")
    studio = serve(reply(b'{"created_at": "2023-11-14T22:13:20Z"}', Content_Type="application/json"))
    own = {"LABEL_STUDIO_URL": studio.url, "LABEL_STUDIO_API_KEY": "0" * 40, "MODEL_DIR": str(folder), "TRAINING": "on"}
    key = project_key(studio.url, "7.1700000000")
    assert key
    publish_trained(bccd_weights, key, folder)
    misfit = BCCD_CONFIG.replace("RBC", "A").replace("WBC", "B").replace("Platelets", "C")
    with _server_2x({**environment, **own}, folder) as url:

        def version(project: str, config: str) -> str | None:
            body = {"project": project, "schema": config, "hostname": "", "access_token": ""}
            answer = requests.post(f"{url}/setup", json=body, timeout=30)
            return str(answer.json()["model_version"]) if answer.ok else None

        assert wait_for(lambda: version("7.1700000000", BCCD_CONFIG)).startswith("project-7-")
        assert wait_for(lambda: version("8.1700000000", BCCD_CONFIG)) == "bccd-d0c466ba"
        assert version("8.1700000000", misfit) == "untrained"
        body = {"project": "8.1700000000", "label_config": misfit, "tasks": [{"id": 1, "data": {"image": "nowhere"}}]}
        assert requests.post(f"{url}/predict", json=body, timeout=60).json()["results"] == [[]]


def test_2x_runs_fit_from_its_webhook(server_2x: str) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 4, "label_config": BCCD_CONFIG}}
    answer = requests.post(f"{server_2x}/webhook", json=body, timeout=60)
    assert (answer.status_code, answer.json()) == (201, {"result": None, "status": "ok"})


def test_2x_runs_fit_for_a_project_whose_labels_fit_no_class(server_2x: str) -> None:
    config = BCCD_CONFIG.replace("RBC", "A").replace("WBC", "B").replace("Platelets", "C")
    body = {"action": "START_TRAINING", "project": {"id": 5, "label_config": config}}
    assert requests.post(f"{server_2x}/webhook", json=body, timeout=60).status_code == 201


def test_it_is_label_studio_mls_class_and_cheap_to_make(clean_environment: pytest.MonkeyPatch) -> None:
    # A key without an address would stop the start: the settings are not even read here.
    clean_environment.setenv("LABEL_STUDIO_API_KEY", "x")
    backend = YoloBackend(project_id="7", label_config=BCCD_CONFIG)
    assert isinstance(backend, LabelStudioMLBase)
    assert (backend.project_id, backend.label_config) == ("7", BCCD_CONFIG)


def test_fit_says_that_it_does_nothing_but_not_for_each_annotation(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="yolo_backend.model"):
        backend = YoloBackend(project_id="7", label_config=BCCD_CONFIG)
        for event in ("ANNOTATION_CREATED", "START_TRAINING", "ANNOTATION_UPDATED"):
            backend.fit(event, {})
    assert caplog.messages == ["START_TRAINING: nothing is trained, because YoloBackend.fit isn't overridden"]


def test_whether_it_trains_is_told_by_its_fit_under_either_contract() -> None:
    class Mine(YoloBackend):
        def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> None: ...

    class Theirs(LabelStudioMLBase):  # type: ignore[misc]  # label-studio-ml has no types
        pass

    assert trains(Mine)
    assert not trains(YoloBackend)
    assert not trains(TemplateBackend)
    assert not trains(Theirs), "its own fit does nothing"
