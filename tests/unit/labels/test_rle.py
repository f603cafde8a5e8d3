"""Label Studio's run-length encoding: its own SDK reads what we write, and we read what it and its page write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter import brush

from tests.unit.labels.masks import Bitmap, bitmaps, in_image, size_wh_of
from yolo_backend.detection.masks import Mask
from yolo_backend.labels.rle import decode_rle, encode_rle


def bits(text: str) -> list[int]:
    """Bytes of a text of bits; spaces are for the reader."""
    digits = text.replace(" ", "")
    digits += "0" * (-len(digits) % 8)
    return [int(digits[start : start + 8], 2) for start in range(0, len(digits), 8)]


def head(count: int, sizes: tuple[int, int, int, int] = (3, 4, 8, 16)) -> str:
    return f"{count:032b} 00111 {' '.join(f'{size - 1:04b}' for size in sizes)} "


@given(bitmaps(), st.tuples(*[st.integers(0, 9)] * 4))
def test_the_sdk_reads_the_whole_image_pixel_by_pixel(bitmap: Bitmap, margins: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = margins
    height, width = bitmap.shape
    size_wh = (left + width + right, top + height + bottom)
    mask = Mask.of_bitmap(bitmap, (left, top))

    rle = encode_rle(mask, size_wh)

    assert all(type(number) is int and 0 <= number <= 255 for number in rle)
    decoded = brush.decode_rle(rle)
    assert len(decoded) == 4 * size_wh[0] * size_wh[1]
    expected = np.where(in_image(mask, size_wh), 255, 0)
    assert np.array_equal(decoded.reshape(*size_wh[::-1], 4), np.repeat(expected[:, :, None], 4, axis=2))
    assert np.array_equal(decode_rle(rle, size_wh).bitmap(), in_image(mask, size_wh))


@given(bitmaps())
def test_we_read_what_the_sdk_writes(bitmap: Bitmap) -> None:
    rle = brush.mask2rle(bitmap.astype(np.uint8) * 255)
    assert np.array_equal(decode_rle(rle, size_wh_of(bitmap)).bitmap(), bitmap)


def test_runs_longer_than_a_length_can_say_are_several() -> None:
    """400 x 300 pixels are 480,000 values; a length has 16 bits at most."""
    bitmap = np.zeros((300, 400), np.bool_)
    bitmap[120:290] = True
    rle = encode_rle(Mask.of_bitmap(bitmap[120:290], (0, 120)), (400, 300))
    assert len(rle) < 60
    assert np.array_equal(brush.decode_rle(rle).reshape(300, 400, 4)[:, :, 3] > 0, bitmap)


@pytest.mark.parametrize("pixels", [2**14 - 1, 2**14, 2**14 + 1, 2**15])
def test_lengths_around_the_longest(pixels: int) -> None:
    for bitmap in (np.ones((1, pixels), np.bool_), np.zeros((1, pixels), np.bool_)):
        rle = encode_rle(Mask.of_bitmap(bitmap), (pixels, 1))
        assert np.array_equal(brush.decode_rle(rle), np.repeat(bitmap.ravel() * 255, 4))


def test_what_of_a_window_is_outside_of_the_image_is_left_out() -> None:
    mask = Mask.of_bitmap(np.ones((4, 4), np.bool_), (-2, -1))
    assert in_image(decode_rle(encode_rle(mask, (3, 3)), (3, 3)), (3, 3)).tolist() == [
        [True, True, False],
        [True, True, False],
        [True, True, False],
    ]
    beside = Mask.of_bitmap(np.ones((2, 2), np.bool_), (3, 0))
    assert decode_rle(encode_rle(beside, (3, 3)), (3, 3)).area_px == 0


def test_it_is_smaller_than_the_sdks() -> None:
    rows, columns = np.mgrid[:200, :300]
    bitmap = (rows - 100) ** 2 / 80**2 + (columns - 150) ** 2 / 120**2 < 1
    assert len(encode_rle(Mask.of_bitmap(bitmap), (300, 200))) < 0.9 * len(
        brush.mask2rle(bitmap.astype(np.uint8) * 255)
    )


def test_single_values_as_the_page_writes_them_are_read() -> None:
    """Two pixels: half opaque and a little less so, in values one by one; the next two as a run and one by one."""
    values = [10, 20, 30, 128, 10, 20, 30, 127]
    one_by_one = "0 00 111" + "".join(f"{value:08b}" for value in values)
    run = "1 01 0011" + f"{255:08b}"
    rest = "0 00 011" + "".join(f"{value:08b}" for value in (0, 0, 0, 200))
    decoded = decode_rle(bits(head(16) + one_by_one + run + rest), (2, 2))
    assert decoded.bitmap().tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    ("rle", "problem"),
    [
        ([], "ends too early"),
        (bits(head(16)), "ends too early"),
        (bits(head(16) + "0 00 111 00000000"), "ends too early"),
        (bits(head(12) + "1 11" + f"{11:016b} 11111111"), "is of 12 values, and the image has 16"),
        (bits(head(16) + "1 11" + f"{16:016b} 11111111"), "more values than it says"),
        ([256], "a list of bytes"),
        (["a"], "a list of bytes"),
        ([1.5], "a list of bytes"),
    ],
)
def test_what_is_none_is_told(rle: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decode_rle(rle, (2, 2))


@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_are_a_mask_or_none(rest: list[int]) -> None:
    rle = bits(head(4 * 5 * 3)) + rest
    try:
        mask = decode_rle(rle, (5, 3))
    except ValueError:
        return
    assert mask.runs.sum() == 15
