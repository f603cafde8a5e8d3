"""Regions: what the SDK's own validator accepts, and in the right place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from numpy.typing import NDArray

from yolo_backend.detection.detections import Detections
from yolo_backend.labels.label_map import map_labels
from yolo_backend.labels.labeling_config import parse_labeling_config
from yolo_backend.labels.regions import count_boxes, make_regions, region_label, task_score
from yolo_backend.protocol import Region

Points = NDArray[np.float64]

CONFIG = """<View><Image name="photo" value="$image"/>
<RectangleLabels name="boxes" toName="photo" model_score_threshold="0.25">
  <Label value="Car"/><Label value="Cat" model_score_threshold="0.5"/><Label value="Unicorn"/>
</RectangleLabels></View>"""
(CONTROL,) = parse_labeling_config(CONFIG).controls
LABEL_MAP = map_labels(CONTROL, {0: "car", 1: "cat", 2: "dog"}, 0.25)
JUDGE = LabelInterface(CONFIG)


def detections(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float] | None = None,
    class_ids: Sequence[int] | None = None,
    *,
    rotated: bool = False,
) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 5 if rotated else 4),
        np.array([0.9] * count if scores is None else scores, np.float32),
        np.array([0] * count if class_ids is None else class_ids, np.int64),
        rotated,
    )


def regions_of(found: Detections, size_wh: tuple[int, int] = (200, 100), item_index: int | None = None) -> list[Any]:
    return make_regions(found, CONTROL, LABEL_MAP, size_wh, item_index)


def assert_valid(regions: list[Region]) -> None:
    prediction = {"result": regions, "score": task_score(regions), "model_version": "test"}
    assert JUDGE.validate_prediction(prediction, return_errors=True) == []
    for region in regions:
        value = region["value"]
        # The SDK's judge knows upper limits only.
        assert all(math.isfinite(value[key]) for key in ("x", "y", "width", "height", "rotation"))
        assert all(0 <= value[key] <= 100 for key in ("x", "y", "width", "height"))
        assert value["width"] > 0
        assert value["height"] > 0
        assert 0 <= value["rotation"] <= 360


def corners_in_pixels(region: Region) -> Points:
    """As Label Studio draws it: turned clockwise, by degrees, around the top left corner."""
    value = region["value"]
    width, height = region["original_width"], region["original_height"]
    x, y = value["x"] / 100 * width, value["y"] / 100 * height
    side_x, side_y = value["width"] / 100 * width, value["height"] / 100 * height
    cos, sin = math.cos(math.radians(value["rotation"])), math.sin(math.radians(value["rotation"]))
    along, down = np.array([cos, sin]) * side_x, np.array([-sin, cos]) * side_y
    corner = np.array([x, y])
    return np.array([corner, corner + along, corner + along + down, corner + down])


def corners_of_box(box_xywhr: Sequence[float]) -> Points:
    center_x, center_y, width, height, radians = (float(np.float32(number)) for number in box_xywhr)
    along = np.array([math.cos(radians), math.sin(radians)]) * width / 2
    down = np.array([-math.sin(radians), math.cos(radians)]) * height / 2
    center = np.array([center_x, center_y])
    return np.array([center - along - down, center + along - down, center + along + down, center - along + down])


def assert_same_corners(found: Points, expected: Points, tolerance: float = 1e-3) -> None:
    """The same four points in the same direction; which of them comes first doesn't matter."""
    distances = [np.abs(np.roll(found, turn, axis=0) - expected).max() for turn in range(4)]
    assert min(distances) <= tolerance


# Edges


def test_no_detections_give_no_regions() -> None:
    assert regions_of(detections([])) == []
    assert regions_of(detections([], rotated=True)) == []


def test_the_whole_image() -> None:
    (region,) = regions_of(detections([[0, 0, 200, 100]]))
    assert region["value"] == {
        "x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["Car"],
    }  # fmt: skip
    assert_valid([region])


@pytest.mark.parametrize(
    ("box_xyxy", "expected"),
    [
        ([20, 10, 60, 40], (10, 10, 20, 30)),
        ([-50, -50, 100, 50], (0, 0, 50, 50)),
        ([100, 50, 500, 500], (50, 50, 50, 50)),
        ([-1e9, -1e9, 1e9, 1e9], (0, 0, 100, 100)),
        ([0, 0, 200.0000002, 100.0000001], (0, 0, 100, 100)),
        ([0, 0, 200.00002, 100.00001], (0, 0, 100, 100)),
    ],
)
def test_boxes_are_percentages_clipped_to_the_image(
    box_xyxy: list[float], expected: tuple[float, float, float, float]
) -> None:
    (region,) = regions_of(detections([box_xyxy]))
    value = region["value"]
    assert (value["x"], value["y"], value["width"], value["height"]) == pytest.approx(expected, abs=1e-4)
    assert_valid([region])


