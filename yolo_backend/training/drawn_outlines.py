"""Polygons and masks that people drew, as closed lines in pixels of the upright image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from yolo_backend.detection.masks import Mask
from yolo_backend.labels.control import Control
from yolo_backend.labels.outlines import Points, area_of, nested_outlines_of, smoothed
from yolo_backend.labels.places import clip_to_image
from yolo_backend.labels.regions import region_labels
from yolo_backend.labels.rle import decode_rle

# Why a mask can't be read. Numbers would make a reason of each mask, where reasons are counted.
NO_SIZE = "it doesn't say of which size its image is"
TOO_LARGE = "it says that its image has more than 300 megapixels"
TOO_MANY_SPECKS = "it has more specks than anybody paints"
BROKEN_RLE = "its RLE is damaged, or is of another size than its image"

Region = Mapping[str, Any]
Line = tuple[tuple[float, float], ...]
"""A closed line through these points."""

_TOLERANCE_PX = 0.5
_TOLERANCE_SHARE = 1 / 2000  # of the longer side: what a model sees of a large image is much smaller
_SPECK_SHARE = 0.002  # of a mask's largest part: a smaller part or hole is a slip of the brush
_MOST_LINES = 500
_MAX_COMPARED = 500  # points of a line
_NO_AREA = 1e-6  # of a line, or of what only touches the edge, except for rounding
_MAX_PX = 300_000_000  # of a mask, which may say that it is of any size
_MAX_RLE_BYTES = 600_000  # noise, which would take minutes; a large mask with many parts has a tenth of it
_SHAPE_TYPES = ("polygon", "brush")


class UnreadableMaskError(ValueError):
    """A brush's mask that can't be decoded; the text is the reason, one of those above."""


def is_outlined(region: Region) -> bool:
    """Returns True if the region is a polygon or a mask; `<Labels>` may name other shapes, too."""
    value, type_ = region.get("value"), region.get("type")
    if not isinstance(value, Mapping):
        return False
    of_shape = {name for shape in _SHAPE_TYPES for name in (shape, f"{shape}labels")}
    return type_ in of_shape or (type_ == "labels" and not {"points", "rle"}.isdisjoint(value))


def with_parts(regions: Sequence[tuple[Region, Control]]) -> list[tuple[list[Region], Control]]:
    """Each region, with those that are further parts of the same thing, and its control.

    With model_parts="all" a mask of several parts is predicted as a polygon for each, and the first one is the parent
    of the others.
    """
    of_id = {region.get("id"): region for region, _ in reversed(regions)}

    def first_of(region: Region, control: Control) -> Region | None:
        parent_id = region.get("parentID")
        parent = of_id.get(parent_id) if parent_id else None  # else it would be another one without an id
        is_part = getattr(control, "all_parts", False) and parent is not None and _is_same_thing(parent, region)
        return parent if is_part else None

    things: dict[int, tuple[list[Region], Control]] = {}
    for region, control in regions:
        if first_of(region, control) is None:
            things[id(region)] = ([region], control)
    for region, control in regions:
        if (first := first_of(region, control)) is not None:
            parts, _ = things.setdefault(id(first), ([], control))
            parts.append(region)
    return list(things.values())


def _is_same_thing(first: Region, other: Region) -> bool:
    return region_labels(first) == region_labels(other) and first.get("from_name") == other.get("from_name")


def outlines_of_region(region: Region, size_wh: tuple[int, int]) -> list[Line] | None:
    """The lines of a polygon, clipped to the image, or of a mask: of its parts, and of the holes in them.

    There are none of one outside of the image. None is one without an area. Raises UnreadableMaskError.
    """
    value = region["value"]
    if "rle" in value:
        return [_as_line(line) for line in _lines_of_mask(region, size_wh)] or None
    points = _points_of(value.get("points"))
    if points is None or _area_around(points) < _NO_AREA:
        return None
    clipped = clip_to_image([(x, y) for x, y in (points / 100 * size_wh).tolist()], size_wh)
    return [tuple(clipped)] if len(clipped) >= 3 and _area_around(np.array(clipped)) >= _NO_AREA else []


def area_around(lines: Sequence[Line]) -> float:
    """The area around these lines in pixels, as if none had a bay or lay within another."""
    return sum(_area_around(np.array(line)) for line in lines)


def hull_of(lines: Sequence[Line]) -> tuple[float, float, float, float]:
    """The upright box around all of these lines: xyxy."""
    xs, ys = zip(*(point for line in lines for point in line), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def one_line_through(lines: Sequence[Line]) -> Line:
    """One closed line within which are the same pixels as within all of these: it goes from one to the next, around
    that, and back on the same way. Ultralytics' labels have one line for each thing.
    """
    line = np.array(lines[0])
    for other in map(np.array, lines[1:]):
        # The way should be short, but needn't be the shortest: of very long lines not all points are compared.
        step, other_step = (1 + len(each) // _MAX_COMPARED for each in (line, other))
        distances = ((line[::step, None] - other[::other_step]) ** 2).sum(axis=-1)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        here, around = here * step, np.roll(other, -there * other_step, axis=0)
        line = np.concatenate([line[: here + 1], around, around[:1], line[here:]])
    return _as_line(line)


def _area_around(points: Points) -> float:
    """Of the hull, because the two halves of an 8 have none together."""
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))


def _points_of(said: Any) -> Points | None:
    """Points in percent of the image; None if it isn't three of them at least."""
    if not isinstance(said, list) or len(said) < 3:
        return None
    try:
        points = np.array(said, np.float64)
    except (TypeError, ValueError):
        return None
    return points if points.shape == (len(said), 2) and np.isfinite(points).all() else None


