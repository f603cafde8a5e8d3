"""A mask's outline as polygons: exact along its pixels' sides, or with as few points as it takes; and the way back.

Points are (n, 2) of x and y in the image's pixels, whose corners have whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_backend.detection.masks import Mask

Points = NDArray[np.float64]
_Whole = NDArray[np.int64]

MIN_IOU = 0.98
"""A simplified outline has so much in common with what it is of."""

_TRIES = 10  # of tolerances; more change a point or two
_FIRST_SHARE = 0.05  # the first tolerance, in areas by circumferences: often near to what `MIN_IOU` allows
_AIM = 0.97  # of what may be lost, because less than all of it is most probably not too much
_SAME_PX = 1e-9
_ROUNDING_PX = 1e-3
_MAX_NESTED = 8  # parts in holes of parts in holes ...: deeper ones are left out
_PAIRS_AT_ONCE = 250_000  # of sides that are compared: some ten megabytes

# A pixel's corners, in the order in which an outline passes them: the thing is on its left. OpenCV's outlines go from
# pixel to pixel, with the same on their left. By the step (dx + 1 + 3 * (dy + 1)) into a pixel, and by that out of it,
# these are the numbers of the corners where the outline along the pixels' sides comes to the pixel and leaves it.
_CORNERS = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
_COMES = np.array([2, 2, 1, 3, 0, 1, 3, 0, 0])
_LEAVES = np.array([0, 3, 3, 0, 0, 2, 1, 1, 2])
_HAS_DIAGONAL = np.array([True, False, True, False, False, False, True, False, True])


def outlines_of(mask: Mask) -> list[Points]:
    """The exact outline of each part of the mask, the largest first; a hole within a part is no outline.

    Parts that touch at corners only are two, so no outline touches itself.
    """
    left, top, width, _ = mask.window_xywh
    if not mask.area_px:
        return []
    contours, _ = cv2.findContours(mask.bitmap().view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    loops = [loop for contour in contours for loop in _apart(_along_sides(contour[:, 0].astype(np.int64)), width + 1)]
    outlines = [_without_straights(loop + np.array([left, top])).astype(np.float64) for loop in loops]
    return sorted(outlines, key=area_of, reverse=True)


def nested_outlines_of(mask: Mask) -> list[Points]:
    """The exact outlines of the mask's parts, of the holes in them, and of the parts in these: `filled` makes the mask
    of them again.
    """
    outlines: list[Points] = []
    for _ in range(_MAX_NESTED):
        parts = outlines_of(mask)
        if not parts:
            break
        outlines += parts
        # What is within the parts, and isn't in the mask.
        left, top, width, height = mask.window_xywh
        within = filled([part - (left, top) for part in parts], (width, height))
        holes = np.zeros((height, width), np.bool_)
        x, y, _, _ = within.window_xywh
        bitmap = within.bitmap()
        place = (slice(y, y + len(bitmap)), slice(x, x + bitmap.shape[1]))
        holes[place] = bitmap & ~mask.bitmap()[place]
        mask = Mask.of_bitmap(holes, (left, top))
    return outlines


def smoothed(outline: Points, tolerance_px: float) -> Points:
    """An exact outline through the middles of its pixels' sides, with as few points as keep it within so many pixels.

    So the steps of a line that isn't upright are straight again. The outline itself, if hardly anything would be left.
    """
    ends = _following(outline)
    counts = np.abs(ends - outline).sum(axis=1).astype(np.int64)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    middles = outline.repeat(counts, axis=0) + np.sign(ends - outline).repeat(counts, axis=0) * (number + 0.5)[:, None]
    kept = _within(middles, tolerance_px)
    return kept if len(kept) >= 3 else outline


def area_of(points: Points) -> float:
    """The area within these points, in pixels."""
    (x, y), (next_x, next_y) = points.T, _following(points).T
    return float(abs(np.dot(x, next_y) - np.dot(y, next_x))) / 2


def simplified(outline: Points) -> Points:
    """The outline with as few of its points as keep an IoU of `MIN_IOU` with it, and never crossing itself."""
    filled = _Filled(outline)
    fit = [outline]
    enough, too_much, fewest = 0.0, np.inf, 3
    tolerance = _FIRST_SHARE * area_of(outline) / float(np.hypot(*(_following(outline) - outline).T).sum())
    for _ in range(_TRIES):
        tried = _within(outline, tolerance)
        lost = 1 - filled.iou(tried) if len(tried) >= 3 else 1.0
        if lost <= 1 - MIN_IOU:
            fit.append(tried)
            enough = tolerance
        else:
            fewest, too_much = max(len(tried), 3), tolerance
        if len(fit[-1]) - fewest <= 1:
            break
        # What is lost grows as the tolerance does, more or less.
        guess = tolerance * (_AIM * (1 - MIN_IOU) / lost if lost else 2.0)
        tolerance = guess if enough < guess < too_much else min((enough + too_much) / 2, 2 * tolerance)
    # The exact outline is the first of them, and doesn't cross itself.
    return next((tried for tried in reversed(fit[1:]) if is_simple(tried)), outline)


def within_tolerance(outline: Points, tolerance_px: float) -> Points:
    """The outline with as few of its points as keep it within so many pixels of all others, and never crossing itself.

    Where it would cross itself, or OpenCV goes further than it should, as it does now and then, half of the tolerance
    is tried.
    """
    asked_px = tolerance_px
    while asked_px > _SAME_PX:
        tried = _within(outline, asked_px)
        if len(tried) >= 3 and _furthest(outline, tried) <= tolerance_px + _ROUNDING_PX and is_simple(tried):
            return tried
        asked_px = asked_px / 2 if asked_px > 0.1 else 0
    return outline


def _furthest(outline: Points, kept: Points) -> float:
    """How far the points of an outline are at most from the sides that replace them; `kept` are some of them."""
    outline = outline.astype(np.float32).astype(np.float64)  # as OpenCV was given them
    numbers: list[int] = []
    begin = int(np.flatnonzero((outline == kept[0]).all(axis=1))[0])
    turned = np.roll(outline, -begin, axis=0)
    for point in kept:
        after = numbers[-1] + 1 if numbers else 0
        numbers.append(after + int(np.flatnonzero((turned[after:] == point).all(axis=1))[0]))
    side = np.repeat(np.arange(len(kept)), np.diff([*numbers, len(turned)]))
    starts, along = kept[side], (_following(kept) - kept)[side]
    lengths = np.maximum((along**2).sum(axis=1), _SAME_PX)
    shares = (((turned - starts) * along).sum(axis=1) / lengths).clip(0, 1)
    return float(np.hypot(*(turned - starts - along * shares[:, None]).T).max())


def is_simple(points: Points) -> bool:
    """Returns True if no two sides of this polygon have a point in common, but for the corner of neighbours."""
    if _turns_back(points):
        return False
    count, ends = len(points), _following(points)
    low, high = np.minimum(points, ends), np.maximum(points, ends)
    rows = max(1, _PAIRS_AT_ONCE // count)
    for begin in range(0, count, rows):
        block = slice(begin, begin + rows)  # each of these sides with itself and all after it
        overlap = np.logical_and.reduce(
            [
                (low[block, None, axis] <= high[begin:, axis]) & (high[block, None, axis] >= low[begin:, axis])
                for axis in (0, 1)
            ]
        )
        one, other = np.nonzero(np.triu(overlap, 2))
        are_neighbours = other - one == count - 1
        one, other = one[~are_neighbours] + begin, other[~are_neighbours] + begin
        if (_parts(points, ends, one, other) & _parts(points, ends, other, one)).any():
            return False
    return True


def mask_of(points: Points, size_wh: tuple[int, int]) -> Mask:
    """The mask of the pixels of an image whose middle is within this polygon."""
    return filled([points], size_wh)


def filled(outlines: Sequence[Points], size_wh: tuple[int, int]) -> Mask:
    """The mask of the pixels of an image whose middle is within an odd number of these polygons, one at least.

    So one within another is a hole.
    """
    points = np.concatenate(outlines)
    low = np.floor(points.min(axis=0)).clip(0, size_wh).astype(int)
    high = np.ceil(points.max(axis=0)).clip(0, size_wh).astype(int)
    window_width, window_height = (high - low).tolist()
    of_each = [_borders(outline - low, window_width, window_height) for outline in outlines]
    borders = of_each[0] if len(of_each) == 1 else np.sort(np.concatenate(of_each))
    runs = np.diff(np.concatenate([[0], borders, [window_width * window_height]]))
    return Mask((int(low[0]), int(low[1]), window_width, window_height), runs.astype(np.uint32))


def _along_sides(pixels: _Whole) -> _Whole:
    """The outline along the sides of pixels, of OpenCV's outline through them."""
    if len(pixels) == 1:
        around: _Whole = pixels + _CORNERS
        return around
    steps = _following(pixels) - pixels
    out = steps[:, 0] + 1 + 3 * (steps[:, 1] + 1)
    into = np.roll(out, 1)
    passed = (_LEAVES[out] - _COMES[into]) % 4
    passed[(into + out == 8) & _HAS_DIAGONAL[out]] = 4  # all around a pixel that hangs on a corner
    of_pixel = np.repeat(np.arange(len(pixels)), passed)
    number = np.arange(len(of_pixel)) - np.repeat(np.cumsum(passed) - passed, passed)
    sides: _Whole = pixels[of_pixel] + _CORNERS[(_COMES[into][of_pixel] + number) % 4]
    return sides


