"""A kind of control that exists in tests only, served end to end: `/setup`, `/predict`, status page and metrics."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from tests.fakes.ellipses import ellipse_config, serve_ellipses
from tests.harness.pictures import encode
from yolo_backend import metrics
from yolo_backend.model import YoloBackend
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import default_predictor

PLAIN = ellipse_config()
WITH_PUPILS = ellipse_config('model_pupil="true" model_score_threshold="0.3"')
RECTANGLES = PLAIN.replace("EllipseLabels", "RectangleLabels")


@pytest.fixture(scope="module")
def client(bccd_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        for variable, value in (bccd_environment | {"DEVICE": "cpu"}).items():
            patch.setenv(variable, value)
        for variable in ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST", "BASIC_AUTH_USER", "BASIC_AUTH_PASS"):
            patch.delenv(variable, raising=False)
        serve_ellipses(patch)
        default_predictor.cache_clear()
        predictor = default_predictor()
        predictor.catalog.wait_for_runtime(bccd_environment["MODEL_NAME"])  # else a slow machine isn't ready in time
        yield create_app(ModelClass.of(YoloBackend), predictor).test_client()
        predictor.close()
        default_predictor.cache_clear()


@pytest.fixture(scope="module")
def photo(bccd_images: list[NDArray[Any]]) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(bccd_images[0])).decode()


def setup(client: FlaskClient, label_config: str, project: str) -> str:
    """The `model_version` that `/setup` answers once the weights are read."""
    while (response := client.post("/setup", json={"project": project, "schema": label_config})).status_code == 503:
        time.sleep(0.05)
    assert response.status_code == 200, response.text
    return str(response.get_json()["model_version"])


def predict(client: FlaskClient, label_config: str, photo: str, project: str) -> dict[str, Any]:
    tasks = [{"id": 1, "data": {"image": photo}}]
    response = client.post("/predict", json={"tasks": tasks, "label_config": label_config, "project": project})
    assert response.status_code == 200, response.text
    (prediction,) = response.get_json()["results"]
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    assert isinstance(prediction, dict)
    return prediction


def test_it_is_predicted_where_rectangles_are(client: FlaskClient, photo: str) -> None:
    version = setup(client, PLAIN, "1.2")
    ellipses, rectangles = (predict(client, config, photo, "1.2") for config in (PLAIN, RECTANGLES))
    assert ellipses["model_version"] == version != rectangles["model_version"]
    assert len(ellipses["result"]) == len(rectangles["result"]) > 5
    for ellipse, rectangle in zip(ellipses["result"], rectangles["result"], strict=True):
        value, place = ellipse["value"], rectangle["value"]
        assert value["x"] == pytest.approx(place["x"] + place["width"] / 2)
        assert value["radiusY"] == pytest.approx(place["height"] / 2)
        assert value["ellipselabels"] == place["rectanglelabels"]
        assert ellipse["score"] == rectangle["score"]


def test_what_is_found_is_counted_and_not_its_parts(client: FlaskClient, photo: str) -> None:
    before = metrics.REGIONS._value.get()
    result = predict(client, WITH_PUPILS, photo, "2.2")["result"]
    assert metrics.REGIONS._value.get() - before == len(result) / 2 > 2


def test_the_status_page_shows_it(client: FlaskClient) -> None:
    version = setup(client, WITH_PUPILS.replace("Platelets", "Newt"), "3.2")
    (project,) = [item for item in client.get("/").get_json()["projects"] if item["project"] == "3"]
    (control,) = project["controls"]
    assert (project["model_version"], project["not_served"]) == (version, [])
    assert (control["from_name"], control["labels_without_class"]) == ("round", ["Newt"])
    assert control["labels"][0] == {"label": "RBC", "classes": ["RBC"], "threshold": 0.3}
    page = html.unescape(client.get("/", headers={"Accept": "text/html"}).get_data(as_text=True))
    assert version in page
    assert "Newt" in page


def test_what_it_does_not_serve_it_says(client: FlaskClient) -> None:
    config = ellipse_config('model_square="true"')
    response = client.post("/setup", json={"project": "4.2", "schema": config})
    assert response.status_code == 422
    assert 'EllipseLabels "round" is square, which no ellipse is' in response.get_json()["error"]
