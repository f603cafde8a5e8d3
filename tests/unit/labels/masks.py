"""Masks for tests: any small bitmap, and shapes as things have them."""

from __future__ import annotations

import math

import cv2
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask

Bitmap = NDArray[np.bool_]


@st.composite
def bitmaps(draw: st.DrawFn, largest: int = 12) -> Bitmap:
    """Any bitmap (height, width) with a pixel at least."""
    shape = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    bitmap = draw(st_numpy.arrays(np.bool_, shape))
    bitmap[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    return bitmap


@st.composite
def blobs(draw: st.DrawFn) -> Bitmap:
    """A bitmap of one thing with bays and capes, as large as its picture."""
    width, height = draw(st.tuples(st.integers(12, 400), st.integers(12, 400)))
    waves = draw(st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(0, math.tau)), min_size=1, max_size=6))
    turns = np.linspace(0, math.tau, 300, endpoint=False)
    radius = 1 + sum(size * np.cos(number * turns + at) for number, (size, at) in enumerate(waves, 2))
    radius = np.clip(radius, 0.15, None) / np.max(radius) * 0.48
    points = np.stack([width * (0.5 + radius * np.cos(turns)), height * (0.5 + radius * np.sin(turns))], axis=1)
    picture = np.zeros((height, width), np.uint8)
    cv2.fillPoly(picture, [np.round(points).astype(np.int32)], 1)
    return picture.astype(np.bool_)


def size_wh_of(bitmap: Bitmap) -> tuple[int, int]:
    height, width = bitmap.shape
    return width, height


def in_image(mask: Mask, size_wh: tuple[int, int]) -> Bitmap:
    """The mask's pixels in all of the image: (height, width)."""
    left, top, width, height = mask.window_xywh
    image = np.zeros(size_wh[::-1], np.bool_)
    image[top : top + height, left : left + width] = mask.bitmap()
    return image


def without_holes(bitmap: Bitmap) -> Bitmap:
    """The same with all that it encloses."""
    padded = np.pad(bitmap, 1).astype(np.uint8)
    _, areas = cv2.connectedComponents(1 - padded, connectivity=4)
    filled: Bitmap = areas[1:-1, 1:-1] != areas[0, 0]
    return filled


def iou_of(one: Bitmap, other: Bitmap) -> float:
    return float((one & other).sum() / (one | other).sum())
