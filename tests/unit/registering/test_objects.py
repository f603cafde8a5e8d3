from __future__ import annotations

import math

import numpy as np
import pytest

from yolo_backend.registering.objects import (
    MISSING_POINT,
    FileObject,
    box,
    detections_of,
    ellipse,
    key_points,
    mask_of_outlines,
    polygon,
    quadrilateral,
    rotated,
    turned,
)

SIZE_WH = (200, 100)
TRIANGLE = [(20.0, 10.0), (60.0, 10.0), (20.0, 50.0)]


def test_a_box_is_detected_as_one() -> None:
    found = detections_of(box("car", (1, 2, 3, 4), 0.5, "here"), 7, SIZE_WH)

    assert (found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist()) == ([[1, 2, 3, 4]], [0.5], [7])
    assert (found.rotated, dict(found.extras), found.masks) == (False, {}, None)


def test_a_rotated_box_is_detected_as_one() -> None:
    found = detections_of(rotated("car", (100, 50, 40, 20, 0.5), None, "here"), 0, SIZE_WH)

    assert (found.rotated, found.boxes.tolist(), found.masks) == (True, [[100, 50, 40, 20, 0.5]], None)


def test_a_rotated_box_by_its_corners_keeps_them_as_they_were_drawn() -> None:
    corners = [(100.0, 20.0), (140.0, 60.0), (100.0, 100.0), (60.0, 60.0)]

    found = detections_of(quadrilateral("car", corners, None, "here"), 0, SIZE_WH)

    assert found.rotated
    assert found.masks is not None
    np.testing.assert_array_equal(found.masks[0].polygons[0], corners)


def test_a_polygon_is_detected_with_its_outline_and_its_pixels() -> None:
    found = detections_of(polygon("car", [TRIANGLE, [(100, 60), (120, 60), (120, 90), (100, 90)]], 1, "x"), 0, SIZE_WH)

    assert found.boxes.tolist() == [[20, 10, 120, 90]]
    assert found.masks is not None
    (mask,) = found.masks
    np.testing.assert_array_equal(mask.polygons[0], TRIANGLE)
    assert len(mask.polygons) == 2
    assert mask.area_px == pytest.approx(800 + 600, rel=0.05)


def test_pixels_beside_the_image_are_none() -> None:
    across = mask_of_outlines([[(-50, -50), (10, -50), (10, 20), (-50, 20)]], SIZE_WH)
    beside = mask_of_outlines([[(-50, -50), (-10, -50), (-10, -20)]], SIZE_WH)

    assert (across.window_xywh, across.area_px) == ((0, 0, 10, 20), 200)
    assert beside.area_px == 0


def test_an_ellipse_is_detected_with_its_box_and_its_pixels() -> None:
    upright = detections_of(ellipse("car", (100, 50, 80, 40, 0), None, "x"), 0, SIZE_WH)
    leaning = detections_of(ellipse("car", (100, 50, 80, 40, 0.5), None, "x"), 0, SIZE_WH)

    assert (upright.rotated, upright.boxes.tolist()) == (False, [pytest.approx([60, 30, 140, 70], abs=0.1)])
    assert (leaning.rotated, leaning.boxes.tolist()) == (True, [[100, 50, 80, 40, 0.5]])
    for found in (upright, leaning):
        assert found.masks is not None
        assert found.masks[0].area_px == pytest.approx(math.pi * 40 * 20, rel=0.05)


def test_key_points_are_detected_and_missing_ones_are_no_numbers() -> None:
    thing = key_points("person", [(1, 2, 1), MISSING_POINT, (3, 4, 0.5)], 0.9, "x", box_xyxy=(0, 0, 9, 9))

    found = detections_of(thing, 0, SIZE_WH)

    assert found.extras["points_xy"].shape == (1, 3, 2)
    np.testing.assert_array_equal(found.extras["points_xy"][0], [[1, 2], [np.nan, np.nan], [3, 4]])
    np.testing.assert_array_equal(found.extras["point_scores"][0], [1, np.nan, 0.5])
    assert found.boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_twice_is_where_it_was(orientation: int) -> None:
    """By the orientation, and by the one that undoes it."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    upright_wh = SIZE_WH[::-1] if orientation > 4 else SIZE_WH
    things: list[FileObject] = [
        box("a", (20, 10, 120, 60), None, "x"),
        polygon("a", [TRIANGLE], None, "x"),
        key_points("a", [(20, 10, 1)], None, "x"),
    ]

    for thing in things:
        once = turned(thing, orientation, SIZE_WH)
        twice = turned(once, back, upright_wh)
        assert (once == thing) is (orientation == 1)
        assert twice == thing
