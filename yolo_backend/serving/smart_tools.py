"""Label Studio's smart tools: finds the predicted box that a person means by a drawn rectangle."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from yolo_backend.labels.polygons import Point, polygon_iou
from yolo_backend.protocol import Prediction, Region, Task, task_id_of

MEANT_IOU = 0.5
"""A box that overlaps the drawn rectangle by so much is what was meant."""
THERE_IOU = 0.7
"""Two boxes of a label that overlap by more are the same one."""

_MAX_REMEMBERED = 10_000
_MAX_READ = 1000
_MAX_DRAWN = 50
_MAX_ID = 100
_MAX_NUMBER = 1000.0
_MAX_SIDE = 1_000_000
_DIGITS = 6  # of an overlap; more would be rounding
_Place = tuple[float, float, float, float, float]


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


@dataclass(frozen=True)
class Click:
    """The rectangles that a smart tool drew, the newest last, and the boxes that are on the page, or were saved."""

    drawn: Sequence[LabelledBox]
    there: Sequence[LabelledBox]


class SmartTools:
    """Tells a smart tool's rectangles from the other boxes that come with them.

    The page sends all regions with the drawn one's label, in the order in which they were made, and doesn't say what
    drew them. But each drawn rectangle was the newest region once, and that is remembered.
    """

    def __init__(self) -> None:
        self._is_drawn: LRUCache[tuple[str, int | None, str], bool] = LRUCache(_MAX_REMEMBERED)
        self._lock = threading.Lock()

    def read(self, context: Mapping[str, Any], task: Task, project: str) -> Click | None:
        """A request's rectangles; None if nothing is drawn, for example because it was deleted.

        What is malformed, or no rectangle with a label, is left out.
        """
        regions = [(box, region) for region in _regions(context) for box in _boxes([region])][-_MAX_READ:]
        saved = _boxes(_regions_saved(task))
        saved_ids = {box.id for box in saved}
        known_ids = saved_ids | {box.id for box in _boxes(_regions_of(_mappings(task.get("predictions"))))}
        owner = (project, task_id_of(task))
        drawn: list[LabelledBox] = []
        there: list[LabelledBox] = []
        for number, (box, region) in enumerate(regions):
            has_score = _is_number(region.get("score"))  # which a model's boxes have
            if str(region.get("origin")).startswith("prediction"):
                is_drawn = False
            elif number == len(regions) - 1:
                is_drawn = not has_score or box.id not in known_ids
            else:
                is_drawn = not has_score and box.id not in saved_ids
            if box.id is not None:
                with self._lock:
                    is_drawn = self._is_drawn.setdefault((*owner, box.id), is_drawn)
            (drawn if is_drawn else there).append(box)
        if not drawn:
            return None
        # A draft may hold a drawn rectangle, even one that was deleted.
        with self._lock:
            there += [box for box in saved if not (box.id and self._is_drawn.get((*owner, box.id)))]
        return Click(drawn[-_MAX_DRAWN:], there)

    def gave(self, prediction: Prediction, task: Task, project: str) -> None:
        """Remember that these regions are a model's, in case that they come with later rectangles."""
        with self._lock:
            for box in _boxes(_predicted_regions(prediction)):
                if box.id is not None:
                    self._is_drawn[project, task_id_of(task), box.id] = False


def meant_boxes(click: Click, prediction: Prediction) -> Prediction | None:
    """The boxes of a prediction that were meant, one for each drawn rectangle at most; None if there is none.

    A drawn rectangle means the box of its label that overlaps it most, and by `MEANT_IOU` at least. The box must not be
    there yet: not on the page, in the task's drafts and annotations, or in this answer, as one that it overlaps by more
    than `THERE_IOU`. If it is there, only the newest rectangle gets the next best box, because the older ones have got
    theirs.
    """
    predicted = _predicted_regions(prediction)
    offered = [(box, region) for region in predicted for box in _boxes([region])]
    pairs = [
        (box.overlap(wanted), _score(region), number, index)
        for number, wanted in enumerate(click.drawn)
        for index, (box, region) in enumerate(offered)
    ]
    there = list(click.there)
    chosen: dict[int, int] = {}
    satisfied: set[int] = set()
    for overlap, _, number, index in sorted(pairs, reverse=True):
        if overlap < MEANT_IOU:
            break
        if number in satisfied:
            continue
        box = offered[index][0]
        if any(box.overlap(other) > THERE_IOU for other in there):
            if number < len(click.drawn) - 1:
                satisfied.add(number)
        else:
            chosen[number] = index
            satisfied.add(number)
            there.append(box)
    if not chosen:
        return None
    regions: list[Region] = []
    for _, index in sorted(chosen.items()):
        box, region = offered[index]
        # A region may have several parts with one id, such as a rectangle and its labels.
        parts = [part for part in predicted if box.id is not None and part.get("id") == box.id]
        regions += [part.copy() for part in parts or [region]]
    scores = [_score(offered[index][1]) for index in chosen.values()]
    return {**prediction, "result": regions, "score": sum(scores) / len(scores)}


def _predicted_regions(prediction: Prediction) -> list[Region]:
    result = prediction.get("result")
    return [region for region in result if isinstance(region, Mapping)] if isinstance(result, list) else []


def _regions_saved(task: Task) -> list[Mapping[str, Any]]:
    """All regions of the task's drafts and annotations; a draft stands for the annotation that it changes."""
    drafts = _mappings(task.get("drafts"))
    changed = [draft.get("annotation") for draft in drafts]
    kept = [each for each in _mappings(task.get("annotations")) if each.get("id") is None or each["id"] not in changed]
    return _regions_of([*drafts, *kept])


def _regions_of(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [region for result in results for region in _regions(result)]


def _regions(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _mappings(result.get("result"))


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _boxes(regions: Iterable[Mapping[str, Any]]) -> list[LabelledBox]:
    return [box for region in regions if (box := _read(region)) is not None]


def _read(region: Mapping[str, Any]) -> LabelledBox | None:
    """A region as a box; None if it is no rectangle with a label, or malformed."""
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
        id=id_ if isinstance(id_, str) and len(id_) <= _MAX_ID else None,
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
    """Returns True if this is a number of a place or a score, and neither NaN nor huge."""
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
    return polygon_iou(_corners(one, size_wh), _corners(other, size_wh))


def _corners(place: _Place, size_wh: tuple[int, int]) -> list[Point]:
    """The corners in pixels, clockwise. The rectangle is turned around the first."""
    x, y, width, height = (percent * size / 100 for percent, size in zip(place[:4], size_wh * 2, strict=True))
    cos, sin = math.cos(math.radians(place[4])), math.sin(math.radians(place[4]))
    sides = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return [(x + along * cos - down * sin, y + along * sin + down * cos) for along, down in sides]
