"""A kind of weights of one's own: a head and an entry in the table, and it is served as the others are."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.harness.detections import detect
from tests.harness.pictures import encode
from yolo_backend.detection import heads
from yolo_backend.detection.detections import Detections, Letterboxed
from yolo_backend.detection.detector import PERSON, Detector
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.heads.boxes import BoxHead
from yolo_backend.detection.health import ModelHealth
from yolo_backend.detection.remembered import RememberedDetections
from yolo_backend.detection.weights import WeightsError
from yolo_backend.model import YoloBackend
from yolo_backend.server.app import create_app
from yolo_backend.server.model_class import ModelClass
from yolo_backend.serving.request import Predictor
from yolo_backend.settings import load_settings

WAIT_S = 60
SIZE = 64
NAMES = {0: "comet", 1: "star"}
STARS = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="star"/><Label value="comet"/></RectangleLabels></View>"""
# In a white image: center, size, a score for each class, where its tip is, and its glow.
A_STAR, A_COMET = [16, 32, 8, 12, 0, 0.9, 18, 26, 7], [40, 20, 10, 6, 0.8, 0, 50, 4, 3]


class StarHead(BoxHead):
    """A test's own kind: a box has a tip, which is a place, and a glow, which is a number."""

    kind = "star"

    def _more_numbers(self, raw: Any) -> int | None:
        return 3

    def _extras(
        self, rows: NDArray[np.float32], image: Letterboxed, input_shape: tuple[int, ...]
    ) -> Mapping[str, NDArray[Any]]:
        scale = np.divide(image.original_size_wh, input_shape[::-1]).astype(np.float32)
        return {"tips_xy": rows[:, 6:8] * scale, "glows": rows[:, 8].astype(np.uint8)}


@pytest.fixture
def star_weights(tmp_path: Path) -> Path:
    """A network that finds a star and a comet in each image: how bright it is, is what all of their numbers are times.

    It says of itself that it is of the kind `star`.
    """
    found = np.array([A_STAR, A_COMET], np.float32).T[None]
    size = ["n", 3, "height", "width"]
    nodes = [
        onnx.helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        onnx.helper.make_node("Squeeze", ["mean", "last"], ["brightness"]),
        onnx.helper.make_node("Mul", ["found", "brightness"], ["output0"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, size)],
        [onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, ["n", 9, 2])],
        [onnx.numpy_helper.from_array(found, "found"), onnx.numpy_helper.from_array(np.array([3]), "last")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    about = {"task": "star", "stride": "32", "imgsz": f"[{SIZE}, {SIZE}]", "names": NAMES, "args": {"dynamic": True}}
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    path = tmp_path / "weights" / "stars.onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    return path


@pytest.fixture
def star_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one entry that a kind of weights takes."""
    monkeypatch.setitem(heads.HEADS, StarHead.kind, StarHead)


def gray(brightness: float, side: int = SIZE) -> NDArray[np.uint8]:
    return np.full((side, side, 3), round(255 * brightness), np.uint8)


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
    with pytest.raises(WeightsError, match=r"are for the task star: expected one that finds boxes \(detect, segment"):
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
    tasks = [{"id": number, "data": {"image": image}} for number in range(1, 4)]
    expected = [("star", [18.75, 40.625, 12.5, 18.75]), ("comet", [54.688, 26.562, 15.625, 9.375])]

    assert places(star_predictor.predict(tasks[:1], STARS, deadline_s=WAIT_S)) == [expected]
    assert places(star_predictor.predict(tasks[1:], STARS, deadline_s=WAIT_S)) == [expected] * 2
    streamed = [outcome for _, outcome in star_predictor.stream(tasks, star_predictor.plan(STARS), "1")]
    assert places(streamed) == [expected] * 3

    status = create_app(ModelClass.of(YoloBackend), star_predictor).test_client()
    shown = status.get("/", headers={"Accept": "application/json"}).get_json()
    assert (shown["status"], shown["task"], shown["classes"]) == ("UP", "star", ["comet", "star"])
