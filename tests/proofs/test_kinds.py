"""Masks, key points, angles and classes on real photographs: what Ultralytics finds, in every runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.harness.detections import Pixels, assert_as_ultralytics, assert_close, detect_masks
from tests.harness.shapes import shapes_weights
from yolo_backend.detection.engine import Engine
from yolo_backend.images.decode import decode_image

# The photographs of each kind, and the architecture of a release, whose weights are random here.
KINDS = {
    "segment": ("coco8-seg", "yolo11n-seg"),
    "pose": ("coco8-pose", "yolo11n-pose"),
    "obb": ("dota8", "yolo11n-obb"),
    "classify": ("coco8-seg", "yolo11n-cls"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def photographs(data_dir: Path, kind: str) -> list[Pixels]:
    files = sorted((data_dir / "data" / KINDS[kind][0] / "images").glob("*/*.jpg"))
    assert len(files) == 8
    return [decode_image(file.read_bytes(), 50).pixels for file in files]


@pytest.mark.parametrize("image_size", [None, 640])
def test_small_weights_find_what_ultralytics_finds(
    kind: str, photographs: list[Pixels], image_size: int | None
) -> None:
    """They know no such things, and find some at a low threshold."""
    engine = Engine(shapes_weights(kind), device="cpu", engine="torch", image_size=image_size)
    assert_all_as_ultralytics(engine, shapes_weights(kind), photographs, 0.01)


def test_release_architectures_find_what_ultralytics_finds(
    kind: str, photographs: list[Pixels], tmp_path: Path
) -> None:
    path = tmp_path / "random.pt"
    torch.manual_seed(1)
    YOLO(f"{KINDS[kind][1]}.yaml").save(path)
    engine = Engine(path, device="cpu", engine="torch", image_size=320, max_detections=40)
    assert_all_as_ultralytics(engine, path, photographs[:3], 1e-7, max_det=40)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_exports_find_the_same(kind: str, photographs: list[Pixels], export_folder: Path, runtime: str) -> None:
    weights = shapes_weights(kind)
    exported = Engine(weights, device="cpu", engine=runtime, export_folder=export_folder)
    own = Engine(weights, device="cpu", engine="torch")
    assert exported.runtime.engine == runtime
    count = 0
    for photograph in photographs:
        found, expected = (detect_masks(engine, [photograph], 0.05)[0] for engine in (exported, own))
        assert_close(found, expected, 0.05)
        count += len(expected)
    assert count > 0


def assert_all_as_ultralytics(
    engine: Engine, weights: Path, photographs: list[Pixels], score_threshold: float, **options: int
) -> None:
    yolo, size = YOLO(weights), max(engine.info.image_size)
    count = 0
    for photograph in photographs:
        (found,) = detect_masks(engine, [photograph], score_threshold)
        assert_as_ultralytics(found, yolo, photograph, score_threshold, imgsz=size, **options)
        count += len(found)
    assert count > 0
