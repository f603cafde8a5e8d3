"""Which annotation counts, and what of it is on which image."""

from __future__ import annotations

import math
from typing import Any

import pytest

from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.training.annotations import (
    NO_LABEL,
    NO_PLACE,
    OUTSIDE,
    TOO_SMALL,
    TWICE,
    UNKNOWN_LABEL,
    Drawn,
    counting_annotation,
    read_drawn,
    regions_by_image,
)

SIZE_WH = (200, 100)
RECTANGLES = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="car"/><Label value="cat"/></RectangleLabels></View>"""
WITH_RECTANGLE = """<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/>
<Labels name="label" toName="image"><Label value="car"/></Labels></View>"""
OF_TASK = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image" value="$labels"/></View>"""


def annotation(id_: int, updated_at: str = "2026-11-01T10:00:00Z", **more: Any) -> dict[str, Any]:
    return {"id": id_, "updated_at": updated_at, "was_cancelled": False, "ground_truth": False, "result": [], **more}


def region(label: str | None = "car", **more: Any) -> dict[str, Any]:
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, **more.pop("value", {})}
    if label is not None:
        value["rectanglelabels"] = [label]
    return {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "value": value,
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "origin": "manual",
        **more,
    }


def drawn(*regions: dict[str, Any], config: str = RECTANGLES, data: Any = None, page: int = 0) -> Drawn:
    controls = parse_labeling_config(config).controls
    by_image = regions_by_image(annotation(1, result=list(regions)), controls)
    return read_drawn(by_image.get(("image", page), []), data or {}, SIZE_WH)


@pytest.mark.parametrize(
    ("annotations", "counting"),
    [
        ([], None),
        ([annotation(1)], 1),
        ([annotation(1, was_cancelled=True)], None),
        ([annotation(1), annotation(2, was_cancelled=True)], 1),
        ([annotation(1, "2026-11-01T10:00:01Z"), annotation(2)], 1),
        ([annotation(1), annotation(2)], 2),
        # Half a second later, though it comes before as text.
        ([annotation(1, "2026-11-01T10:00:00.500000Z"), annotation(2, "2026-11-01T10:00:00Z")], 1),
        # The same moment, in another time zone.
        ([annotation(2, "2026-11-01T11:00:00+01:00"), annotation(1, "2026-11-01T10:00:01Z")], 1),
        ([annotation(1, ground_truth=True), annotation(2, "2026-11-02T10:00:00Z")], 1),
        ([annotation(1, ground_truth=True, was_cancelled=True), annotation(2)], 2),
        ([annotation(1, ground_truth=True), annotation(2, ground_truth=True)], 2),
    ],
)
def test_which_annotation_counts(annotations: list[dict[str, Any]], counting: int | None) -> None:
    found = counting_annotation({"annotations": annotations})
    assert (found and found["id"]) == counting


def test_a_box_is_in_pixels_of_the_image() -> None:
    (box,) = drawn(region()).boxes
    assert box.label == "car"
    assert box.box_xyxy == pytest.approx((20, 20, 80, 60))
    assert box.box_xywhr == pytest.approx((50, 40, 60, 40, 0))
    assert box.origin == "manual"


def test_a_rotated_box_has_its_angle_and_an_upright_hull() -> None:
    place = {"x": 50, "y": 20, "width": 20, "height": 20, "rotation": 45}
    (box,) = drawn(region(value=place)).boxes
    assert box.box_xywhr[2:] == pytest.approx((40, 20, math.pi / 4))
    half = math.sqrt(0.5)
    assert box.box_xyxy == pytest.approx((100 - 20 * half, 20, 100 + 40 * half, 20 + 60 * half))


def test_a_box_that_is_partly_outside_is_clipped_and_remains_whole_as_a_rotated_one() -> None:
    (box,) = drawn(region(value={"x": 90, "width": 30})).boxes
    assert box.box_xyxy == pytest.approx((180, 20, 200, 60))
    assert box.box_xywhr == pytest.approx((210, 40, 60, 40, 0))


@pytest.mark.parametrize("origin", ["manual", "prediction", "prediction-changed"])
def test_how_a_box_came_about(origin: str) -> None:
    assert [box.origin for box in drawn(region(origin=origin)).boxes] == [origin]


