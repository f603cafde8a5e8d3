"""Masks within their boxes: the very pixels of Ultralytics' `process_mask_native`, and little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional
from ultralytics.utils import ops

from tests.harness.detections import in_image
from yolo_backend.detection.heads.upscaling import MaskMaker

PROTOTYPES = 32


def cloudy(height: int, width: int, seed: int, *, smoothness: int = 6) -> torch.Tensor:
    """Prototypes as they may be: (32, height, width), with clouds of so many cells."""
    torch.manual_seed(seed)
    coarse = torch.randn(1, PROTOTYPES, max(height // smoothness, 2), max(width // smoothness, 2))
    return functional.interpolate(coarse, (height, width), mode="bicubic")[0]


def some_boxes(size_wh: tuple[int, int], seed: int) -> NDArray[np.float32]:
    """All of the image, a box within a pixel, and others."""
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (4, 2, 2)), axis=1) * size_wh
    boxes = [[0, 0, *size_wh], [3.2, 2.1, 3.9, 2.8], *corners.reshape(4, 4).tolist()]
    return np.array(boxes, np.float32)


def assert_ultralytics_pixels(
    prototypes: torch.Tensor, size_wh: tuple[int, int], coefficients: torch.Tensor, boxes: NDArray[np.float32]
) -> int:
    """Returns how many pixels all the masks have."""
    expected = ops.process_mask_native(prototypes, coefficients, torch.from_numpy(boxes), size_wh[::-1])
    maker = MaskMaker(prototypes, size_wh, size_wh)
    masks = [maker.make(row, box) for row, box in zip(coefficients.numpy(), boxes, strict=True)]
    for mask, bitmap in zip(masks, expected.numpy().astype(np.bool_), strict=True):
        np.testing.assert_array_equal(in_image(mask, size_wh), bitmap)
        assert mask.area_px == int(bitmap.sum())
        assert int(mask.runs.sum()) == mask.window_xywh[2] * mask.window_xywh[3]
        assert (mask.runs[1:-1] > 0).all()
    return sum(mask.area_px for mask in masks)


@pytest.mark.parametrize(
    ("input_wh", "size_wh"),
    [
        ((160, 160), (160, 160)),
        ((320, 256), (640, 480)),
        ((256, 320), (480, 640)),
        ((640, 640), (640, 427)),
        ((640, 448), (1000, 667)),
        ((320, 320), (31, 33)),
        ((320, 32), (300, 7)),
        ((32, 320), (1, 97)),
        ((320, 320), (1, 1)),
        ((160, 128), (777, 601)),
        ((640, 480), (2048, 1536)),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_masks_are_ultralytics_masks_bit_by_bit(input_wh: tuple[int, int], size_wh: tuple[int, int], seed: int) -> None:
    prototypes = cloudy(input_wh[1] // 4, input_wh[0] // 4, seed)
    boxes = some_boxes(size_wh, seed)
    area = assert_ultralytics_pixels(prototypes, size_wh, torch.randn(len(boxes), PROTOTYPES), boxes)
    assert area > 0 or size_wh == (1, 1)


def test_masks_as_fine_as_noise_are_ultralytics_masks_too() -> None:
    """Many cells of a prototype in a pixel, so that a row changes its sign twice between two pixels."""
    prototypes = cloudy(80, 80, 3, smoothness=1)
    for size_wh in ((90, 90), (41, 40), (333, 320)):
        boxes = some_boxes(size_wh, 3)
        assert assert_ultralytics_pixels(prototypes, size_wh, torch.randn(len(boxes), PROTOTYPES), boxes) > 0


@pytest.mark.parametrize(("value", "share"), [(1.0, 1), (-1.0, 0), (0.0, 0), (np.nan, 0), (np.inf, 1)])
def test_masks_that_are_everywhere_or_nowhere(value: float, share: int) -> None:
    prototypes = torch.ones(1, 20, 20)
    mask = MaskMaker(prototypes, (60, 50), (60, 50)).make(np.array([value], np.float32), np.array([10, 5, 30, 45.5]))
    assert mask.window_xywh == (10, 5, 20, 41)
    assert mask.area_px == share * 20 * 41


@pytest.mark.parametrize("box_xyxy", [[5.2, 1, 5.9, 9], [60, 0, 60, 50], [9, 9, 3, 3], [np.nan, 0, 10, 10]])
def test_a_box_without_a_pixel_has_an_empty_mask(box_xyxy: list[float]) -> None:
    mask = MaskMaker(torch.ones(1, 20, 20), (60, 50), (60, 50)).make(
        np.ones(1, np.float32), np.array(box_xyxy, np.float32)
    )
    assert mask.area_px == 0
    assert mask.bitmap().size == 0
    assert not in_image(mask, (60, 50)).any()


def test_a_mask_of_an_image_that_was_decoded_smaller_is_in_pixels_of_the_original() -> None:
    """As exact as it can be told: a pixel of the smaller one is four of the original."""
    prototypes = cloudy(30, 40, 5)
    coefficients = torch.randn(PROTOTYPES).numpy()
    small = MaskMaker(prototypes, (320, 240), (320, 240)).make(coefficients, np.array([40, 30, 280, 200]))
    large = MaskMaker(prototypes, (320, 240), (640, 480)).make(coefficients, np.array([80, 60, 560, 400]))
    assert large.window_xywh == (80, 60, 480, 340)
    twice = np.kron(small.bitmap(), np.ones((2, 2), np.bool_))
    both, either = (twice & large.bitmap()).sum(), (twice | large.bitmap()).sum()
    assert 0.98 < both / either < 1


def test_three_hundred_masks_of_a_large_photograph_would_take_little_memory() -> None:
    """Ultralytics holds 3.6 GB. These are as large as the image, and have more runs than any real ones."""
    size_wh = (4000, 3000)
    maker = MaskMaker(cloudy(120, 160, 6), size_wh, size_wh)
    box = np.array([0, 0, *size_wh], np.float32)
    coefficients = torch.randn(30, PROTOTYPES).numpy()
    tracemalloc.start()
    try:
        masks = [maker.make(row, box) for row in coefficients]
        held_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert min(mask.area_px for mask in masks) > 1_000_000
    assert min(len(mask.runs) for mask in masks) > 20_000
    assert 10 * held_bytes < 100e6
    assert peak_bytes - held_bytes < 100e6