def _apart(loop: _Whole, stride: int) -> list[_Whole]:
    """A loop as several, each of which passes every point once."""
    places = loop[:, 1] * stride + loop[:, 0]
    if len(np.unique(places)) == len(places):
        return [loop]
    loops: list[_Whole] = []
    path: list[int] = []
    passed: dict[int, int] = {}
    for index, place in enumerate(places.tolist()):
        if place in passed:
            begin = passed[place]
            loops.append(loop[path[begin:]])
            for other in path[begin:]:
                del passed[int(places[other])]
            del path[begin:]
        passed[place] = len(path)
        path.append(index)
    return [*loops, loop[path]]


def _without_straights(loop: _Whole) -> _Whole:
    """The points where the outline turns."""
    along = _following(loop) - loop
    after = _following(along)
    turning: _Whole = _following(loop)[along[:, 0] * after[:, 1] != along[:, 1] * after[:, 0]]
    return turning


def _following(rows: NDArray[Any]) -> NDArray[Any]:
    """Of each row the next one; of the last the first."""
    following: NDArray[Any] = np.concatenate([rows[1:], rows[:1]])
    return following


def _within(outline: Points, tolerance_px: float) -> Points:
    kept: Points = cv2.approxPolyDP(outline.astype(np.float32)[:, None], tolerance_px, True)[:, 0].astype(np.float64)
    return kept