@pytest.mark.parametrize(
    "box_xyxy",
    [
        [10, 10, 10, 20],
        [10, 10, 20, 10],
        [10, 10, 10, 10],
        [20, 10, 10, 20],
        [10, 20, 20, 10],
        [-20, 10, -10, 20],
        [200, 10, 210, 20],
        [10, 100, 20, 110],
        [10, -20, 20, 0],
        [math.nan, 10, 20, 20],
        [10, 10, math.inf, 20],
        [-math.inf, 10, 20, 20],
    ],
)
def test_a_box_without_an_area_on_the_image_is_left_out(box_xyxy: list[float]) -> None:
    good = [0, 0, 10, 10]
    regions = regions_of(detections([good, box_xyxy, good]))
    assert len(regions) == 2
    assert_valid(regions)


@pytest.mark.parametrize(
    "box_xywhr",
    [
        [100, 50, 0, 20, 0.3],
        [100, 50, 20, 0, 0.3],
        [100, 50, -5, 20, 0.3],
        [100, 50, 20, 20, math.nan],
        [math.nan, 50, 20, 20, 0.3],
        [100, math.inf, 20, 20, 0.3],
        [900, 50, 20, 20, 0.3],
        [100, -90, 20, 20, 0.3],
    ],
)
def test_a_rotated_box_without_an_area_on_the_image_is_left_out(box_xywhr: list[float]) -> None:
    assert regions_of(detections([box_xywhr], rotated=True)) == []


# What stands in a region


def test_a_region_says_whose_it_is() -> None:
    (region,) = regions_of(detections([[20, 10, 60, 40]], [0.75]))
    assert region["score"] == 0.75
    assert (region["from_name"], region["to_name"], region["type"]) == ("boxes", "photo", "rectanglelabels")
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (200, 100, 0)
    assert "item_index" not in region


def test_ids_differ() -> None:
    regions = regions_of(detections([[0, 0, 10, 10]] * 300))
    assert len({region["id"] for region in regions}) == 300


@pytest.mark.parametrize("item_index", [0, 3])
def test_a_page_of_a_list_has_its_index(item_index: int) -> None:
    (region,) = regions_of(detections([[20, 10, 60, 40]]), item_index=item_index)
    assert region["item_index"] == item_index
    assert_valid([region])


def test_thresholds_are_strict_and_by_class() -> None:
    above = float(np.nextafter(np.float32(0.25), np.float32(1)))
    found = detections([[0, 0, 10, 10]] * 7, [0.9, 0.5, 0.49, 0.25, above, 0.24, 0.6], class_ids=[0, 1, 1, 0, 0, 0, 1])
    assert [(region["value"]["rectanglelabels"], region["score"]) for region in regions_of(found)] == [
        (["Car"], pytest.approx(0.9)),
        (["Car"], pytest.approx(above)),
        (["Cat"], pytest.approx(0.6)),
    ]


@pytest.mark.parametrize("score", [math.nan, 0.0, -1.0])
def test_a_score_that_is_none_is_left_out(score: float) -> None:
    assert regions_of(detections([[0, 0, 10, 10]], [score])) == []


@pytest.mark.parametrize("class_id", [2, 3, -1])
def test_classes_without_a_label_are_left_out(class_id: int) -> None:
    assert regions_of(detections([[0, 0, 10, 10]], class_ids=[class_id])) == []


def test_order_is_kept() -> None:
    scores = [0.9, 0.8, 0.7, 0.6]
    found = detections([[0, 0, 10, 10]] * 4, scores, class_ids=[0, 1, 0, 1])
    assert [region["score"] for region in regions_of(found)] == pytest.approx(scores)


@pytest.mark.parametrize(("scores", "expected"), [([], 0.0), ([0.5], 0.5), ([1.0, 0.5], 0.75), ([0.3, 0.6, 0.9], 0.6)])
def test_the_score_of_a_task_is_the_mean(scores: list[float], expected: float) -> None:
    score = task_score([{"score": score} for score in scores])
    assert score == pytest.approx(expected)
    assert type(score) is float


# Rotation


@pytest.mark.parametrize("degrees", [-720, -90, -45, -1, 0, 1e-6, 30, 45, 89.999, 90, 91, 135, 180, 270, 359, 360, 725])
@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (30, 30), (0.5, 60)])
def test_a_rotated_box_comes_back_as_the_same_corners(degrees: float, width: float, height: float) -> None:
    box = [101.5, 49.25, width, height, math.radians(degrees)]
    (region,) = regions_of(detections([box], rotated=True))
    assert_same_corners(corners_in_pixels(region), corners_of_box(box))
    assert_valid([region])


