"""A kind of weights of one's own: a head and an entry in the table, and it is served as the others are."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.stars import NAMES, SIZE, STARS, WHITE_IN_PERCENT, StarHead, gray, serve_stars, write_star_weights
from tests.harness.detections import detect
from tests.harness.pictures import encode
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.detector import PERSON, Detector
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.health import ModelHealth
from yolo_backend.detection.remembered import RememberedDetections
from yolo_backend.detection.weights import WeightsError
from yolo_backend.model import YoloBackend
from yolo_backend.protocol import Task
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

WAIT_S = 60


@pytest.fixture
def star_weights(tmp_path: Path) -> Path:
    """Weights that say of themselves that they are of the kind `star`."""
    return write_star_weights(tmp_path / "weights" / "stars.onnx")


@pytest.fixture
def star_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are served."""
    serve_stars(monkeypatch)


def assert_found(found: Detections, brightness: float = 1, scale: float = 1) -> None:
    """A star and a comet, with their extras, in an image of this brightness that is so many times as large."""
    factor = brightness * scale
    np.testing.assert_allclose(found.boxes, np.array([[12, 26, 20, 38], [35, 17, 45, 23]]) * factor, atol=1e-2)
    np.testing.assert_allclose(found.scores, [0.9 * brightness, 0.8 * brightness], rtol=0, atol=1e-4)
    assert found.class_ids.tolist() == [1, 0]
    assert sorted(found.extras) == ["glows", "tips_xy"]
    np.testing.assert_allclose(found.extras["tips_xy"], np.array([[18, 26], [50, 4]]) * factor, atol=1e-2)
    assert found.extras["tips_xy"].dtype == np.float32
    np.testing.assert_array_equal(found.extras["glows"], (np.array([7, 3]) * brightness + 1e-6).astype(np.uint8))
    assert found.extras["glows"].dtype == np.uint8


@pytest.mark.usefixtures("star_head")
def test_an_engine_gives_what_a_head_of_ones_own_finds(star_weights: Path) -> None:
    engine = Engine(star_weights, device="cpu")
    assert (engine.info.kind, engine.info.class_names) == ("star", NAMES)
    white, half, dark, large = detect(engine, [gray(1), gray(0.6), gray(0), gray(1, 3 * SIZE)], 0.25)
    assert_found(white)
    assert_found(half, 0.6)
    assert_found(large, scale=3)
    assert len(dark) == 0
    assert {name: values.shape for name, values in dark.extras.items()} == {"tips_xy": (0, 2), "glows": (0,)}


def test_without_its_head_a_kind_is_refused(star_weights: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"are for the task star: expected one of detect, segment, pose, obb, classify"
    ):
        Engine(star_weights, device="cpu")


@pytest.mark.usefixtures("star_head")
def test_outputs_that_are_not_the_kinds_own_are_refused(star_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StarHead, "_more_numbers", lambda *_: 2)
    with pytest.raises(WeightsError, match="2 classes need 8 rows, not 9"):
        Engine(star_weights, device="cpu")


@pytest.mark.usefixtures("star_head")
def test_a_detector_hands_its_extras_on_and_they_are_remembered(star_weights: Path) -> None:
    detector = Detector(
        "stars",
        lambda _: Engine(star_weights, device="cpu"),
        batch_size=4,
        timeout_s=WAIT_S,
        health=ModelHealth("stars"),
    )
    remembered = RememberedDetections(1e6)
    try:
        engine = detector.engine.result(WAIT_S)
        futures = [detector.submit(engine.letterbox(gray(share)), 0.25, PERSON) for share in (1, 0.6, 0)]
        white, half, dark = (detector.wait_for(future) for future in futures)
    finally:
        detector.close()
    assert_found(half, 0.6)
    for digest, found in ((b"white", white), (b"dark", dark)):
        remembered.keep(digest, "stars", 0.25, found, (SIZE, SIZE))
    again, nothing = (remembered.find(digest, {"stars": 0.25}) for digest in (b"white", b"dark"))
    assert again is not None
    assert_found(again.detections["stars"])
    assert nothing is not None
    assert {name: values.shape for name, values in nothing.detections["stars"].extras.items()} == {
        "tips_xy": (0, 2),
        "glows": (0,),
    }


@pytest.fixture
def star_predictor(
    star_head: None, star_weights: Path, model_dir: Path, clean_environment: pytest.MonkeyPatch
) -> Iterator[Predictor]:
    predictor = Predictor(
        load_settings(model_name="stars.onnx", model_root=star_weights.parent, model_dir=model_dir, device="cpu")
    )
    predictor.catalog.wait_for_info("stars.onnx", WAIT_S)
    yield predictor
    predictor.close()


def places(predictions: list[Any]) -> list[list[tuple[str, list[float]]]]:
    """Each region's label, and its place in percent."""
    return [
        [
            (
                region["value"]["rectanglelabels"][0],
                [round(region["value"][side], 3) for side in ("x", "y", "width", "height")],
            )
            for region in prediction["result"]
        ]
        for prediction in predictions
    ]


def test_weights_of_ones_own_kind_are_served(star_predictor: Predictor) -> None:
    """By clicks, in bulk, as the commands predict, and on the status page."""
    image = "data:image/png;base64," + base64.b64encode(encode(gray(1))).decode()
    tasks: list[Task] = [{"id": number, "data": {"image": image}} for number in range(1, 4)]

    assert places(star_predictor.predict(tasks[:1], STARS, deadline_s=WAIT_S)) == [WHITE_IN_PERCENT]
    assert places(star_predictor.predict(tasks[1:], STARS, deadline_s=WAIT_S)) == [WHITE_IN_PERCENT] * 2
    streamed = [outcome for _, outcome in star_predictor.stream(tasks, star_predictor.plan(STARS), "1")]
    assert places(streamed) == [WHITE_IN_PERCENT] * 3

    status = create_app(ModelClass.of(YoloBackend), star_predictor).test_client()
    shown = status.get("/", headers={"Accept": "application/json"}).get_json()
    assert (shown["status"], shown["task"], shown["classes"]) == ("UP", "star", ["comet", "star"])