def _lines_of_mask(region: Region, size_wh: tuple[int, int]) -> Iterator[Points]:
    """Its outlines without specks, through the middles of the pixels' sides."""
    mask = _mask_of(region)
    own_wh = mask.window_xywh[2:]
    tolerance_px = max(_TOLERANCE_PX, max(own_wh) * _TOLERANCE_SHARE)
    # A hole is smaller than the part that it is in, so it goes first.
    lines = sorted(nested_outlines_of(_trimmed(mask)), key=area_of, reverse=True)
    for line in lines[:_MOST_LINES]:
        if area_of(line) >= _SPECK_SHARE * area_of(lines[0]):
            yield smoothed(line, tolerance_px) / own_wh * size_wh


def _mask_of(region: Region) -> Mask:
    width, height = region.get("original_width"), region.get("original_height")
    if not (type(width) is int and type(height) is int and width > 0 and height > 0):
        raise UnreadableMaskError(NO_SIZE)
    if width * height > _MAX_PX:
        raise UnreadableMaskError(TOO_LARGE)
    rle = region["value"]["rle"]
    if not isinstance(rle, list):
        raise UnreadableMaskError(BROKEN_RLE)
    if len(rle) > _MAX_RLE_BYTES:
        raise UnreadableMaskError(TOO_MANY_SPECKS)
    try:
        return decode_rle(rle, (width, height))
    except (TypeError, ValueError):
        raise UnreadableMaskError(BROKEN_RLE) from None


def _trimmed(mask: Mask) -> Mask:
    """The same in a window that holds only the rows and columns that have pixels."""
    if not mask.area_px:
        return mask
    _, _, width, height = mask.window_xywh
    edges = np.cumsum(mask.runs, dtype=np.int64)
    first_row, end_row = int(edges[0]) // width, -(-int(edges[1::2][-1]) // width)
    runs = mask.runs.copy()
    runs[0] -= first_row * width
    if len(runs) % 2:  # the last one is outside
        runs[-1] -= (height - end_row) * width
    bitmap = Mask((0, 0, width, end_row - first_row), runs).bitmap()
    columns = np.flatnonzero(bitmap.any(axis=0))
    first, end = int(columns[0]), int(columns[-1]) + 1
    return Mask.of_bitmap(bitmap[:, first:end], (first, first_row))


def _as_line(points: Points) -> Line:
    return tuple((x, y) for x, y in points.tolist())
