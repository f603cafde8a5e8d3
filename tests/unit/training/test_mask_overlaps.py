"""How much masks overlap what people drew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.labels.masks import Bitmap, bitmaps, in_image, iou_of
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.outlines import nested_outlines_of
from yolo_backend.training.mask_overlaps import grid_of, mask_ious

SIZE_WH = (16, 14)


def square(left: float, top: float, side: float) -> Any:
    return np.array([[left, top], [left + side, top], [left + side, top + side], [left, top + side]], np.float64)


def painted(left: int, top: int, side: int) -> Mask:
    return Mask.of_bitmap(np.ones((side, side), np.bool_), (left, top))


@given(st.lists(bitmaps(8), min_size=1, max_size=3), st.lists(bitmaps(8), min_size=1, max_size=3), st.data())
@settings(deadline=None)
def test_it_is_the_iou_of_the_pixels(found: list[Bitmap], drawn: list[Bitmap], data: st.DataObject) -> None:
    offsets = st.tuples(st.integers(0, 6), st.integers(0, 5))
    masks = [Mask.of_bitmap(each, data.draw(offsets)) for each in found]
    truths = [Mask.of_bitmap(each, data.draw(offsets)) for each in drawn]
    expected = np.array(
        [[iou_of(in_image(one, SIZE_WH), in_image(other, SIZE_WH)) for other in truths] for one in masks]
    )
    outlines = [nested_outlines_of(truth) for truth in truths]
    np.testing.assert_allclose(mask_ious(masks, outlines, SIZE_WH, 0.0), expected, atol=1e-12)
    ious = mask_ious(masks, outlines, SIZE_WH, 0.5)
    np.testing.assert_allclose(ious[expected >= 0.5], expected[expected >= 0.5], atol=1e-12)
    assert (ious[expected < 0.5] < 0.5).all()


def test_only_what_is_wanted_counts() -> None:
    masks = [painted(0, 0, 4), painted(8, 8, 4)]
    drawn = [[square(0, 0, 4)], [square(8, 8, 4)]]
    assert mask_ious(masks, drawn, SIZE_WH, 0.5).tolist() == [[1, 0], [0, 1]]
    wanted = np.array([[True, True], [True, False]])
    assert mask_ious(masks, drawn, SIZE_WH, 0.5, wanted).tolist() == [[1, 0], [0, 0]]


def test_a_hole_is_no_part_of_it() -> None:
    ring = [square(0, 0, 10), square(2, 2, 6)]
    assert mask_ious([painted(0, 0, 10)], [ring], SIZE_WH, 0.5)[0, 0] == pytest.approx(0.64)


@pytest.mark.parametrize(("found", "drawn"), [(0, 0), (2, 0), (0, 2)])
def test_nothing_found_or_drawn(found: int, drawn: int) -> None:
    ious = mask_ious([painted(0, 0, 3)] * found, [[square(0, 0, 3)]] * drawn, SIZE_WH, 0.5)
    assert ious.shape == (found, drawn)


def test_masks_without_pixels_overlap_nothing() -> None:
    empty = Mask((3, 3, 0, 0), np.zeros(1, np.uint32))
    assert mask_ious([empty, painted(0, 0, 3)], [[square(0.6, 0.6, 0.8)]], SIZE_WH, 0.5).tolist() == [[0], [0]]
    assert mask_ious([empty], [[square(0.1, 0.1, 0.2)]], SIZE_WH, 0.5).tolist() == [[0]]


@pytest.mark.parametrize(
    ("size_wh", "grid_wh"),
    [((640, 480), (640, 480)), ((100, 50), (100, 50)), ((4000, 3000), (640, 480)), ((3000, 4000), (480, 640)),
     ((64_000, 10), (640, 1))],
)  # fmt: skip
def test_large_images_are_compared_smaller(size_wh: tuple[int, int], grid_wh: tuple[int, int]) -> None:
    assert grid_of(size_wh) == grid_wh
