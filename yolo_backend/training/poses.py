"""Which key points people drew belong together, and around what: the things that pose weights learn from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from yolo_backend.labels.controls.keypoint_classes import LearntPoints
from yolo_backend.labels.controls.keypoints import KeyPointControl, is_later_point
from yolo_backend.labels.places import Box, are_numbers
from yolo_backend.labels.regions import region_labels
from yolo_backend.messages import shortened
from yolo_backend.training.annotations import (
    NO_LABEL,
    OUTSIDE,
    TWICE,
    UNKNOWN_LABEL,
    Drawn,
    Region,
    origin_of,
    origin_of_all,
    place_of,
    seen_when_drawn,
)
from yolo_backend.training.labelled import LabelledBox, Origin, Point

# Why a box isn't trained on; `boxes` stands before it.
NO_POINTS = 'with the label "{}", which is no class of the key points'
# Why a point isn't trained on; `key points` stands before it.
NO_POINT_PLACE = "without a place"
NO_NUMBER = 'with the label "{}", which has no model_index'
OTHER_CLASS = "in a box of another class than theirs"
POINT_TWICE = "that their box has already"
IN_SEVERAL = "in several boxes, and below none of them in the Regions panel"
IN_NONE = "outside of all boxes"
MIXED = "of several things without boxes"
NO_CLASS = "without a box, and of several classes"
NO_HULL = "without a box, on which no other point is"

_BESIDE = 0.05  # of the longer side of a box, on each side: a point so near belongs to it
_MARGIN = 0.1  # of the longer side of points without a box, on each side
_MIN_HULL_PX = 2.0


@dataclass
class _Thing:
    """A box with its points so far, by their numbers."""

    label: str
    box_xyxy: tuple[float, float, float, float]
    box_xywhr: Box
    origins: set[Origin]
    points: dict[int, Point] = field(default_factory=dict)

    def take(self, point: _DrawnPoint) -> bool:
        """Returns False if it has such a point already."""
        if point.number in self.points:
            return False
        self.points[point.number] = point.xy
        self.origins.add(point.origin)
        return True

    def has_room_for(self, point: _DrawnPoint) -> bool:
        """Returns True if the point may be one of it."""
        return point.number not in self.points and point.may_be_of(self)

    def labelled(self, points: int) -> LabelledBox:
        places = tuple(self.points.get(number) for number in range(points))
        return LabelledBox(self.label, self.box_xyxy, self.box_xywhr, origin_of_all(self.origins), points=places)


@dataclass(frozen=True)
class _DrawnPoint:
    """A point that somebody drew: the classes that its label is for, and its number in these."""

    number: int
    xy: Point
    classes: frozenset[str]
    id: str
    parent: str
    origin: Origin

    def may_be_of(self, thing: _Thing) -> bool:
        return thing.label in self.classes


def read_poses(regions: Sequence[tuple[Region, KeyPointControl]], size_wh: tuple[int, int]) -> Drawn:
    """What these regions of one image are in its pixels, whose upright size is `size_wh`.

    A point belongs to its parent, the box below which it stands in the Regions panel, or else to the box in which it
    lies. Where there are no boxes, points are one thing, if each of them is there once, or those of one prediction are.
    """
    boxes: list[LabelledBox] = []
    faults: list[str] = []
    point_faults: list[str] = []
    for control in dict.fromkeys(control for _, control in regions):
        reading = _Reading(control, size_wh, faults, point_faults)
        reading.read([region for region, its in regions if its is control])
        boxes += [thing.labelled(reading.learnt.points) for thing in reading.things]
    return seen_when_drawn(Drawn(tuple(boxes), tuple(faults), point_faults=tuple(point_faults)), regions, size_wh)


class _Reading:
    """What was drawn with one control; `faults` and `point_faults` are appended to."""

    def __init__(
        self, control: KeyPointControl, size_wh: tuple[int, int], faults: list[str], point_faults: list[str]
    ) -> None:
        self.learnt = LearntPoints.of(control)
        self.things: list[_Thing] = []
        self._control, self._size_wh = control, size_wh
        self._faults, self._point_faults = faults, point_faults
        self._of_id: dict[str, list[_Thing]] = {}

    def read(self, regions: Sequence[Region]) -> None:
        """All regions of the control on this image."""
        for region in regions:
            if region.get("from_name") == self._control.box_name:
                self._read_box(region)
        parents = {str(region.get("id")): str(region.get("parentID") or "") for region in regions}
        alone: list[_DrawnPoint] = []
        for region in regions:
            if region.get("from_name") == self._control.box_name:
                continue
            for point in self._read_points(region):
                its = self._below(point.parent, parents)
                if not its:
                    alone.append(point)
                elif not (fitting := [thing for thing in its if point.may_be_of(thing)]):
                    self._point_faults.append(OTHER_CLASS)
                elif not fitting[0].take(point):
                    self._point_faults.append(POINT_TWICE)
        if self.things:
            self._put_into_boxes(alone)
        else:
            self._make_things(alone)

    def _read_box(self, region: Region) -> None:
        place = place_of(region, self._size_wh)
        if isinstance(place, str):
            self._faults.append(place)
            return
        box_xyxy, box_xywhr = place
        known = {label.value for label in self._control.box_labels}
        for label in region_labels(region):
            class_name = self.learnt.class_of_box.get(label)
            if class_name is None:
                self._faults.append((NO_POINTS if label in known else UNKNOWN_LABEL).format(shortened(label)))
                continue
            same = [thing for thing in self.things if (thing.label, thing.box_xywhr) == (class_name, box_xywhr)]
            if same:  # its points may be below either of them
                self._faults.append(TWICE)
            else:
                same = [_Thing(class_name, box_xyxy, box_xywhr, {origin_of(region)})]
                self.things += same
            self._of_id.setdefault(str(region.get("id")), []).extend(same)
        if not region_labels(region):
            self._faults.append(NO_LABEL)

    def _read_points(self, region: Region) -> Iterator[_DrawnPoint]:
        """One for each label of the region."""
        value = region.get("value") or {}
        if not are_numbers(value, "x", "y"):
            self._point_faults.append(NO_POINT_PLACE)
            return
        x, y = value["x"], value["y"]
        if not (0 <= x <= 100 and 0 <= y <= 100):
            self._point_faults.append(OUTSIDE)
            return
        width, height = self._size_wh
        known = {label.value for label in self._control.labels}
        for label in region_labels(region):
            number = self.learnt.number_of_point.get(label)
            if number is None:
                self._point_faults.append((NO_NUMBER if label in known else UNKNOWN_LABEL).format(shortened(label)))
                continue
            yield _DrawnPoint(
                number,
                (x / 100 * width, y / 100 * height),
                self.learnt.classes_of_point[label],
                str(region.get("id")),
                str(region.get("parentID") or ""),
                origin_of(region),
            )
        if not region_labels(region):
            self._point_faults.append(NO_LABEL)

    def _below(self, id_: str, parents: Mapping[str, str]) -> list[_Thing]:
        """The things of this box, or of the box that it stands below."""
        passed: set[str] = set()
        while id_ and id_ not in passed:
            if id_ in self._of_id:
                return self._of_id[id_]
            passed.add(id_)
            id_ = parents.get(id_, "")
        return []

    def _put_into_boxes(self, points: Sequence[_DrawnPoint]) -> None:
        """Each into the only box in which it lies and that has room for it; what that fills has no room for others."""
        left = list(points)
        while taken := [(point, its[0]) for point in left if len(its := self._boxes_for(point)) == 1]:
            for point, thing in taken:
                left.remove(point)
                if not thing.take(point):
                    self._point_faults.append(POINT_TWICE)
        for point in left:
            if self._boxes_for(point):
                self._point_faults.append(IN_SEVERAL)
                continue
            around = self._boxes_around(point)
            is_full = any(point.may_be_of(thing) for thing in around)
            self._point_faults.append(POINT_TWICE if is_full else OTHER_CLASS if around else IN_NONE)

    def _boxes_for(self, point: _DrawnPoint) -> list[_Thing]:
        return [thing for thing in self._boxes_around(point) if thing.has_room_for(point)]

    def _boxes_around(self, point: _DrawnPoint) -> list[_Thing]:
        """Those in which it lies, else those to whose edge it is near: a tip is easily drawn beside its box."""
        within = [thing for thing in self.things if _px_outside(point.xy, thing.box_xywhr) <= 0]
        return within or [
            thing
            for thing in self.things
            if _px_outside(point.xy, thing.box_xywhr) <= _BESIDE * max(thing.box_xywhr[2:4])
        ]

    def _make_things(self, points: Sequence[_DrawnPoint]) -> None:
        """Of points without boxes."""
        has_one_class = all(len(point.classes) == 1 for point in points)
        groups: dict[frozenset[str], list[_DrawnPoint]] = {}
        for point in points:
            groups.setdefault(point.classes if has_one_class else frozenset(), []).append(point)
        for those in groups.values():
            for group in self._those_of_one_thing(those):
                self._make_thing(group)

    def _those_of_one_thing(self, points: Sequence[_DrawnPoint]) -> Iterator[Sequence[_DrawnPoint]]:
        if _are_different(points):
            yield points
            return
        of_prediction: dict[str, list[_DrawnPoint]] = {}
        for point in points:
            of_prediction.setdefault(_thing_of(point.id), []).append(point)
        for those in of_prediction.values():
            if len(those) > 1 and _are_different(those):
                yield those
            else:
                self._point_faults += [MIXED] * len(those)

    def _make_thing(self, points: Sequence[_DrawnPoint]) -> None:
        """With the hull of its points as the box."""
        classes = frozenset.intersection(*(point.classes for point in points))
        xs, ys = zip(*(point.xy for point in points), strict=True)
        longer_px = max(max(xs) - min(xs), max(ys) - min(ys))
        if len(classes) != 1:
            self._point_faults += [NO_CLASS] * len(points)
        elif longer_px < _MIN_HULL_PX:
            self._point_faults += [NO_HULL] * len(points)
        else:
            margin_px, (width, height) = _MARGIN * longer_px, self._size_wh
            left, right = max(0.0, min(xs) - margin_px), min(float(width), max(xs) + margin_px)
            top, bottom = max(0.0, min(ys) - margin_px), min(float(height), max(ys) + margin_px)
            box_xywhr = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0)
            thing = _Thing(next(iter(classes)), (left, top, right, bottom), box_xywhr, set())
            for point in points:
                thing.take(point)
            self.things.append(thing)


def _are_different(points: Sequence[_DrawnPoint]) -> bool:
    return len({point.number for point in points}) == len(points)


def _thing_of(id_: str) -> str:
    """By the ids of what we predict: those of one thing begin alike."""
    return id_.partition("-")[0] if is_later_point(id_) else id_


def _px_outside(xy: Point, box_xywhr: Box) -> float:
    """How far beyond the sides of a rectangle a point is, along the rectangle's own directions; 0 or less within it."""
    center_x, center_y, width, height, radians = box_xywhr
    x, y = xy[0] - center_x, xy[1] - center_y
    cos, sin = math.cos(radians), math.sin(radians)
    return max(abs(x * cos + y * sin) - width / 2, abs(y * cos - x * sin) - height / 2)
