"""Outlines of masks: exact along the pixels, simplified as far as they may be, and never crossing themselves."""

from __future__ import annotations

import math
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.labels.masks import Bitmap, bitmaps, blobs, in_image, iou_of, size_wh_of, without_holes
from yolo_backend.detection.masks import Mask
from yolo_backend.labels import outlines as outlines_module
from yolo_backend.labels.outlines import (
    MIN_IOU,
    area_of,
    filled,
    is_simple,
    mask_of,
    nested_outlines_of,
    outlines_of,
    simplified,
    smoothed,
    within_tolerance,
)

OFFSET = (3, 5)


def painted(points: NDArray[np.float64], size_wh: tuple[int, int]) -> Bitmap:
    """The pixels whose middle is within a polygon, as another implementation says."""
    width, height = size_wh
    polygon = points.astype(np.float32)
    return np.array(
        [[cv2.pointPolygonTest(polygon, (x + 0.5, y + 0.5), False) >= 0 for x in range(width)] for y in range(height)]
    )


@given(bitmaps())
@settings(deadline=None)
def test_outlines_hold_exactly_the_pixels_of_their_parts(bitmap: Bitmap) -> None:
    outlines = outlines_of(Mask.of_bitmap(bitmap, OFFSET))
    filled = without_holes(bitmap)
    size_wh = size_wh_of(bitmap)
    parts = [painted(outline - OFFSET, size_wh) for outline in outlines]
    assert np.array_equal(sum(part.astype(int) for part in parts), filled.astype(int))
    assert [area_of(outline) for outline in outlines] == [part.sum() for part in parts]
    count, _ = cv2.connectedComponents(filled.astype(np.uint8), connectivity=4)
    assert len(outlines) == count - 1
    assert [area_of(outline) for outline in outlines] == sorted(map(area_of, outlines), reverse=True)
    assert all(is_simple(outline) for outline in outlines)


@given(st.one_of(bitmaps(), blobs()))
@settings(deadline=None, max_examples=60)
def test_a_simplified_outline_has_nearly_the_same_pixels(bitmap: Bitmap) -> None:
    size_wh = size_wh_of(bitmap)
    for outline in outlines_of(Mask.of_bitmap(bitmap)):
        points = simplified(outline)
        assert 3 <= len(points) <= len(outline)
        assert is_simple(points)
        exact, reduced = (in_image(mask_of(each, size_wh), size_wh) for each in (outline, points))
        assert iou_of(exact, reduced) >= MIN_IOU


@given(st.one_of(bitmaps(), blobs()), st.floats(0, 20))
@settings(deadline=None, max_examples=60)
def test_within_a_tolerance_no_point_is_further_away(bitmap: Bitmap, tolerance_px: float) -> None:
    for outline in outlines_of(Mask.of_bitmap(bitmap)):
        points = within_tolerance(outline, tolerance_px)
        assert len(points) >= 3
        assert is_simple(points)
        polygon = points.astype(np.float32)
        furthest = max(abs(cv2.pointPolygonTest(polygon, (float(x), float(y)), True)) for x, y in outline)
        assert furthest <= tolerance_px + 1e-3


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 200))
@settings(deadline=None)
def test_where_a_polygon_is_does_not_change_its_pixels(x: int, y: int, seed: int) -> None:
    """Also those whose middle is on a side, which are many where the corners are whole numbers."""
    points = np.random.default_rng(seed).integers(0, 60, (7, 2)).astype(np.float64)
    here, there = (mask_of(points + offset, (6000, 6000)) for offset in ((0, 0), (x, y)))
    assert there.window_xywh[2:] == here.window_xywh[2:]
    assert there.runs.tolist() == here.runs.tolist()


def test_opencv_is_held_to_the_tolerance() -> None:
    """It takes away the corner at (5, 9), which is 1.15 px from what is left."""
    outline = np.array([[5, 9], [5, 10], [2, 10], [2, 11], [0, 11], [0, 33], [12, 33], [12, 9]], np.float64)
    for each in (outline, outline / 3):  # also where the corners are no whole numbers
        points = within_tolerance(each, 0.9375).astype(np.float32)
        assert max(abs(cv2.pointPolygonTest(points, (x, y), True)) for x, y in each.tolist()) <= 0.9375


@pytest.mark.long
@given(blobs())
@settings(deadline=None, max_examples=30)
def test_the_mask_of_a_polygon_is_that_of_another_implementation(bitmap: Bitmap) -> None:
    size_wh = size_wh_of(bitmap)
    off_the_middles = (0.23711, 0.31139)
    points = simplified(outlines_of(Mask.of_bitmap(bitmap))[0]) + off_the_middles
    assert np.array_equal(in_image(mask_of(points, size_wh), size_wh), painted(points, size_wh))


def test_a_circle_takes_few_points() -> None:
    """Of a circle's area a polygon with n corners on it lacks 1 - sin(2 pi / n) n / 2 pi: 2 % with 18."""
    rows, columns = np.mgrid[:201, :201]
    (outline,) = outlines_of(Mask.of_bitmap((rows - 100) ** 2 + (columns - 100) ** 2 <= 95**2))
    assert len(outline) > 200
    assert 12 <= len(simplified(outline)) <= 20


def test_a_rectangle_takes_four() -> None:
    (outline,) = outlines_of(Mask.of_bitmap(np.ones((30, 70), np.bool_), OFFSET))
    assert sorted(map(tuple, outline.tolist())) == [(3, 5), (3, 35), (73, 5), (73, 35)]
    assert len(simplified(outline)) == 4


