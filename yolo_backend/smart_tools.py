"""Label Studio's smart tools: of what is found in an image, the box that a person's drawn rectangle means."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from yolo_backend.protocol import Prediction, Task, task_id_of
from yolo_backend.regions import Region

MEANT_IOU = 0.5
"""A box that overlaps the drawn rectangle by so much is what was meant."""
THERE_IOU = 0.7
"""Two boxes of a label that overlap by more are the same one."""

_MAX_DRAWN = 100
_MAX_NUMBER = 1000.0
_MAX_SIDE = 1_000_000
_DIGITS = 6  # of an overlap: what is beyond is rounding
_Place = tuple[float, float, float, float, float]
_Point = tuple[float, float]


@dataclass(frozen=True)
class LabelledBox:
    """A rectangle with a label: one that a person drew, has already, or may get.

    `control` is from_name, to_name and the page of a `valueList`. `place` is x, y, width, height in percent of the
    image, and the degrees that it is turned clockwise around its top left corner. `size_wh` is the image's, in pixels.
    """

    id: str | None
    control: tuple[str, str, int]
    labels: frozenset[str]
    place: _Place
    size_wh: tuple[int, int] | None

    def overlap(self, other: LabelledBox) -> float:
        """Intersection over union in pixels; 0 with a box of another control, image or label."""
        if self.control != other.control or not self.labels & other.labels:
            return 0.0
        return round(_iou(self.place, other.place, self.size_wh or other.size_wh or (100, 100)), _DIGITS)


def drawn_boxes(context: Mapping[str, Any]) -> list[LabelledBox]:
    """What was drawn, the newest last; what is no rectangle with a label is left out."""
    return _boxes(_regions(context))[-_MAX_DRAWN:]


def meant_boxes(drawn: Sequence[LabelledBox], task: Task, prediction: Prediction) -> Prediction | None:
    """Of a task's prediction the boxes that were meant, one for each drawn rectangle at most; None without any.

    Meant is the box of the drawn label that overlaps most, by `MEANT_IOU` at least, and isn't there yet: not the same,
    by `THERE_IOU`, as one of the task's drafts and annotations, or of this answer. Where it is there, only the newest
    rectangle gets the next best: the older ones, which the page sends along, have got theirs.
    """
    offered = [(box, region) for region in _regions(prediction) for box in _boxes([region])]
    drawn_ids = {box.id for box in drawn}
    regions_there = _regions_there(task)
    # A draft may hold the drawn rectangle itself.
    there = [box for box in _boxes(regions_there) if box.id is None or box.id not in drawn_ids]
    pairs = [
        (box.overlap(wanted), _score(region), number, index)
        for number, wanted in enumerate(drawn)
        for index, (box, region) in enumerate(offered)
    ]
    chosen: dict[int, int] = {}
    satisfied: set[int] = set()
    for overlap, _, number, index in sorted(pairs, reverse=True):
        if overlap < MEANT_IOU:
            break
        if number in satisfied:
            continue
        box = offered[index][0]
        if any(box.overlap(other) > THERE_IOU for other in there):
            if number < len(drawn) - 1:
                satisfied.add(number)
        else:
            chosen[number] = index
            satisfied.add(number)
            there.append(box)
    if not chosen:
        return None
    used_ids = {str(region.get("id")) for region in regions_there} | {str(id_) for id_ in drawn_ids}
    regions: list[Region] = []
    for _, index in sorted(chosen.items()):
        box, region = offered[index]
        id_ = _id_for_page(box, task, used_ids)
        used_ids.add(id_)
        # A region may have several parts, told by their id: a rectangle and its labels, say.
        parts = [each for each in _regions(prediction) if box.id is not None and each.get("id") == box.id]
        regions += [{**part, "id": id_} for part in parts or [region]]
    scores = [_score(offered[index][1]) for index in chosen.values()]
    return {**prediction, "result": regions, "score": sum(scores) / len(scores)}


def _id_for_page(box: LabelledBox, task: Task, used_ids: set[str]) -> str:
    """The same id whenever this box is asked for: then the page has it once, however often it comes.

    The page saves a draft seconds after a change, so what was accepted a moment ago isn't in the request. A region that
    it has under the same id it replaces. What it made of a prediction has that one's ids. An id that is used in the
    draft is another box's by now, which would be replaced.
    """
    for known in _boxes(region for result in _results(task, "predictions") for region in _regions(result)):
        if known.id is not None and known.id not in used_ids and known.overlap(box) > THERE_IOU:
            return known.id
    ingredients = [task_id_of(task), *box.control, sorted(box.labels), [round(number, 2) for number in box.place]]
    id_ = blake3(json.dumps(ingredients).encode()).hexdigest(5)
    return os.urandom(5).hex() if id_ in used_ids else id_


def _regions_there(task: Task) -> list[Mapping[str, Any]]:
    """All regions of the task's drafts and annotations; a draft stands for the annotation that it changes."""
    drafts = _results(task, "drafts")
    changed = [draft.get("annotation") for draft in drafts]
    kept = [each for each in _results(task, "annotations") if each.get("id") is None or each["id"] not in changed]
    return [region for result in [*drafts, *kept] for region in _regions(result)]


