"""A new file in the place of the weights, on a real server: it is switched to, or refused, and no answer mixes two."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.harness.stack import BackendServer, backend_server, pick_port
from tests.harness.weights import labels_for, renamed_weights, version_of, wait_for
from yolo_backend.detection.weights import WeightsError, put_weights
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

NAME = "mine.pt"
LABELS = labels_for(["first", "second"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def exported_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODEL_DIR of several tests: what one of them has exported, the others needn't."""
    return tmp_path_factory.mktemp("model_dir")


@pytest.fixture(scope="module")
def first(bccd_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return renamed_weights(bccd_weights, "first", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def second(bccd_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return renamed_weights(bccd_weights, "second", tmp_path_factory.mktemp("weights"))


StartServer = Callable[[Path], BackendServer]


@pytest.fixture
def start(root: Path, first: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server of the first weights with this MODEL_DIR, and returns as soon as it says that it is up."""
    with ExitStack() as stack:

        def start(model_dir: Path) -> BackendServer:
            put_weights(first, NAME, root)
            environment = {
                "MODEL_NAME": NAME,
                "MODEL_ROOT": str(root),
                "MODEL_DIR": str(model_dir),
                "MODEL_IMAGE_SIZE": "160",
            }
            return stack.enter_context(backend_server(pick_port(0), environment, tmp_path / "backend.log"))

        yield start


def setup(server: BackendServer) -> str:
    return version_of(server, LABELS)


def labels_and_versions(server: BackendServer, photo: Path, tasks: int = 2) -> set[tuple[str, str]]:
    """What a click is answered with: the labels of its regions, each with its prediction's model_version."""
    image = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    body = {
        "project": f"{time.monotonic_ns()}.1700000000",
        "label_config": LABELS,
        "tasks": [{"id": number + 1, "data": {"image": image}} for number in range(tasks)],
        "params": {"context": None},
    }
    results = requests.post(f"{server.url}/predict", json=body, timeout=120).json()["results"]
    assert all(results), "none is lost"
    return {
        (region["value"]["rectanglelabels"][0], prediction["model_version"])
        for prediction in results
        for region in prediction["result"]
    }


def index(server: BackendServer) -> Any:
    return requests.get(server.url, timeout=10).json()


def test_up_means_that_connecting_and_a_click_work_though_nothing_is_exported(
    start: StartServer, bccd_files: list[Path], tmp_path: Path
) -> None:
    server = start(tmp_path / "empty")
    version = setup(server)
    assert index(server)["engine"] is None, "the export is being made"
    assert labels_and_versions(server, bccd_files[0]) == {("first", version)}
    assert index(server)["engine"] == "onnx"


def test_a_new_file_is_exported_beside_the_old_one_and_then_serves(
    start: StartServer, exported_before: Path, root: Path, bccd_weights: Path, bccd_files: list[Path], tmp_path: Path
) -> None:
    server = start(exported_before)
    first = setup(server)
    assert labels_and_versions(server, bccd_files[0]) == {("first", first)}
    put_weights(renamed_weights(bccd_weights, "second", tmp_path), NAME, root)  # which nobody has exported
    seen = set()
    while (version := setup(server)) == first:
        seen |= labels_and_versions(server, bccd_files[0])
    assert ("first", first) in seen
    assert seen <= {("first", first), ("second", version)}, "it may switch after it was asked"
    assert labels_and_versions(server, bccd_files[0]) == {("second", version)}
    assert setup(server) == version
    assert index(server)["engine"] == "onnx"


@pytest.mark.proof
def test_a_broken_file_changes_nothing_and_the_status_page_says_why(
    start: StartServer, exported_before: Path, root: Path, second: Path, bccd_files: list[Path]
) -> None:
    server = start(exported_before)
    first = setup(server)
    whole = second.read_bytes()
    (root / NAME).write_bytes(whole[: len(whole) // 2])
    (reason,) = wait_for(lambda: index(server)["refused"])
    assert reason.startswith("A new file mine.pt can't be used, so the one before it serves: mine.pt ")
    page = requests.get(server.url, headers={"Accept": "text/html"}, timeout=10).text
    assert "so the one before it serves" in page
    assert requests.get(f"{server.url}/health", timeout=10).status_code == 200
    assert labels_and_versions(server, bccd_files[0]) == {("first", first)}
    (root / NAME).write_bytes(whole)  # in place, as `cp` does
    wait_for(lambda: setup(server) != first)
    assert index(server)["refused"] == []


def test_publish_takes_a_finished_file_and_nothing_else(
    start: StartServer, exported_before: Path, root: Path, second: Path, tmp_path: Path
) -> None:
    server = start(exported_before)
    first = setup(server)
    before = (root / NAME).read_bytes()
    trainer = Predictor(load_settings(model_name=NAME, model_root=root, model_dir=exported_before))
    text = tmp_path / "half.pt"
    text.write_bytes(before[:-1000])
    with pytest.raises(WeightsError, match=r"half\.pt"):
        trainer.publish(text)
    with pytest.raises(WeightsError, match="come with the backend"):
        trainer.publish(second, "demo")
    assert (root / NAME).read_bytes() == before
    trainer.publish(second)
    assert [path.name for path in root.iterdir()] == [NAME]
    wait_for(lambda: setup(server) != first)
    trainer.close()
