"""Detections compared: with Ultralytics' own, and between engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.masks import Mask

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


def detect_masks(engine: Engine, images: Sequence[Pixels], score_threshold: float) -> list[Detections]:
    """One by one, and with masks if the weights find any."""
    asked = [replace(engine.letterbox(image), wants_masks=True) for image in images]
    return [found for image in asked for found in engine.detect([image], score_threshold)]


def in_image(mask: Mask, size_wh: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask as a bitmap of the whole image, within which it has to be."""
    left, top, width, height = mask.window_xywh
    assert 0 <= left <= left + width <= size_wh[0]
    assert 0 <= top <= top + height <= size_wh[1]
    pixels = np.zeros(size_wh[::-1], np.bool_)
    pixels[top : top + height, left : left + width] = mask.bitmap()
    return pixels


def iou_of(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """How much of two bitmaps is the same; 1 of empty ones."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


def ultralytics_detections(yolo: Any, image: Pixels, score_threshold: float, **options: Any) -> Detections:
    """What `YOLO(weights).predict(image)` says, with `retina_masks` its masks, too; it takes BGR."""
    (result,) = yolo.predict(image[..., ::-1], conf=score_threshold, device="cpu", verbose=False, **options)
    if result.probs is not None:
        scores = result.probs.data.numpy()
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > score_threshold][: options.get("max_det")]  # of classes, it gives them all
        box = np.array([[0, 0, *image.shape[1::-1]]], np.float32)
        return Detections(box.repeat(len(order), 0), scores[order], order)
    rotated = result.obb is not None
    found = result.obb if rotated else result.boxes
    return Detections(
        (found.xywhr if rotated else found.xyxy).numpy(),
        found.conf.numpy(),
        found.cls.numpy().astype(np.int64),
        rotated,
        _extras_of(result),
        _masks_of(result) if options.get("retina_masks") and yolo.task == "segment" else None,
    )


def _extras_of(result: Any) -> dict[str, NDArray[np.float32]]:
    if result.keypoints is None:
        return {}
    points = result.keypoints.data.numpy()
    scores = points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2], np.float32)
    return {"points_xy": points[..., :2], "point_scores": scores}


def _masks_of(result: Any) -> tuple[Mask, ...]:
    if result.masks is None:
        return ()
    return tuple(Mask.of_bitmap(bitmap.numpy().astype(np.bool_)) for bitmap in result.masks.data)


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


def assert_same_extras(found: Detections, expected: Detections, image: Pixels) -> None:
    """The same key points, and the same masks: but for two pixels at most, because their numbers are rounded."""
    assert list(found.extras) == list(expected.extras)
    if "points_xy" in expected.extras:
        assert found.extras["points_xy"].dtype == found.extras["point_scores"].dtype == np.float32
        np.testing.assert_allclose(
            found.extras["points_xy"], expected.extras["points_xy"], rtol=0, atol=BOX_TOLERANCE_PX
        )
        np.testing.assert_allclose(
            found.extras["point_scores"], expected.extras["point_scores"], rtol=0, atol=SCORE_TOLERANCE
        )
    assert (found.masks is None) == (expected.masks is None)
    for ours, theirs in zip(found.masks or (), expected.masks or (), strict=True):
        size_wh = (image.shape[1], image.shape[0])
        assert (in_image(ours, size_wh) != in_image(theirs, size_wh)).sum() <= 2


def assert_as_ultralytics(found: Detections, yolo: Any, image: Pixels, score_threshold: float, **options: Any) -> None:
    """The boxes are those of `predict`, and the masks and key points those of `predict` with `retina_masks`.

    With these, other boxes go: those whose mask is empty in the image's pixels, not in the model's.
    """
    assert_same(found, ultralytics_detections(yolo, image, score_threshold, **options))
    expected = ultralytics_detections(yolo, image, score_threshold, retina_masks=True, **options)
    pairs = _same_boxes(found, expected)
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    assert_same_extras(found.at(ours), expected.at(theirs), image)
    without = set(range(len(found))) - set(ours)
    assert not without or found.masks is not None
    assert sum(found.masks[index].area_px for index in without if found.masks) == 0


def _same_boxes(found: Detections, expected: Detections) -> list[tuple[int, int]]:
    """Which of these are the same boxes, by their indices, in order; none is there twice."""
    pairs: list[tuple[int, int]] = []
    left = list(range(len(expected)))
    for one in range(len(found)):
        for other in left:
            is_same = found.class_ids[one] == expected.class_ids[other]
            is_same &= abs(found.scores[one] - expected.scores[other]) <= SCORE_TOLERANCE
            if is_same and np.abs(found.boxes[one] - expected.boxes[other]).max() <= BOX_TOLERANCE_PX:
                pairs.append((one, other))
                left.remove(other)
                break
    return pairs
