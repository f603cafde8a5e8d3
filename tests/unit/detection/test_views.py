"""Views: what the model is shown of an image, and where in the image that lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes.engine import detections, info_of
from yolo_backend.detection.detections import Detections, Letterboxed, WeightsInfo, joined
from yolo_backend.detection.masks import Mask
from yolo_backend.detection.views import WHOLE, AreaXyxy, show, view_for

Pixels = NDArray[np.uint8]


class Areas:
    """Shows the areas that a test names."""

    name = "areas"

    def __init__(self, *areas: AreaXyxy) -> None:
        self._areas = areas

    def takes(self, weights: WeightsInfo) -> bool:
        return True

    def enough_px(self, weights: WeightsInfo) -> int | None:
        return None

    def areas(self, size_wh: tuple[int, int]) -> Sequence[AreaXyxy]:
        return self._areas

    def merge(self, found: Sequence[Detections], areas: Sequence[AreaXyxy]) -> Detections:
        return joined(found)


def image(width: int, height: int) -> Pixels:
    """Its pixels say where they are: column, row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return pixels


def letterbox(pixels: Pixels, size_wh: tuple[int, int]) -> Letterboxed:
    return Letterboxed(pixels, size_wh)


def test_the_whole_is_the_image_itself() -> None:
    pixels, found = image(20, 10), detections(1)
    shown = show(WHOLE, pixels, (40, 20), letterbox)
    assert [each.pixels is pixels for each in shown.images] == [True]
    assert shown.images[0].original_size_wh == (40, 20)
    assert shown.merge([found]) is found
    assert view_for(info_of("fake.pt")) is WHOLE


def test_areas_are_shown_in_their_order() -> None:
    pixels = image(20, 10)
    shown = show(Areas((0, 0, 12, 10), (8, 2, 20, 10)), pixels, (20, 10), letterbox)
    assert [each.original_size_wh for each in shown.images] == [(12, 10), (12, 8)]
    assert [each.pixels.shape for each in shown.images] == [(10, 12, 3), (8, 12, 3)]
    assert shown.images[1].pixels[0, 0].tolist() == [8, 2, 0]
    assert all(np.shares_memory(each.pixels, pixels) for each in shown.images)

    merged = shown.merge([detections(1), detections(2)])
    assert merged.boxes.tolist() == [[8, 2, 9, 3], [0, 0, 1, 1]]
    assert merged.scores.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("size_wh", "area", "shown_area", "corner"),
    [
        ((40, 20), (16, 4, 40, 20), (16, 4, 40, 20), [8, 2, 0]),
        ((40, 20), (17, 5, 39, 19), (16, 4, 40, 20), [8, 2, 0]),
        ((41, 21), (20, 11, 41, 21), (18, 10, 41, 21), [9, 5, 0]),
    ],
)
def test_an_area_of_an_image_that_was_decoded_smaller(
    size_wh: tuple[int, int], area: AreaXyxy, shown_area: AreaXyxy, corner: list[int]
) -> None:
    shown = show(Areas(area), image(20, 10), size_wh, letterbox)
    left, top, right, bottom = shown_area
    assert list(shown.areas) == [shown_area]
    assert shown.images[0].original_size_wh == (right - left, bottom - top)
    assert shown.images[0].pixels[0, 0].tolist() == corner
    assert shown.merge([detections(1)]).boxes.tolist() == [[left, top, left + 1, top + 1]]


def test_masks_are_wanted_of_all_parts() -> None:
    areas = Areas((0, 0, 10, 10), (10, 0, 20, 10))
    shown = show(areas, image(20, 10), (20, 10), letterbox)
    asking = shown.asking_for_masks()
    assert [each.wants_masks for each in shown.images] == [False, False]
    assert [each.wants_masks for each in asking.images] == [True, True]
    assert (asking.view, asking.areas) == (shown.view, shown.areas)
    masks = [Mask.of_bitmap(np.ones((2, 3), np.bool_), (1, 1))]
    found = asking.merge([replace(detections(1), masks=tuple(masks)) for _ in shown.images])
    assert [mask.window_xywh for mask in found.masks or ()] == [(1, 1, 3, 2), (11, 1, 3, 2)]


def test_an_image_is_not_decoded_smaller_for_a_classifier() -> None:
    """It is scaled by its shorter side, which may be a small part of the longer one."""
    assert WHOLE.enough_px(info_of("fake.pt")) == 64
    assert WHOLE.enough_px(replace(info_of("fake.pt"), kind="classify")) is None
