"""The demo's weights, and the data that they are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yolo_backend.demo.evaluate import match_boxes
from yolo_backend.demo.scenes import CLASS_NAMES, draw_scene
from yolo_backend.demo.train import write_dataset
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.naming import DEMO
from yolo_backend.detection.weights import find_weights


def test_the_training_set_is_in_yolos_format(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"train": 1, "val": 1})
    (image,) = (tmp_path / "images" / "val").iterdir()
    scene = draw_scene(int(image.stem))
    rows = np.loadtxt(tmp_path / "labels" / "val" / f"{image.stem}.txt", ndmin=2)
    width, height = scene.size_wh
    corners = np.column_stack([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2])
    np.testing.assert_allclose(corners * np.array([width, height] * 2), scene.boxes_xyxy, atol=0.01)
    assert rows[:, 0].tolist() == list(scene.class_ids)


def test_the_weights_are_small_and_find_what_is_there() -> None:
    path = find_weights(DEMO, Path())
    assert path.stat().st_size <= 3_000_000
    engine = Engine(path, device="cpu")
    assert tuple(engine.info.class_names.values()) == CLASS_NAMES
    right = found = there = 0
    for seed in range(500, 512):
        scene = draw_scene(seed)
        (detections,) = engine.detect([engine.letterbox(scene.image)], 0.5)
        match = match_boxes(
            detections.boxes.astype(float),
            [CLASS_NAMES[class_id] for class_id in detections.class_ids],
            scene.boxes_xyxy,
            [CLASS_NAMES[class_id] for class_id in scene.class_ids],
        )
        right, found, there = right + len(match.ious), found + match.found, there + match.there
    assert right / found >= 0.95
    assert right / there >= 0.95