@pytest.mark.parametrize(
    "box_xywhr",
    [
        [5, 5, 30, 8, 0.8],
        [195, 5, 30, 8, -0.8],
        [5, 95, 30, 8, 2.4],
        [195, 95, 30, 8, 0.8],
        [100, 2, 150, 20, 0.1],
        [2, 50, 20, 80, 0.1],
    ],
)
def test_a_rotated_box_over_an_edge_turns_around_a_corner_that_lies_on_the_image(box_xywhr: list[float]) -> None:
    (region,) = regions_of(detections([box_xywhr], rotated=True))
    assert_same_corners(corners_in_pixels(region), corners_of_box(box_xywhr))
    assert_valid([region])


def test_a_rotated_box_larger_than_the_image_becomes_the_upright_box_around_it() -> None:
    (region,) = regions_of(detections([[100, 50, 400, 300, 0.5]], rotated=True))
    assert region["value"]["rotation"] == 0
    assert np.allclose(corners_in_pixels(region), [[0, 0], [200, 0], [200, 100], [0, 100]])
    assert_valid([region])


@pytest.mark.parametrize("radians", [-1e-9, -1e-17, -1e-30, 2 * math.pi, -2 * math.pi])
def test_a_tiny_rotation_is_valid(radians: float) -> None:
    assert_valid(regions_of(detections([[100, 50, 20, 10, radians]], rotated=True)))


# Anything a model may say


_NUMBERS = st.one_of(
    st.floats(-50, 350, width=32),
    st.floats(width=32),
    st.sampled_from([0.0, 100.0, 200.0, 200.00002, -0.0, math.nan, math.inf, -math.inf, 1e-38, 3e38]),
)
_SIZES = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS), max_size=5), _SIZES)
@example([(0.0, 0.0, 33.333332, 66.666664)], (100, 67))
def test_any_upright_box_is_valid_or_left_out(boxes: list[tuple[float, ...]], size_wh: tuple[int, int]) -> None:
    assert_valid(regions_of(detections(boxes), size_wh))


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS), max_size=5), _SIZES)
def test_any_rotated_box_is_valid_or_left_out(boxes: list[tuple[float, ...]], size_wh: tuple[int, int]) -> None:
    assert_valid(regions_of(detections(boxes, rotated=True), size_wh))


@given(
    st.tuples(
        st.floats(0, 200, width=32),
        st.floats(0, 100, width=32),
        st.floats(1, 60, width=32),
        st.floats(1, 60, width=32),
        st.floats(-7, 7, width=32),
    )
)
def test_any_rotated_box_keeps_its_corners(box_xywhr: tuple[float, ...]) -> None:
    corners = corners_of_box(box_xywhr)
    margin = 1e-3
    on_image = [margin < x < 200 - margin and margin < y < 100 - margin for x, y in corners]
    regions = regions_of(detections([box_xywhr], rotated=True))
    assert_valid(regions)
    if any(on_image):
        assert_same_corners(corners_in_pixels(regions[0]), corners)


@given(st.floats(0, 190, width=32), st.floats(0, 90, width=32), st.floats(1, 10, width=32), st.floats(1, 10, width=32))
def test_any_upright_box_on_the_image_keeps_its_corners(x: float, y: float, width: float, height: float) -> None:
    box = np.array([x, y, x + width, y + height], np.float32)
    (region,) = regions_of(detections([box.tolist()]))
    left, top, right, bottom = (float(number) for number in box)
    expected = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    assert np.abs(corners_in_pixels(region) - expected).max() <= 1e-3


def test_labels_with_a_rectangle_make_a_place_and_a_label_of_each_box() -> None:
    config = CONFIG.replace("RectangleLabels", "Labels").replace(
        "</View>", '<Rectangle name="place" toName="photo"/></View>'
    )
    (control,) = parse_labeling_config(config).controls
    found = detections([(10, 10, 30, 50), (20, 20, 90, 90)])
    regions = make_regions(found, control, LABEL_MAP, (100, 200), 3)
    assert LabelInterface(config).validate_prediction({"result": regions}, return_errors=True) == []
    assert [region_label(region) for region in regions] == [None, "Car", None, "Car"]
    assert [region["item_index"] for region in regions] == [3, 3, 3, 3]
    assert [first["id"] == second["id"] for first, second in itertools.pairwise(regions)] == [True, False, True]
    assert count_boxes(regions) == 2
    assert task_score(regions) == task_score(make_regions(found, CONTROL, LABEL_MAP, (100, 200), 3))


@pytest.mark.parametrize(
    "region",
    [{}, {"type": "rectangle", "value": {"x": 1}}, {"type": "choices", "value": {"choices": []}}, {"value": None}],
)
def test_a_region_without_a_label_has_none(region: Region) -> None:
    assert region_label(region) is None
    assert count_boxes([region, region]) == 2