def _parts(points: Points, ends: Points, sides: _Whole, others: _Whole) -> NDArray[np.bool_]:
    """Whether the ends of each of the others are on different sides of a side's line, or one of them is on it."""
    begins = _turn(points[sides], ends[sides], points[others])
    finishes = _turn(points[sides], ends[sides], ends[others])
    parted: NDArray[np.bool_] = np.sign(begins) * np.sign(finishes) <= 0
    return parted


def _turn(begin: Points, end: Points, point: Points) -> NDArray[np.float64]:
    """Above 0 where a point is on one side of a line, below 0 on the other, 0 on it."""
    (along_x, along_y), (x, y) = (end - begin).T, (point - begin).T
    turn: NDArray[np.float64] = along_x * y - along_y * x
    return turn


def _turns_back(points: Points) -> bool:
    """Returns True if a side lies on the one before it."""
    along = _following(points) - points
    after = _following(along)
    crosses = along[:, 0] * after[:, 1] - along[:, 1] * after[:, 0]
    return bool(((np.abs(crosses) <= _SAME_PX) & ((along * after).sum(axis=1) <= 0)).any())


def _borders(points: Points, width: int, height: int) -> _Whole:
    """Where the rows of a picture enter and leave a polygon by turns, as numbers of pixels of the picture."""
    x, y = np.concatenate([points, points[:1]]).T
    turns = np.ceil(y - 0.5).clip(0, height).astype(np.int64)  # a row of pixels is cut along its middle
    counts = np.abs(turns[1:] - turns[:-1])
    slopes = np.divide(x[1:] - x[:-1], y[1:] - y[:-1], out=np.zeros(len(points)), where=counts > 0)
    starts = np.cumsum(counts) - counts
    rows = np.arange(counts.sum()) + np.repeat(np.minimum(turns[1:], turns[:-1]) - starts, counts)
    at_row_0 = x[:-1] - 0.5 + (0.5 - y[:-1]) * slopes
    # Rounding may not decide about a pixel whose middle is on the line: it differs with the picture's place.
    columns = np.ceil(np.repeat(at_row_0, counts) + rows * np.repeat(slopes, counts) - _SAME_PX)
    borders: _Whole = np.sort(rows * width + columns.clip(0, width).astype(np.int64))
    return borders


class _Filled:
    """The pixels within an outline, to be compared with those within others."""

    def __init__(self, outline: Points) -> None:
        self._low = outline.min(axis=0)
        self._size_wh = tuple(np.ptp(outline, axis=0).astype(int).tolist())
        self._borders = self._borders_of(outline)
        lengths = np.diff(self._borders)
        lengths[1::2] = 0
        self._before = np.concatenate([[0], np.cumsum(lengths)])
        self._area = int(self._before[-1])

    def iou(self, points: Points) -> float:
        """Intersection over union with another polygon within the same hull."""
        borders = self._borders_of(points)
        place = np.searchsorted(self._borders, borders, side="right")
        within = np.where(place % 2 == 1, borders - self._borders[place - 1], 0) + self._before[(place - 1).clip(min=0)]
        shared = int(within[1::2].sum() - within[::2].sum())
        area = int(borders[1::2].sum() - borders[::2].sum())
        return shared / max(self._area + area - shared, 1)

    def _borders_of(self, points: Points) -> _Whole:
        return _borders(points - self._low, *self._size_wh)
