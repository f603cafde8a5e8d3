"""Masks, key points, angles and classes are Ultralytics' own, in every runtime; and they are those of the things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.utils import ROOT as ULTRALYTICS_ROOT
from ultralytics.utils import YAML

from tests.harness.detections import (
    BOX_TOLERANCE_PX,
    MakeWeights,
    Pixels,
    assert_as_ultralytics,
    assert_close,
    assert_same,
    assert_same_extras,
    detect,
    detect_masks,
    in_image,
    iou_of,
    ultralytics_detections,
)
from tests.harness.shapes import CLASS_NAMES, Shapes, Thing, draw_shapes, shapes_weights
from yolo_backend.detection.detections import Detections
from yolo_backend.detection.engine import Engine
from yolo_backend.detection.weights import WeightsError

KINDS = ("segment", "pose", "obb", "classify")
RUNTIMES = ("onnx", "openvino")
SIZES_WH = ((320, 240), (240, 320), (640, 480), (161, 97), (500, 500))
THRESHOLD = 0.25


def scene_of(seed: int, most: int = 4) -> Shapes:
    return draw_shapes(seed, SIZES_WH[seed % len(SIZES_WH)], most=most)


@pytest.fixture(scope="module")
def scenes() -> list[Shapes]:
    return [scene_of(seed) for seed in range(20)]


@pytest.fixture(scope="module")
def images(scenes: list[Shapes]) -> list[Pixels]:
    return [scene.image for scene in scenes]


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {kind: Engine(shapes_weights(kind), device="cpu", engine="torch") for kind in KINDS}


# Against what is in the scenes


def pairs(found: Detections, scene: Shapes) -> list[tuple[int, Thing]]:
    """Each thing that was found, upright and with its class: which detection it is."""
    matched = []
    for thing in scene.things:
        same = np.flatnonzero(found.class_ids == thing.class_id)
        overlaps = [_iou_xyxy(found.boxes[index], thing.box_xyxy) for index in same]
        if overlaps and max(overlaps) >= 0.5:
            matched.append((int(same[int(np.argmax(overlaps))]), thing))
    return matched


def _iou_xyxy(one: NDArray[Any], other: NDArray[Any]) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:4], other[2:4])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / float(np.prod(one[2:4] - one[:2]) + np.prod(other[2:4] - other[:2]) - shared)


def test_masks_are_those_of_the_things(engines: dict[str, Engine], scenes: list[Shapes], images: list[Pixels]) -> None:
    found = detect_masks(engines["segment"], images, THRESHOLD)
    ious = [
        iou_of(in_image(each.masks[index], thing.mask.shape[::-1]), thing.mask)
        for each, scene in zip(found, scenes, strict=True)
        for index, thing in pairs(each, scene)
        if each.masks
    ]
    assert len(ious) >= 0.8 * sum(len(scene.things) for scene in scenes)
    assert np.mean(ious) > 0.7


def test_key_points_are_those_of_the_things(
    engines: dict[str, Engine], scenes: list[Shapes], images: list[Pixels]
) -> None:
    found = [detect(engines["pose"], [image], THRESHOLD)[0] for image in images]
    off, count, scores = [], 0, {True: [0.0], False: [0.0]}
    for each, scene in zip(found, scenes, strict=True):
        assert each.extras["points_xy"].shape == (len(each), 3, 2)
        assert each.extras["point_scores"].shape == (len(each), 3)
        for index, thing in pairs(each, scene):
            count += 1
            distances = np.linalg.norm(each.extras["points_xy"][index] - thing.points_xy, axis=1) / thing.box_xywhr[2]
            off += distances[~thing.are_hidden].tolist()
            for is_hidden, score in zip(thing.are_hidden, each.extras["point_scores"][index], strict=True):
                scores[bool(is_hidden)].append(float(score))
    assert count >= 0.8 * sum(len(scene.things) for scene in scenes)
    assert np.median(off) < 0.15  # of the thing's longer side: so good are the weights
    assert np.mean(scores[False]) > np.mean(scores[True])


def test_angles_are_those_of_the_things(engines: dict[str, Engine], scenes: list[Shapes], images: list[Pixels]) -> None:
    found = [detect(engines["obb"], [image], THRESHOLD)[0] for image in images]
    off, count = [], 0
    for each, scene in zip(found, scenes, strict=True):
        for thing in scene.things:
            same = np.flatnonzero(each.class_ids == thing.class_id)
            ious = [_rotated_iou(each.boxes[index], thing.box_xywhr) for index in same]
            if ious and max(ious) >= 0.5:
                count += 1
                box = each.boxes[same[int(np.argmax(ious))]]
                long = box[4] if box[2] >= box[3] else box[4] + np.pi / 2
                turn = (long - thing.box_xywhr[4]) % np.pi
                off.append(min(turn, np.pi - turn))
    assert count >= 0.8 * sum(len(scene.things) for scene in scenes)
    assert np.degrees(np.median(off)) < 5


def _rotated_iou(one: NDArray[Any], other: NDArray[Any]) -> float:
    corners = [
        cv2.boxPoints(((x, y), (width, height), float(np.degrees(angle))))
        for x, y, width, height, angle in (one, other)
    ]
    shared, _ = cv2.intersectConvexConvex(*corners)
    return float(shared / (one[2] * one[3] + other[2] * other[3] - shared))


def test_classes_are_those_of_the_images(engines: dict[str, Engine]) -> None:
    scenes = [scene_of(seed, most=1) for seed in range(30)]
    found = detect(engines["classify"], [scene.image for scene in scenes], 0)
    for each, scene in zip(found, scenes, strict=True):
        height, width = scene.image.shape[:2]
        assert each.boxes.tolist() == [[0, 0, width, height]] * len(CLASS_NAMES)
        assert sorted(each.class_ids.tolist()) == [0, 1, 2]
        assert each.scores.tolist() == sorted(each.scores.tolist(), reverse=True)
        assert each.scores.sum() == pytest.approx(1, abs=1e-3)
    names = engines["classify"].info.class_names
    right = [
        names[each.class_ids[0]] == CLASS_NAMES[scene.things[0].class_id]
        for each, scene in zip(found, scenes, strict=True)
    ]
    assert np.mean(right) >= 0.9


# Against YOLO(weights).predict


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score_threshold", [0.01, THRESHOLD])
def test_what_is_found_is_what_ultralytics_finds(
    engines: dict[str, Engine], images: list[Pixels], kind: str, score_threshold: float
) -> None:
    yolo = YOLO(shapes_weights(kind))
    count = 0
    for image in images[:8]:
        (found,) = detect_masks(engines[kind], [image], score_threshold)
        assert_as_ultralytics(found, yolo, image, score_threshold)
        count += len(found)
    assert count > 0


@pytest.mark.parametrize("architecture", ["yolo11n-seg", "yolo26n-seg", "yolo11n-pose", "yolo26n-pose"])
def test_other_architectures_give_ultralytics_masks_and_points(
    make_weights: MakeWeights, bccd_images: list[Pixels], architecture: str
) -> None:
    """Many of them, for the weights are random; those without NMS, too."""
    path = make_weights(architecture)
    engine, yolo = Engine(path, device="cpu", image_size=320), YOLO(path)
    count = 0
    for image in (bccd_images[0], bccd_images[3][:97, :211].copy()):
        (found,) = detect_masks(engine, [image], 0.03)
        assert_as_ultralytics(found, yolo, image, 0.03, imgsz=320)
        count += len(found)
    assert count > 10


def test_key_points_without_visibility_have_the_score_1(tmp_path: Path, images: list[Pixels]) -> None:
    path = tmp_path / "two.pt"
    config = YAML.load(ULTRALYTICS_ROOT / "cfg" / "models" / "11" / "yolo11-pose.yaml")
    YAML.save(tmp_path / "yolo11n-two.yaml", {**config, "nc": 3, "kpt_shape": [5, 2]})
    YOLO(tmp_path / "yolo11n-two.yaml").save(path)
    engine = Engine(path, device="cpu", image_size=160)
    assert engine.info.points == 5
    (found,) = detect(engine, images[:1], 0)
    expected = ultralytics_detections(YOLO(path), images[0], 0, imgsz=160)
    assert len(found) > 0
    np.testing.assert_allclose(found.extras["points_xy"], expected.extras["points_xy"], rtol=0, atol=BOX_TOLERANCE_PX)
    assert found.extras["point_scores"].tolist() == [[1.0] * 5] * len(found)


# In other runtimes


@pytest.fixture(scope="module", params=RUNTIMES)
def exported(request: pytest.FixtureRequest, export_folder: Path) -> dict[str, Engine]:
    engines = {
        kind: Engine(shapes_weights(kind), device="cpu", engine=request.param, export_folder=export_folder)
        for kind in KINDS
    }
    assert {engine.runtime.engine for engine in engines.values()} == {request.param}
    assert [engine.runtime.fallback for engine in engines.values()] == [None] * len(KINDS)
    return engines


@pytest.mark.parametrize("kind", KINDS)
def test_exports_find_the_same(
    exported: dict[str, Engine], engines: dict[str, Engine], images: list[Pixels], kind: str
) -> None:
    assert exported[kind].info == engines[kind].info
    count = 0
    for image in images[:8]:
        found, expected = (detect_masks(each[kind], [image], THRESHOLD)[0] for each in (exported, engines))
        assert_close(found, expected, THRESHOLD)
        for one, other in _nearest(found, expected):
            count += 1
            for name, tolerance in (("points_xy", 1), ("point_scores", 0.01)):
                if name in expected.extras:
                    np.testing.assert_allclose(
                        found.extras[name][one], expected.extras[name][other], rtol=0, atol=tolerance
                    )
            if expected.masks and found.masks:
                assert _differing_px(found.masks[one], expected.masks[other], image) <= 2
    assert count > 0


def _nearest(found: Detections, expected: Detections) -> list[tuple[int, int]]:
    return [
        (one, int(np.abs(expected.boxes - found.boxes[one]).max(axis=1).argmin()))
        for one in range(len(found))
        if found.scores[one] > THRESHOLD + 0.01
    ]


def _differing_px(ours: Any, theirs: Any, image: Pixels) -> int:
    size_wh = (image.shape[1], image.shape[0])
    return int((in_image(ours, size_wh) != in_image(theirs, size_wh)).sum())


# Only where masks are asked for


def test_masks_are_made_only_of_images_that_ask_for_them(engines: dict[str, Engine], images: list[Pixels]) -> None:
    engine = engines["segment"]
    letterboxed = [engine.letterbox(image) for image in (images[0], images[0], images[5])]
    mixed = engine.detect([letterboxed[0], replace(letterboxed[1], wants_masks=True), letterboxed[2]], THRESHOLD)
    assert [found.masks is None for found in mixed] == [True, False, True]
    for found, expected in zip(mixed, detect(engine, [images[0], images[0], images[5]], THRESHOLD), strict=True):
        assert_same(found, expected)
    (alone,) = detect_masks(engine, images[:1], THRESHOLD)
    assert_same_extras(mixed[1], alone, images[0])


@pytest.mark.parametrize("kind", ["pose", "obb", "classify"])
def test_weights_without_masks_make_none(engines: dict[str, Engine], images: list[Pixels], kind: str) -> None:
    (found,) = detect_masks(engines[kind], images[:1], THRESHOLD)
    assert found.masks is None


# Images that were decoded at a reduced scale


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_in_a_reduced_image_is_in_pixels_of_the_original(
    engines: dict[str, Engine], images: list[Pixels], kind: str
) -> None:
    engine = engines[kind]
    half = cv2.resize(images[2], (320, 240), interpolation=cv2.INTER_AREA)
    (found,) = engine.detect([replace(engine.letterbox(half, (640, 480)), wants_masks=True)], THRESHOLD)
    (expected,) = detect_masks(engine, [half], THRESHOLD)
    scale = np.array([2, 2, 2, 2, 1] if kind == "obb" else [2, 2, 2, 2], np.float32)
    assert len(found) > 0
    assert_same(found, replace(expected, boxes=expected.boxes * scale))
    if kind == "pose":
        np.testing.assert_allclose(found.extras["points_xy"], expected.extras["points_xy"] * 2, atol=0.01)
    for ours, theirs in zip(found.masks or (), expected.masks or (), strict=True):
        twice = np.kron(in_image(theirs, (320, 240)), np.ones((2, 2), np.bool_))
        assert iou_of(in_image(ours, (640, 480)), twice) > 0.95


# What is known of them


def test_what_is_known_of_the_weights(engines: dict[str, Engine]) -> None:
    for kind, engine in engines.items():
        info = engine.info
        # Ultralytics numbers what it classifies by the alphabet.
        names = dict(enumerate(sorted(CLASS_NAMES) if kind == "classify" else CLASS_NAMES))
        assert (info.kind, info.class_names, info.image_size) == (kind, names, (160, 160))
        assert info.points == (3 if kind == "pose" else 0)
        assert info.has_costly_boxes == (kind == "segment")
        assert shapes_weights(kind).stat().st_size <= 2e6


def test_classes_are_at_most_as_many_as_are_asked_for(images: list[Pixels]) -> None:
    engine = Engine(shapes_weights("classify"), device="cpu", max_detections=2)
    (found,) = detect(engine, images[:1], 0)
    assert len(found) == 2


@pytest.mark.parametrize("image_size", [None, 96])
@pytest.mark.parametrize("size_wh", [(1, 1), (1, 300), (300, 1), (33, 31), (900, 640)])
def test_images_of_any_shape_are_classified_as_ultralytics_does(
    image_size: int | None, size_wh: tuple[int, int]
) -> None:
    path = shapes_weights("classify")
    image = draw_shapes(3, (900, 640)).image[: size_wh[1], : size_wh[0]].copy()
    (found,) = detect(Engine(path, device="cpu", image_size=image_size), [image], 0)
    assert_same(found, ultralytics_detections(YOLO(path), image, 0, **({"imgsz": image_size} if image_size else {})))


def test_a_classifier_of_other_colors_is_refused(tmp_path: Path) -> None:
    """Ultralytics applies what such a file says of colors; we don't."""
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    yolo = YOLO(shapes_weights("classify"))
    means = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    yolo.model.transforms = Compose([Resize(160), CenterCrop(160), ToTensor(), means])
    yolo.save(tmp_path / "normalized.pt")
    with pytest.raises(WeightsError, match="normalized by a mean and a deviation"):
        Engine(tmp_path / "normalized.pt", device="cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_another_number_of_classes_are_refused(
    engines: dict[str, Engine], kind: str, images: Sequence[Pixels]
) -> None:
    engine = engines[kind]
    head = type(engine._head)(replace(engine._head._options, class_count=4))  # type: ignore[attr-defined]
    raw = engine._model([engine.letterbox(images[0]).pixels])
    engine._head.check(raw)
    with pytest.raises(WeightsError, match=r"4 classes|each of their 4"):
        head.check(raw)
