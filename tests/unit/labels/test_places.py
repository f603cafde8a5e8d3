"""Places and back: a box that was written into a place is read from it again."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolo_backend.detection.detections import Detections
from yolo_backend.labels.places import Box, box_of_place, clip_to_image, corners_of, corners_of_box, places_of

SIZES = st.tuples(st.integers(10, 8000), st.integers(10, 8000))
SHARES = st.floats(0, 1)


def written(box: tuple[float, ...], size_wh: tuple[int, int], *, rotated: bool) -> dict[str, float] | None:
    numbers = np.array([box], np.float32)
    (place,) = places_of(Detections(numbers, np.ones(1, np.float32), np.zeros(1, np.int64), rotated), [0], size_wh)
    return place


def assert_same_corners(box: Box, expected: list[tuple[float, float]]) -> None:
    """Of the same rectangle, whichever corner comes first."""
    found = np.array(corners_of_box(box))
    distances = np.linalg.norm(found[:, None] - np.array(expected)[None], axis=2)
    assert distances.min(axis=1).max() < 0.01
    assert distances.min(axis=0).max() < 0.01


@given(SIZES, SHARES, SHARES, SHARES, SHARES)
def test_an_upright_box_comes_back(
    size_wh: tuple[int, int], left: float, top: float, right: float, bottom: float
) -> None:
    width, height = size_wh
    box_xyxy = np.array(
        [min(left, right) * width, min(top, bottom) * height, max(left, right) * width, max(top, bottom) * height],
        np.float32,
    )
    place = written(tuple(box_xyxy.tolist()), size_wh, rotated=False)
    if place is None:
        return
    box = box_of_place(place, size_wh)
    assert box is not None
    x1, y1, x2, y2 = box_xyxy.tolist()
    assert box[4] == 0
    assert_same_corners(box, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


@given(SIZES, SHARES, SHARES, st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.floats(-7, 7))
def test_a_rotated_box_comes_back(
    size_wh: tuple[int, int], x: float, y: float, width: float, height: float, radians: float
) -> None:
    side = min(size_wh)
    numbers = [x * size_wh[0], y * size_wh[1], width * side, height * side, radians]
    box_xywhr = tuple(np.array(numbers, np.float32).tolist())
    place = written(box_xywhr, size_wh, rotated=True)
    if place is None or place["rotation"] == 0:  # around which an upright one was drawn, for no corner is on the image
        return
    box = box_of_place(place, size_wh)
    assert box is not None
    assert_same_corners(box, corners_of_box(box_xywhr))


@given(SIZES, *[st.floats(-20, 120)] * 2, *[st.floats(0.01, 100)] * 2, st.floats(-720, 720))
def test_a_place_and_its_box_have_the_same_corners_in_the_same_order(
    size_wh: tuple[int, int], x: float, y: float, width: float, height: float, rotation: float
) -> None:
    place = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    box = box_of_place(place, size_wh)
    assert box is not None
    np.testing.assert_allclose(corners_of_box(box), corners_of(place, size_wh), atol=0.001)


def test_label_studio_turns_clockwise_around_the_top_left_corner() -> None:
    box = box_of_place({"x": 50, "y": 50, "width": 20, "height": 10, "rotation": 90}, (200, 100))
    assert box == pytest.approx((95, 70, 40, 10, math.pi / 2))


@pytest.mark.parametrize(
    "change",
    [
        {"x": math.nan},
        {"y": math.inf},
        {"width": None},
        {"height": "10"},
        {"width": 0},
        {"height": -1},
        {"rotation": math.nan},
        {"rotation": "left"},
    ],
)
def test_what_is_no_rectangle_is_no_box(change: dict[str, Any]) -> None:
    place = {"x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0}
    assert box_of_place(place, (200, 100)) is not None
    assert box_of_place({**place, **change}, (200, 100)) is None


def test_without_a_rotation_it_is_upright() -> None:
    place = {"x": 10, "y": 10, "width": 10, "height": 10}
    assert box_of_place(place, (200, 100)) == box_of_place({**place, "rotation": None}, (200, 100)) != None  # noqa: E711


@pytest.mark.parametrize(
    ("corners", "clipped"),
    [
        ([(10, 10), (20, 10), (20, 20), (10, 20)], [(10, 10), (20, 10), (20, 20), (10, 20)]),
        ([(-5, 10), (20, 10), (20, 20), (-5, 20)], [(0, 10), (20, 10), (20, 20), (0, 20)]),
        ([(-5, -5), (105, -5), (105, 55), (-5, 55)], [(0, 0), (100, 0), (100, 50), (0, 50)]),
        ([(-20, 10), (-10, 10), (-10, 20), (-20, 20)], []),
        ([(10, -10), (30, 10), (20, 20), (0, 0)], [(0, 0), (20, 0), (30, 10), (20, 20)]),
    ],
)
def test_what_of_a_rectangle_is_on_the_image(
    corners: list[tuple[float, float]], clipped: list[tuple[float, float]]
) -> None:
    found = clip_to_image(corners, (100, 50))
    assert sorted(set(found)) == sorted(clipped)


@given(st.floats(-50, 150), st.floats(-50, 100), st.floats(1, 200), st.floats(1, 200), st.floats(0, 7))
def test_what_is_clipped_is_on_the_image_and_as_large_as_what_is_seen(
    x: float, y: float, width: float, height: float, radians: float
) -> None:
    corners = corners_of_box((x, y, width, height, radians))
    clipped = clip_to_image(corners, (100, 50))
    assert all(-1e-9 <= x <= 100 + 1e-9 and -1e-9 <= y <= 50 + 1e-9 for x, y in clipped)
    image = np.array([(0, 0), (100, 0), (100, 50), (0, 50)], np.float32)
    area, _ = cv2.intersectConvexConvex(np.array(corners, np.float32), image)
    mine = cv2.contourArea(np.array(clipped, np.float32)) if len(clipped) > 2 else 0.0
    assert mine == pytest.approx(area, abs=0.05)
