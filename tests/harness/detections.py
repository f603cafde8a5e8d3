"""Detections compared: with Ultralytics' own, and between engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine

# Architectures other than the YOLO11n's, and their kinds.
OTHER_WEIGHTS = [
    ("yolo26n", "detect"),
    ("yolo11n-seg", "segment"),
    ("yolo11n-obb", "obb"),
    ("yolo11n-pose", "pose"),
    ("yolo26n-obb", "obb"),
    ("yolo26n-seg", "segment"),
]


MakeWeights = Callable[[str], Path]


Pixels = NDArray[np.uint8]


BOX_TOLERANCE_PX = 0.01


SCORE_TOLERANCE = 1e-4


def detect(engine: Engine, images: Sequence[Pixels], score_threshold: float) -> list[Detections]:
    return engine.detect([engine.letterbox(image) for image in images], score_threshold)


def ultralytics_detections(yolo: Any, image: Pixels, score_threshold: float, **options: Any) -> Detections:
    """What `YOLO(weights).predict(image)` says; it takes BGR."""
    (result,) = yolo.predict(image[..., ::-1], conf=score_threshold, device="cpu", verbose=False, **options)
    rotated = result.obb is not None
    found = result.obb if rotated else result.boxes
    return Detections(
        (found.xywhr if rotated else found.xyxy).numpy(),
        found.conf.numpy(),
        found.cls.numpy().astype(np.int64),
        rotated,
    )


def assert_same(found: Detections, expected: Detections) -> None:
    assert len(found) == len(expected)
    assert found.rotated == expected.rotated
    assert found.boxes.shape == (len(expected), 5 if expected.rotated else 4)
    assert [str(array.dtype) for array in (found.boxes, found.scores, found.class_ids)] == [
        "float32",
        "float32",
        "int64",
    ]
    assert found.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=BOX_TOLERANCE_PX)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=SCORE_TOLERANCE)


def assert_close(found: Detections, expected: Detections, score_threshold: float) -> None:
    """The same boxes within 1 px and 0.01 of score, but for those whose score is at the threshold."""
    for ones, others in ((found, expected), (expected, found)):
        for box, score, class_id in zip(ones.boxes, ones.scores, ones.class_ids, strict=True):
            if score > score_threshold + 0.01:
                alike = (others.class_ids == class_id) & (np.abs(others.scores - score) <= 0.01)
                assert (np.abs(others.boxes[alike] - box).max(axis=1) <= 1).any(), (box, score, class_id)
