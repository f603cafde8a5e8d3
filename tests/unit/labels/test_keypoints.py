"""Key points: which label is whose, where they are, whose parts they are, and what of it a version depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from tests.fakes.engine import FakeEngine
from tests.fakes.weights import fake_catalog
from yolo_backend.detection.detections import Detections, WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.plans import make_plan
from yolo_backend.labels.regions import count_boxes, make_regions, task_score
from yolo_backend.protocol import Region
from yolo_backend.settings import load_settings

POSE = WeightsInfo("pose.pt", "pose", {0: "person", 1: "dog"}, "f1", (640, 640), points=3)
POINTS = (
    '<Label value="nose" predicted_values="person" model_index="0"/>'
    '<Label value="left eye" predicted_values="Person, dog" model_index="1"/>'
    '<Label value="tail" predicted_values="dog" model_index="2"/>'
)
BOXES = '<RectangleLabels name="points_bbox" toName="image" model_skip="true"><Label value="person"/></RectangleLabels>'
SIZE_WH = (200, 100)


def config(points: str = POINTS, attributes: str = "", boxes: str = BOXES) -> str:
    return (
        f'<View>{boxes}<KeyPointLabels name="points" toName="image" {attributes}>{points}</KeyPointLabels>'
        '<Image name="image" value="$image"/></View>'
    )


def control_of(label_config: str) -> Control:
    controls = parse_labeling_config(label_config).controls
    return next(control for control in controls if control.tag == "keypointlabels")


def found(**changes: Any) -> Detections:
    """A person, a dog, and a person whose score is low; each with three points."""
    points = [[[20, 30], [40, 50], [60, 70]], [[10, 10], [190, 90], [100, 50]], [[5, 5], [6, 6], [7, 7]]]
    extras = {
        "points_xy": np.array(changes.get("points", points), np.float32),
        "point_scores": np.array([[0.9, 0.4, 0.8], [0.7, 0.6, 0.01], [0.9, 0.9, 0.9]], np.float32),
    }
    boxes = np.array([[10, 10, 110, 90], [0, 0, 200, 100], [0, 0, 10, 10]], np.float32)
    scores, classes = np.array([0.9, 0.8, 0.3], np.float32), np.array([0, 1, 0], np.int64)
    return Detections(boxes, scores, classes, extras=extras)


def regions_of(label_config: str, detections: Detections | None = None) -> list[Region]:
    control = control_of(label_config)
    label_map = kind_of(control).map_labels(control, POSE, 0.5)
    regions = make_regions(found() if detections is None else detections, control, label_map, SIZE_WH, None)
    prediction = {"result": regions, "score": task_score(regions), "model_version": "test"}
    assert LabelInterface(label_config).validate_prediction(prediction, return_errors=True) == []
    assert len({region["id"] for region in regions}) == len(regions)
    return regions


def labelled(regions: list[Region]) -> list[tuple[str, str]]:
    return [(region["from_name"], region["value"][region["type"]][0]) for region in regions]


def test_each_point_has_the_label_of_its_class_and_its_number() -> None:
    regions = regions_of(config())
    assert labelled(regions) == [
        ("points_bbox", "person"),
        ("points", "nose"),
        ("points", "left eye"),
        ("points", "left eye"),
        ("points", "tail"),
    ]
    box, nose, *_ = regions
    place = {"x": 5, "y": 10, "width": pytest.approx(50), "height": 80, "rotation": 0}
    assert box["value"] == {**place, "rectanglelabels": ["person"]}
    assert [box["score"], nose["score"]] == pytest.approx([0.9, 0.9])
    assert nose["value"] == {"x": 10, "y": 30, "width": 0.5, "keypointlabels": ["nose"]}
    assert (nose["original_width"], nose["original_height"], nose["image_rotation"]) == (200, 100, 0)


def test_points_are_parts_of_their_box_and_a_thing_counts_once() -> None:
    box, nose, eye, dogs_eye, tail = regions_of(config())
    assert nose["parentID"] == eye["parentID"] == box["id"]
    assert [one["meta"]["text"] for one in (box, nose, eye, dogs_eye, tail)] == [["bbox-0"]] * 3 + [["bbox-1"]] * 2
    assert "parentID" not in dogs_eye  # no box is labelled dog
    assert count_boxes([box, nose, eye, dogs_eye, tail]) == 2
    assert count_boxes([dogs_eye, tail]) == 1


def test_what_people_drew_is_counted_point_by_point() -> None:
    drawn: list[dict[str, Any]] = [
        {"type": "keypointlabels", "id": id_, "value": {}} for id_ in ("a-1", "Vx-2_b3Kq-9", "WZrF0", "0123456789")
    ]
    assert count_boxes(drawn) == 4


@pytest.mark.parametrize(
    ("attributes", "boxes"),
    [('model_add_bboxes="false"', BOXES), ("", ""), ("", BOXES.replace("points_bbox", "other"))],
)
def test_without_boxes_there_are_points_only(attributes: str, boxes: str) -> None:
    regions = regions_of(config(attributes=attributes, boxes=boxes))
    assert {region["type"] for region in regions} == {"keypointlabels"}
    assert not any("parentID" in region for region in regions)
    assert count_boxes(regions) == 2


@pytest.mark.parametrize(
    ("attributes", "points", "expected"),
    [
        ('model_point_threshold="0.5"', POINTS, ["nose", "left eye"]),
        ('model_score_threshold="0.85"', POINTS, ["nose", "left eye"]),
        ('model_score_threshold="0.2"', POINTS, ["nose", "left eye", "left eye", "tail", "nose", "left eye"]),
        (
            "",
            POINTS.replace('value="nose"', 'value="nose" model_score_threshold="0.9"'),
            ["left eye", "left eye", "tail"],
        ),
        ("", POINTS.replace('value="nose"', 'value="nose" model_point_threshold="0.91"'), ["left eye"] * 2 + ["tail"]),
    ],
)
def test_thresholds_are_for_the_box_or_for_the_point(attributes: str, points: str, expected: list[str]) -> None:
    regions = regions_of(config(points, attributes, boxes=""))
    assert [label for _, label in labelled(regions)] == expected


def test_the_size_of_a_point_is_in_pixels() -> None:
    assert regions_of(config(attributes='model_point_size="4"'))[1]["value"]["width"] == 2


def test_points_beside_the_image_are_left_out_and_those_on_its_edge_stay() -> None:
    beside = [[[-0.1, 30], [40, 100.5], [60, 70]], [[0, 0], [200, 100], [float("nan"), 50]], [[5, 5], [6, 6], [7, 7]]]
    assert labelled(regions_of(config(), found(points=beside))) == [("points_bbox", "person"), ("points", "left eye")]


def test_a_label_without_predicted_values_is_for_all_classes_that_no_other_label_has() -> None:
    points = '<Label value="a" model_index="0"/><Label value="b" predicted_values="dog" model_index="0"/>'
    assert [label for _, label in labelled(regions_of(config(points, boxes="")))] == ["a", "b"]


def test_what_has_no_partner_is_known() -> None:
    points = POINTS.replace('model_index="0"', 'model_index="3"') + '<Label value="ear" predicted_values="dog"/>'
    control = control_of(config(points))
    label_map = kind_of(control).map_labels(control, POSE, 0.5)
    assert label_map.labels_without_class == ("nose", "ear")
    assert label_map.classes_without_label == ()


@pytest.mark.parametrize(
    ("points", "weights", "told"),
    [
        (
            '<Label value="nose"/><Label value="ear"/>',
            POSE,
            'Label "nose" (as 1 more) of KeyPointLabels "points" has no model_index: give it the number of its key '
            "point in pose.pt, which has 0 to 2",
        ),
        (
            '<Label value="nose" model_index="17"/>',
            POSE,
            'Label "nose" has the model_index="17", and pose.pt has the key points 0 to 2: write the number of one of '
            "them",
        ),
        (
            POINTS,
            replace(POSE, points=0),
            "pose.pt doesn't say how many key points it finds, so none has a label: export it anew with Ultralytics, "
            'YOLO("best.pt").export(format="onnx")',
        ),
        (
            '<Label value="nose" predicted_values="cat" model_index="0"/>',
            POSE,
            "None of the labels nose is a class of pose.pt, which has person, dog: rename a label, or give it "
            'predicted_values="<a class>"',
        ),
    ],
)
def test_why_no_label_has_a_point_is_told(
    clean_environment: pytest.MonkeyPatch, points: str, weights: WeightsInfo, told: str
) -> None:
    catalog = fake_catalog(lambda _: FakeEngine(weights))
    with pytest.raises(LabelingConfigError) as caught:
        make_plan(config(points, boxes=""), load_settings(model_name="pose.pt"), catalog, 10)
    assert str(caught.value) == told
    # Beside a control that is served it is said, too.
    people = '<RectangleLabels name="people" toName="image"><Label value="person"/></RectangleLabels>'
    plan = make_plan(config(points, boxes=people), load_settings(model_name="pose.pt"), catalog, 10)
    assert plan.not_served == (told,)
    catalog.close()


def test_what_has_no_model_index_beside_others_is_told() -> None:
    control = control_of(config(POINTS + '<Label value="ear"/>'))
    reason = kind_of(control).why_unmatched(control, POSE, "pose.pt")
    assert reason is not None
    assert reason.startswith('Label "ear" of KeyPointLabels "points" has no model_index')


def test_imported_boxes_are_none_of_its_regions() -> None:
    boxes = Detections(np.array([[0, 0, 9, 9]], np.float32), np.array([0.9], np.float32), np.array([0], np.int64))
    assert regions_of(config(), boxes) == []


@pytest.mark.parametrize(
    ("attributes", "points", "message"),
    [
        ('model_point_size="big"', POINTS, r'model_point_size="big" of KeyPointLabels "points" should be a number of'),
        ('model_point_threshold="2"', POINTS, r'model_point_threshold="2" of .* should be a number from 0 to 1'),
        ("", '<Label value="a" model_index="1234567"/>', r'model_index="1234567" of Label "a" should be the number of'),
        ("", '<Label value="a" model_index=""/>', r'model_index="" of Label "a" should be the number of a key'),
        ("", '<Label value="a" model_index="one"/>', r'model_index="one" of Label "a" should be the number of a key'),
        (
            "",
            '<Label value="a" model_index="1000"/>',
            r'^model_index="1000" of Label "a" should be the number of a key point, from 0 to 999$',
        ),
    ],
)
def test_a_wrong_attribute_is_told(attributes: str, points: str, message: str) -> None:
    with pytest.raises(LabelingConfigError, match=message):
        parse_labeling_config(config(points, attributes, boxes=""))


def test_the_highest_number_of_a_point_is_read() -> None:
    (control,) = parse_labeling_config(config('<Label value="a" model_index="999"/>', boxes="")).controls
    assert [label.model_index for label in control.labels] == [999]