def _results(task: Task, part: str) -> list[Mapping[str, Any]]:
    return _mappings(task.get(part))


def _regions(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _mappings(result.get("result"))


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _boxes(regions: Iterable[Mapping[str, Any]]) -> list[LabelledBox]:
    return [box for region in regions if (box := _read(region)) is not None]


def _read(region: Mapping[str, Any]) -> LabelledBox | None:
    """A region, or None where it is no rectangle with a label, or malformed."""
    value, kind, item_index = region.get("value"), region.get("type"), region.get("item_index")
    from_name, to_name, id_ = region.get("from_name"), region.get("to_name"), region.get("id")
    if not isinstance(value, Mapping) or not isinstance(kind, str):
        return None
    labels, place = value.get(kind), _place(value)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels) or place is None:
        return None
    if not isinstance(from_name, str) or not isinstance(to_name, str):
        return None
    if item_index is not None and type(item_index) is not int:
        return None
    return LabelledBox(
        id=id_ if isinstance(id_, str) else None,
        control=(from_name, to_name, item_index or 0),
        labels=frozenset(labels),
        place=place,
        size_wh=_size(region),
    )


def _place(value: Mapping[str, Any]) -> _Place | None:
    numbers: list[Any] = [value.get(key) for key in ("x", "y", "width", "height")]
    numbers.append(value.get("rotation") or 0)
    if not all(_is_number(number) for number in numbers):
        return None
    x, y, width, height, rotation = numbers
    return (x, y, width, height, rotation) if width > 0 and height > 0 else None


def _is_number(value: Any) -> bool:
    """Is it a number as places and scores have them, and neither NaN nor boundless?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER


def _size(region: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = region.get("original_width"), region.get("original_height")
    if type(width) is not int or type(height) is not int:
        return None
    return (width, height) if 0 < width < _MAX_SIDE and 0 < height < _MAX_SIDE else None


def _score(region: Mapping[str, Any]) -> float:
    score: Any = region.get("score")
    return float(score) if _is_number(score) else 0.0


def _iou(one: _Place, other: _Place, size_wh: tuple[int, int]) -> float:
    first, second = _corners(one, size_wh), _corners(other, size_wh)
    shared = _area(_clipped(first, second))
    return shared / max(_area(first) + _area(second) - shared, 1e-9)


def _corners(place: _Place, size_wh: tuple[int, int]) -> list[_Point]:
    """The corners in pixels, clockwise; the first is the one that the rectangle is turned around."""
    x, y, width, height = (percent * size / 100 for percent, size in zip(place[:4], size_wh * 2, strict=True))
    cos, sin = math.cos(math.radians(place[4])), math.sin(math.radians(place[4]))
    sides = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return [(x + along * cos - down * sin, y + along * sin + down * cos) for along, down in sides]


def _clipped(corners: list[_Point], by: list[_Point]) -> list[_Point]:
    """What one convex polygon has in common with another, cut along each of the other's sides.

    OpenCV has two functions for it, which say 0 or a third for some pairs that are nearly the same.
    """
    for (x1, y1), (x2, y2) in zip(by, by[1:] + by[:1], strict=True):
        depths = [(x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in corners]  # inside is positive
        kept: list[_Point] = []
        for index, ((x, y), depth) in enumerate(zip(corners, depths, strict=True)):
            (last_x, last_y), last_depth = corners[index - 1], depths[index - 1]
            if (depth < 0) != (last_depth < 0):
                part = last_depth / (last_depth - depth)
                kept.append((last_x + part * (x - last_x), last_y + part * (y - last_y)))
            if depth >= 0:
                kept.append((x, y))
        corners = kept
    return corners


def _area(corners: list[_Point]) -> float:
    return abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True))) / 2
