"""Which pixels of an image belong to a thing, as runs within a window: as small as an outline, exact as a bitmap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Mask:
    """The pixels of one thing in an image.

    `window_xywh` is the part of the image outside of which it has none, in pixels. `runs` are the lengths of its runs,
    row by row through the window, and by turns: of pixels outside, inside, outside and so on. Their sum is the window's
    area. `polygons` are there if it was drawn as these: each (n, 2) of x and y in the image's pixels.
    """

    window_xywh: tuple[int, int, int, int]
    runs: NDArray[np.uint32]
    polygons: tuple[NDArray[np.float32], ...] = ()

    @classmethod
    def of_bitmap(cls, bitmap: NDArray[np.bool_], offset_xy: tuple[int, int] = (0, 0)) -> Mask:
        """The mask of a bitmap (height, width) whose top left pixel is at this place of the image."""
        flat = bitmap.ravel()
        borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        starts_inside = [0] if flat.size and flat[0] else []
        runs = np.diff(np.concatenate([[0], starts_inside, borders, [flat.size]])).astype(np.uint32)
        height, width = bitmap.shape
        return cls((*offset_xy, width, height), runs)

    def bitmap(self) -> NDArray[np.bool_]:
        """Its pixels within the window: (height, width)."""
        _, _, width, height = self.window_xywh
        inside = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(inside, self.runs).reshape(height, width)

    @property
    def area_px(self) -> int:
        """How many pixels it has."""
        return int(self.runs[1::2].sum())

    @property
    def nbytes(self) -> int:
        """How much memory its numbers take."""
        return self.runs.nbytes + sum(polygon.nbytes for polygon in self.polygons)

    def spans(self, size_wh: tuple[int, int]) -> tuple[Places, Places]:
        """Where its runs begin, and where they end, in an image of this size: numbers of pixels, row by row.

        They are in order, no two touch, and what is beyond the image's edges is left out.
        """
        left, top, width, _ = self.window_xywh
        image_width, image_height = size_wh
        edges = np.cumsum(self.runs, dtype=np.int64)
        starts, ends = edges[: len(edges) // 2 * 2 : 2], edges[1::2]
        if left or width != image_width:  # a run through several rows of the window is one in each of the image's
            rows_of_each = (ends - 1) // width - starts // width + 1
            firsts = np.repeat(np.cumsum(rows_of_each) - rows_of_each, rows_of_each)
            rows = np.repeat(starts // width, rows_of_each) + np.arange(len(firsts)) - firsts
            columns = np.stack([np.repeat(starts, rows_of_each), np.repeat(ends, rows_of_each)]) - rows * width
            columns = (columns.clip(0, width) + left).clip(0, image_width)
            starts, ends = (rows + top) * image_width + columns
        else:
            starts, ends = starts + top * image_width, ends + top * image_width
        pixels = image_width * image_height
        starts, ends = starts.clip(0, pixels), ends.clip(0, pixels)
        is_there = ends > starts
        starts, ends = starts[is_there], ends[is_there]
        is_first, is_last = np.ones((2, len(starts)), bool)
        is_first[1:] = is_last[:-1] = starts[1:] > ends[:-1]
        return starts[is_first], ends[is_last]

    def moved(self, offset_xy: tuple[int, int]) -> Mask:
        """The same, so many pixels further right and down."""
        left, top, width, height = self.window_xywh
        moved = tuple(polygon + np.array(offset_xy, np.float32) for polygon in self.polygons)
        return replace(self, window_xywh=(left + offset_xy[0], top + offset_xy[1], width, height), polygons=moved)
