"""Masks as runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)))
def test_a_bitmap_comes_back_bit_by_bit(bitmap: NDArray[np.bool_]) -> None:
    mask = Mask.of_bitmap(bitmap)
    np.testing.assert_array_equal(mask.bitmap(), bitmap)
    assert int(mask.runs.sum()) == bitmap.size
    assert mask.area_px == int(bitmap.sum())


def test_runs_go_row_by_row_and_begin_outside() -> None:
    bitmap = np.array([[1, 1, 0], [0, 1, 1]], np.bool_)
    assert Mask.of_bitmap(bitmap, (7, 9)).runs.tolist() == [0, 2, 2, 2]
    assert Mask.of_bitmap(~bitmap).runs.tolist() == [2, 2, 2]
    assert Mask.of_bitmap(bitmap, (7, 9)).window_xywh == (7, 9, 3, 2)


@pytest.mark.parametrize("offset_xy", [(0, 0), (30, -4)])
def test_a_moved_mask_takes_its_polygons_along(offset_xy: tuple[int, int]) -> None:
    triangle = np.array([[1, 1], [5, 1], [1, 5]], np.float32)
    mask = Mask((1, 1, 2, 2), np.array([0, 4], np.uint32), (triangle,)).moved(offset_xy)
    assert mask.window_xywh == (1 + offset_xy[0], 1 + offset_xy[1], 2, 2)
    np.testing.assert_array_equal(mask.polygons[0], triangle + np.array(offset_xy))
    assert mask.polygons[0].dtype == np.float32
    assert mask.bitmap().all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_its_memory_is_that_of_its_runs(row: list[int]) -> None:
    mask = Mask.of_bitmap(np.array([row], np.uint8) > 4)
    assert mask.nbytes == 4 * len(mask.runs)


@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)),
    st.tuples(st.integers(-4, 9), st.integers(-4, 9)),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_spans_are_the_pixels_in_the_image(
    bitmap: NDArray[np.bool_], offset_xy: tuple[int, int], size_wh: tuple[int, int]
) -> None:
    """Those beyond its edges are left out, and a span goes on over the end of a row."""
    image = np.zeros((40, 40), np.bool_)
    (left, top), (height, width) = offset_xy, bitmap.shape
    image[10 + top : 10 + top + height, 10 + left : 10 + left + width] = bitmap
    expected = image[10 : 10 + size_wh[1], 10 : 10 + size_wh[0]].ravel()
    starts, ends = Mask.of_bitmap(bitmap, offset_xy).spans(size_wh)
    found = np.zeros(expected.shape, np.bool_)
    for start, end in zip(starts, ends, strict=True):
        assert end > start
        assert not found[start:end].any()
        found[start:end] = True
    np.testing.assert_array_equal(found, expected)
    assert (starts[1:] > ends[:-1]).all()
