"""From a model's mask prototypes to the pixels of the image: the same pixels as `process_mask_native` of Ultralytics.

Ultralytics makes a bitmap of the whole image for each mask. Here a mask is made within its box, and no bitmap of it:
between two of a prototype's cells its value goes in a straight line, so where the mask begins and ends is calculated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from yolo_backend.detection.masks import Mask

_INPUT_PX_PER_CELL = 4  # of a prototype

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Axis:
    """Where the image's pixels lie in the enlarged prototypes, along one axis.

    A pixel's value is `1 - weight` times that of the cell `low`, and `weight` times that of the cell `high`.
    """

    low: Ints
    high: Ints
    weight: Floats

    @classmethod
    def of(cls, first: int, count: int, pixels: int) -> _Axis:
        """So many pixels over `count` cells from the `first` on, as torch places them."""
        scale = np.float32(count) / np.float32(pixels)
        places = np.maximum(scale * (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
        low = np.minimum(places.astype(np.int64), count - 1)
        weight = np.clip(places - low.astype(np.float32), 0, 1).astype(np.float32)
        return cls(first + low, first + np.minimum(low + 1, count - 1), weight)

    def window(self, start: float, end: float) -> tuple[int, int]:
        """The first pixel from `start` on, and the first from `end` on; there is none between what is no number."""
        if math.isnan(start) or math.isnan(end):
            return 0, 0
        begins, ends = (math.ceil(min(max(side, 0), len(self.low))) for side in (start, end))
        return begins, max(begins, ends)

    def part(self, begins: int, ends: int) -> _Axis:
        """Of these pixels only."""
        return _Axis(self.low[begins:ends], self.high[begins:ends], self.weight[begins:ends])


class MaskMaker:
    """Makes masks of one image, one at a time.

    `prototypes` (count, height, width) may lie on a GPU. The image had `decoded_size_wh` when it was letterboxed; masks
    are made in pixels of its `size_wh`.
    """

    def __init__(self, prototypes: torch.Tensor, decoded_size_wh: tuple[int, int], size_wh: tuple[int, int]) -> None:
        self._prototypes = prototypes
        cells_wh = (prototypes.shape[2], prototypes.shape[1])
        # Ultralytics enlarges the prototypes by 1, 2 or 4, so that the letterbox's padding ends between two cells.
        large_wh = [_INPUT_PX_PER_CELL * cells for cells in cells_wh]
        content_wh = _content(large_wh, decoded_size_wh)
        padding = (large_wh[0] - content_wh[0]) | (large_wh[1] - content_wh[1])
        self._factor = _INPUT_PX_PER_CELL // math.gcd(_INPUT_PX_PER_CELL, padding | padding // 2)
        large_wh = [self._factor * cells for cells in cells_wh]
        content_wh = _content(large_wh, decoded_size_wh)
        self._columns, self._rows = (
            _Axis.of(round((large - content) / 2 - 0.1), content, pixels)
            for large, content, pixels in zip(large_wh, content_wh, size_wh, strict=True)
        )

    def make(self, coefficients: Floats, box_xyxy: Floats) -> Mask:
        """The mask of a box, in the image's pixels, from how much of each prototype is in it. It may be empty."""
        x1, y1, x2, y2 = box_xyxy.tolist()
        left, right = self._columns.window(x1, x2)
        top, bottom = self._rows.window(y1, y2)
        window = (left, top, right - left, bottom - top)
        if right == left or bottom == top:
            return Mask(window, np.zeros(1, np.uint32))
        columns, rows = self._columns.part(left, right), self._rows.part(top, bottom)
        first_column, first_row = int(columns.low[0]), int(rows.low[0])
        cells = self._enlarged(coefficients, (first_row, int(rows.high[-1])), (first_column, int(columns.high[-1])))
        weight = rows.weight[:, None]
        with np.errstate(invalid="ignore", over="ignore"):  # NaN of a broken model is outside
            values = cells[rows.low - first_row] * (1 - weight) + cells[rows.high - first_row] * weight
            return Mask(window, _runs(values, columns, first_column))

    def _enlarged(self, coefficients: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> Floats:
        """The mask's values in cells of the enlarged prototypes, from the first to the last of these."""
        factor = self._factor
        # A cell's value depends on the prototypes' cells beside it.
        (top, bottom), (left, right) = (
            (max(start // factor - 1, 0), min(end // factor + 2, count))
            for (start, end), count in zip((rows, columns), self._prototypes.shape[1:], strict=True)
        )
        part = self._prototypes[:, top:bottom, left:right].float()
        of_prototypes = torch.from_numpy(coefficients).to(part.device)
        values = (of_prototypes @ part.reshape(len(part), -1)).view(1, 1, *part.shape[1:]).cpu()
        if factor > 1:
            values = functional.interpolate(values, scale_factor=factor, mode="bilinear")
        enlarged: Floats = values[0, 0].numpy()
        return enlarged[
            rows[0] - top * factor : rows[1] + 1 - top * factor,
            columns[0] - left * factor : columns[1] + 1 - left * factor,
        ]


def _content(large_wh: list[int], size_wh: tuple[int, int]) -> tuple[int, int]:
    """How much of the letterbox the image takes, without padding."""
    gain = min(large / size for large, size in zip(large_wh, size_wh, strict=True))
    width, height = (max(round(size * gain), 1) for size in size_wh)
    return width, height


def _runs(values: Floats, columns: _Axis, first: int) -> NDArray[np.uint32]:
    """The runs of pixels above 0.

    `values` has a row for each row of pixels, and a column for each cell from the `first` on.
    """
    height, width = len(values), len(columns.low)
    inside = values > 0
    # Within a row the sign changes between two cells: at the first pixel on the other side of 0.
    row, cell = np.nonzero(inside[:, 1:] != inside[:, :-1])
    before, after = values[row, cell], values[row, cell + 1]
    low = columns.low - first
    begins, ends = np.searchsorted(low, cell), np.searchsorted(low, cell + 1)
    share = np.nan_to_num(before / (before - after))
    column = np.searchsorted(low + columns.weight.astype(np.float64), cell + share.astype(np.float64))
    column = np.clip(column, begins, ends)

    def is_beyond(pixel: Ints) -> NDArray[np.bool_]:
        weight = columns.weight[np.clip(pixel, 0, width - 1)]
        beyond: NDArray[np.bool_] = (before * (1 - weight) + after * weight > 0) == inside[row, cell + 1]
        return beyond

    # The share is rounded, so the pixels beside it have the last word.
    column -= is_beyond(column - 1) & (column > begins)
    column += ~is_beyond(column) & (column < ends)
    # A row begins with the sign of its first cell, whatever the row before ended with.
    turns = np.flatnonzero(np.concatenate([inside[:1, 0], inside[1:, 0] != inside[:-1, -1]])) * width
    places, counts = np.unique(np.concatenate([row * width + column, turns]), return_counts=True)
    places = places[(counts % 2 == 1) & (places < height * width)]
    return np.diff(np.concatenate([[0], places, [height * width]])).astype(np.uint32)
