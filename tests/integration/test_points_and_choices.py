"""Real pose and classification weights: what they find becomes the points and choices that Ultralytics finds."""

from __future__ import annotations

from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from ultralytics import YOLO

from tests.harness.shapes import CLASS_NAMES, POINT_NAMES, draw_shapes, shapes_weights
from yolo_backend.detection.engine import Engine
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.regions import make_regions, task_score
from yolo_backend.protocol import Region

THRESHOLD = 0.25
SIZE_WH = (320, 240)
POINTS = "".join(f'<Label value="{name}" model_index="{index}"/>' for index, name in enumerate(POINT_NAMES))
BOXES = "".join(f'<Label value="{name}"/>' for name in CLASS_NAMES)
POSE = f"""<View><Image name="image" value="$image"/>
<RectangleLabels name="points_bbox" toName="image">{BOXES}</RectangleLabels>
<KeyPointLabels name="points" toName="image">{POINTS}</KeyPointLabels></View>"""
CHOICES = f"""<View><Image name="image" value="$image"/>
<Choices name="what" toName="image">{BOXES.replace("Label", "Choice")}</Choices></View>"""


def regions_of(engine: Engine, config: str, image: Any) -> list[Region]:
    control = next(each for each in parse_labeling_config(config).controls if each.from_name != "points_bbox")
    label_map = kind_of(control).map_labels(control, engine.info, THRESHOLD)
    (found,) = engine.detect([engine.letterbox(image)], THRESHOLD)
    regions = make_regions(found, control, label_map, SIZE_WH, None)
    prediction = {"result": regions, "score": task_score(regions), "model_version": "test"}
    assert LabelInterface(config).validate_prediction(prediction, return_errors=True) == []
    return regions


def test_points_are_those_of_ultralytics() -> None:
    weights = shapes_weights("pose")
    engine, oracle = Engine(weights, device="cpu", engine="torch"), YOLO(weights)
    things = 0
    for seed in range(8):
        image = draw_shapes(seed, SIZE_WH).image
        regions = regions_of(engine, POSE, image)
        (theirs,) = oracle.predict(image[..., ::-1], conf=THRESHOLD, verbose=False, device="cpu")
        boxes = [region for region in regions if region["type"] == "rectanglelabels"]
        assert [box["value"]["rectanglelabels"][0] for box in boxes] == [theirs.names[int(c)] for c in theirs.boxes.cls]
        for box, points, scores in zip(
            boxes, theirs.keypoints.xyn.tolist(), theirs.keypoints.conf.tolist(), strict=True
        ):
            mine = [region for region in regions if region.get("parentID") == box["id"]]
            assert [region["value"]["keypointlabels"] for region in mine] == [[name] for name in POINT_NAMES]
            places = [(region["value"]["x"] / 100, region["value"]["y"] / 100) for region in mine]
            assert sum(places, ()) == pytest.approx(sum(map(tuple, points), ()), abs=1e-4)
            assert [region["score"] for region in mine] == pytest.approx(scores, abs=1e-4)
            things += 1
    assert things >= 4


def test_a_choice_is_the_likeliest_class_of_ultralytics() -> None:
    weights = shapes_weights("classify")
    engine, oracle = Engine(weights, device="cpu", engine="torch"), YOLO(weights)
    scores = set()
    for seed in range(16):
        image = draw_shapes(seed, SIZE_WH, most=1).image
        (region,) = regions_of(engine, CHOICES, image)
        (theirs,) = oracle.predict(image[..., ::-1], verbose=False, device="cpu")
        assert region["value"] == {"choices": [theirs.names[theirs.probs.top1]]}
        assert region["score"] == pytest.approx(float(theirs.probs.top1conf), abs=1e-4)
        scores.add(round(region["score"], 3))
    assert len(scores) > 8
