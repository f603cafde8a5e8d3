"""MODEL_NAME lists several files: health, status page and commands know all of them, and each control has its own."""

from __future__ import annotations

import html
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.harness.weights import renamed_weights
from yolo_backend.detection.weights import WeightsError
from yolo_backend.model import YoloBackend
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor, default_predictor

BOTH = """<View><Image name="image" value="$image"/>
<RectangleLabels name="first" toName="image"><Label value="RBC"/></RectangleLabels>
<RectangleLabels name="second" toName="image"><Label value="disc"/></RectangleLabels>
<Number name="discs" toName="image" model_count="disc"/></View>"""
WAIT_S = 60

Serve = Callable[[str], tuple[FlaskClient, Predictor]]


@pytest.fixture
def folder(bccd_weights: Path, tmp_path: Path) -> Path:
    """Two files that find the same, of which one calls a class `disc`."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(bccd_weights, folder)
    renamed_weights(bccd_weights, "disc", folder)
    return folder


@pytest.fixture
def serve(folder: Path, model_dir: Path, clean_environment: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A backend with this MODEL_NAME."""
    started: list[Predictor] = []

    def start(names: str) -> tuple[FlaskClient, Predictor]:
        settings = {"MODEL_NAME": names, "MODEL_ROOT": str(folder), "MODEL_DIR": str(model_dir), "DEVICE": "cpu"}
        for variable, value in (settings | {"ENGINE": "torch"}).items():
            clean_environment.setenv(variable, value)
        default_predictor.cache_clear()
        predictor = default_predictor()
        started.append(predictor)
        return create_app(ModelClass.of(YoloBackend), predictor).test_client(), predictor

    yield start
    for predictor in started:
        predictor.close()
    default_predictor.cache_clear()


def until_read(client: FlaskClient) -> Any:
    """The answer of `/health` once it is no longer that weights are being read."""
    ends_at = time.monotonic() + WAIT_S
    while True:
        health = client.get("/health")
        if "Loading" not in health.text or time.monotonic() > ends_at:
            return health
        time.sleep(0.05)


def test_all_of_them_are_read_and_shown(serve: Serve) -> None:
    client, predictor = serve("bccd.pt, disc.pt")
    assert until_read(client).status_code == 200
    for name in ("bccd.pt", "disc.pt"):
        predictor.catalog.wait_for_runtime(name)
    setup = client.post("/setup", json={"project": "1.1", "schema": BOTH})
    assert setup.get_json()["model_version"].startswith("bccd-")

    status = client.get("/").get_json()
    (project,) = status["projects"]
    assert (status["status"], status["model"], status["classes"]) == ("UP", "bccd.pt", ["RBC", "WBC", "Platelets"])
    (other,) = status["others"]
    assert (other["model"], other["task"], other["engine"]) == ("disc.pt", "detect", "torch")
    assert other["classes"] == ["disc", "WBC", "Platelets"]
    served = [(control["from_name"], control["model"]) for control in project["controls"]]
    assert served == [("first", "bccd.pt"), ("second", "disc.pt"), ("discs", "disc.pt")]
    assert project["not_served"] == []
    page = html.unescape(client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert page.count("<dt>Weights</dt>") == 2


def test_with_one_name_nothing_is_said_of_others(serve: Serve) -> None:
    client, predictor = serve("bccd.pt")
    predictor.catalog.wait_for_runtime("bccd.pt")
    assert "others" not in client.get("/").get_json()
    page = client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True)
    assert page.count("<dt>Weights</dt>") == 1


def test_one_that_cannot_be_had_makes_the_backend_down_and_the_others_serve(serve: Serve) -> None:
    client, _ = serve("bccd.pt, gone.pt")
    health = until_read(client)
    assert health.status_code == 503
    assert "Weights gone.pt are not in MODEL_ROOT" in health.text
    while (setup := client.post("/setup", json={"project": "1.1", "schema": BOTH})).status_code == 503:
        time.sleep(0.05)
    assert setup.get_json()["model_version"].startswith("bccd-")
    (project,) = client.get("/").get_json()["projects"]
    assert [control["from_name"] for control in project["controls"]] == ["first"]
    assert all(sentence.startswith("Weights gone.pt are not in MODEL_ROOT") for sentence in project["not_served"])


def test_publish_wants_to_know_whose_place_weights_are_to_take(serve: Serve, folder: Path, tmp_path: Path) -> None:
    _, predictor = serve("bccd.pt, disc.pt")
    new = renamed_weights(folder / "bccd.pt", "ring", tmp_path)
    with pytest.raises(WeightsError, match=r"MODEL_NAME lists bccd\.pt, disc\.pt: give publish the name"):
        predictor.publish(new)
    predictor.publish(new, "disc.pt")
    assert predictor.catalog.find("disc.pt").read_bytes() == new.read_bytes()