def test_a_region_of_unknown_origin_was_drawn() -> None:
    assert [box.origin for box in drawn(region(origin="import")).boxes] == ["manual"]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (region(value={"x": 100, "y": 20}), OUTSIDE),
        (region(value={"x": -40}), OUTSIDE),
        (region(value={"y": 120}), OUTSIDE),
        # Its hull is on the image, but not the rectangle.
        (region(value={"x": -10, "y": 20, "width": 10, "height": 90, "rotation": 45}), OUTSIDE),
        (region(value={"width": 0}), NO_PLACE),
        (region(value={"height": -5}), NO_PLACE),
        (region(value={"x": math.nan}), NO_PLACE),
        (region(value={"y": None}), NO_PLACE),
        (region(value={"width": 0.4}), TOO_SMALL),
        (region(value={"x": 99.9}), TOO_SMALL),
        (region("dog"), UNKNOWN_LABEL.format("dog")),
        (region(None, id="w"), NO_LABEL),
    ],
)
def test_what_is_not_trained_on_is_named(wrong: dict[str, Any], fault: str) -> None:
    found = drawn(region(value={"x": 1}), wrong)
    assert len(found.boxes) == 1
    assert found.faults == (fault,)


def test_what_was_drawn_twice_counts_once_and_with_another_label_twice() -> None:
    found = drawn(region(), region(id="s"), region("cat", id="t"))
    assert [box.label for box in found.boxes] == ["car", "cat"]
    assert found.faults == (TWICE,)


def test_each_label_of_a_region_is_a_box() -> None:
    several = region()
    several["value"]["rectanglelabels"] = ["car", "cat", "dog"]
    found = drawn(several)
    assert [box.label for box in found.boxes] == ["car", "cat"]
    assert found.faults == (UNKNOWN_LABEL.format("dog"),)


@pytest.mark.parametrize(
    "other",
    [
        {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["good"]}},
        region(from_name="others"),
        region(to_name="other"),
        region(type="polygonlabels"),
    ],
)
def test_what_is_of_other_controls_is_not_looked_at(other: dict[str, Any]) -> None:
    assert drawn(other) == Drawn(())


def test_a_control_with_weights_of_its_own_is_not_ours() -> None:
    config = RECTANGLES.replace("<RectangleLabels", '<RectangleLabels model_path="other.pt"')
    controls = [control for control in parse_labeling_config(config).controls if not control.model_path]
    assert regions_by_image(annotation(1, result=[region()]), controls) == {}


def test_labels_with_a_rectangle_are_one_box() -> None:
    place = region(None, from_name="box", type="rectangle")
    labelled = region(None, type="labels", value={"labels": ["car"]})
    polygon = {**labelled, "id": "p", "value": {"points": [[1, 1], [2, 1], [2, 2]], "labels": ["car"]}}
    found = drawn(place, labelled, polygon, config=WITH_RECTANGLE)
    assert [box.box_xyxy for box in found.boxes] == [pytest.approx((20, 20, 80, 60))]
    assert found.faults == ()
    assert drawn(place, config=WITH_RECTANGLE).faults == (NO_LABEL,)


def test_labels_that_come_with_the_task_are_known() -> None:
    data = {"labels": [{"value": "plane"}]}
    assert [box.label for box in drawn(region("plane"), config=OF_TASK, data=data).boxes] == ["plane"]
    assert drawn(region("car"), config=OF_TASK, data=data).faults == (UNKNOWN_LABEL.format("car"),)
    assert drawn(region("car"), config=OF_TASK).faults == (UNKNOWN_LABEL.format("car"),)


def test_regions_are_found_by_their_page() -> None:
    pages = [region(), region(item_index=0, id="s", value={"x": 5}), region(item_index=2, id="t")]
    assert len(drawn(*pages).boxes) == 2
    assert len(drawn(*pages, page=1).boxes) == 0
    assert len(drawn(*pages, page=2).boxes) == 1


def test_an_image_that_was_turned_or_replaced_is_told() -> None:
    assert not drawn(region()).is_turned
    assert drawn(region(), region(image_rotation=90, id="s")).is_turned
    assert not drawn(region(original_width=401, original_height=200)).is_of_another  # the same, larger
    assert drawn(region(original_width=100, original_height=200)).is_of_another
    assert not drawn(region(original_width=None, original_height=0)).is_of_another


def test_an_annotation_without_a_result_has_no_regions() -> None:
    """Label Studio's column allows null."""
    controls = parse_labeling_config(RECTANGLES).controls
    assert regions_by_image(annotation(1, result=None), controls) == {}