def test_parts_that_touch_at_a_corner_are_two() -> None:
    bitmap = np.zeros((6, 6), np.bool_)
    bitmap[:2, :2] = bitmap[2:, 2:] = True
    assert [area_of(outline) for outline in outlines_of(Mask.of_bitmap(bitmap))] == [16, 4]


def test_a_mask_without_pixels_has_no_outline() -> None:
    assert outlines_of(Mask.of_bitmap(np.zeros((4, 4), np.bool_))) == []


def test_a_comb_is_never_crossed() -> None:
    """Between teeth of two pixels a tolerance of three would cross itself."""
    bitmap = np.zeros((40, 61), np.bool_)
    bitmap[:4] = True
    bitmap[:, ::4] = bitmap[:, 1::4] = True
    (outline,) = outlines_of(Mask.of_bitmap(bitmap))
    for tolerance_px in (1.0, 3.0, 10.0):
        assert is_simple(within_tolerance(outline, tolerance_px))


@pytest.mark.parametrize(
    ("points", "simple"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4)], True),
        ([(0, 0), (4, 4), (4, 0), (0, 4)], False),
        ([(0, 0), (4, 0), (2, 0)], False),
        ([(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)], False),
        ([(0, 0), (4, 0), (2, 2), (4, 4), (0, 4), (2, 2)], False),
        ([(0, 0), (4, 0), (3, 1), (4, 4), (0, 4), (1, 2)], True),
        ([(math.cos(turn), math.sin(turn)) for turn in (0, 2.5, 5.0, 1.3, 3.8)], False),
    ],
)
def test_what_crosses_itself(points: list[tuple[float, float]], simple: bool) -> None:
    assert is_simple(np.array(points, np.float64)) is simple


@pytest.mark.parametrize("crossing", [False, True])
def test_a_polygon_of_thousands_of_points_is_looked_at_in_little_memory(crossing: bool) -> None:
    turn = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    radius = 2000 + 20 * np.sin(turn * 400)
    points = np.column_stack([np.cos(turn) * radius, np.sin(turn) * radius])
    if crossing:
        points[[2500, 4998]] = points[[4998, 2500]]
    tracemalloc.start()
    try:
        assert is_simple(points) is not crossing
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12), st.integers(1, 40))
@settings(deadline=None)
def test_in_blocks_the_same_is_found(corners: list[tuple[int, int]], pairs_at_once: int) -> None:
    points = np.array(corners, np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines_module, "_PAIRS_AT_ONCE", pairs_at_once)
        in_blocks = is_simple(points)
    assert in_blocks is is_simple(points)


@given(bitmaps())
@settings(deadline=None)
def test_nested_outlines_make_the_mask_again(bitmap: Bitmap) -> None:
    """With its holes, the parts in these, and the holes in those."""
    outlines = nested_outlines_of(Mask.of_bitmap(bitmap, OFFSET))
    size_wh = (bitmap.shape[1] + OFFSET[0], bitmap.shape[0] + OFFSET[1])
    again = in_image(filled(outlines, size_wh), size_wh)
    np.testing.assert_array_equal(again[OFFSET[1] :, OFFSET[0] :], bitmap)


def test_a_mask_without_pixels_has_no_outlines() -> None:
    assert nested_outlines_of(Mask((3, 4, 2, 2), np.array([4], np.uint32))) == []


def test_holes_in_parts_in_holes_have_an_end() -> None:
    """Each ring takes as long as the first."""
    y, x = np.mgrid[:81, :81] - 40
    rings = np.maximum(abs(x), abs(y)) % 4 < 2
    outlines = nested_outlines_of(Mask.of_bitmap(rings))
    assert len(outlines) == 8
    assert [area_of(outline) for outline in outlines[:2]] == [81.0**2, 79.0**2]


@pytest.mark.parametrize("tolerance_px", [0.5, 2.0])
@given(blobs())
@settings(deadline=None, max_examples=30)
def test_a_smoothed_outline_stays_near(tolerance_px: float, bitmap: Bitmap) -> None:
    """Near the middles of the pixels' sides, which are half a pixel from any point of the exact outline."""
    (outline,) = outlines_of(Mask.of_bitmap(bitmap))[:1]
    points = smoothed(outline, tolerance_px)
    assert len(points) <= len(outline)
    size_wh = size_wh_of(bitmap)
    changed = in_image(mask_of(points, size_wh), size_wh) ^ in_image(mask_of(outline, size_wh), size_wh)
    lengths = np.abs(np.roll(outline, -1, axis=0) - outline).sum()
    assert changed.sum() <= tolerance_px * lengths
    kept = outline.astype(np.float32)[:, None]
    assert max(abs(cv2.pointPolygonTest(kept, (x, y), True)) for x, y in points.tolist()) < 0.01


def test_a_slanted_side_is_straight_again() -> None:
    size_wh = (120, 90)
    drawn = np.array([[10.0, 10.0], [110.0, 40.0], [30.0, 80.0]])
    (outline,) = outlines_of(mask_of(drawn, size_wh))
    points = smoothed(outline, 0.75)
    assert len(points) < len(outline) / 4
    kept = drawn.astype(np.float32)[:, None]
    assert max(abs(cv2.pointPolygonTest(kept, (x, y), True)) for x, y in points.tolist()) < 0.8


def test_a_single_pixel_is_smoothed_to_something() -> None:
    square = np.array([[4.0, 4.0], [4.0, 5.0], [5.0, 5.0], [5.0, 4.0]])
    assert area_of(smoothed(square, 0.1)) == pytest.approx(0.5)
    assert area_of(smoothed(square, 5.0)) == 1.0
