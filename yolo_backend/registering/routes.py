"""Which of a project's controls an object goes to, and what it becomes there if none holds it as it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.table import kind_of
from yolo_backend.labels.label_map import LabelMap, PointLabel, by_name, map_labels
from yolo_backend.protocol import Region
from yolo_backend.registering.objects import (
    BOX,
    ELLIPSE,
    MASK,
    POINTS,
    POLYGON,
    ROTATED,
    WHOLE,
    FileObject,
    KeyPoint,
    LabelFileError,
    is_rectangle,
    key_points,
    masked,
    polygon,
)

BELOW_ANY_SCORE = -1.0

_RECTANGLE, _POLYGON, _BRUSH, _ELLIPSE, _KEY_POINT, _OTHER = "rectangle", "polygon", "brush", "ellipse", "keypoint", ""
_HOLDERS: Mapping[str, Sequence[str]] = {
    BOX: (_RECTANGLE, _POLYGON, _BRUSH, _ELLIPSE, _OTHER),
    ROTATED: (_RECTANGLE, _POLYGON, _BRUSH, _ELLIPSE, _OTHER),
    POLYGON: (_POLYGON, _BRUSH, _RECTANGLE, _ELLIPSE, _OTHER),
    MASK: (_BRUSH, _POLYGON, _RECTANGLE, _ELLIPSE, _OTHER),
    ELLIPSE: (_ELLIPSE, _POLYGON, _BRUSH, _RECTANGLE, _OTHER),
    POINTS: (_KEY_POINT, _RECTANGLE, _POLYGON, _BRUSH, _ELLIPSE, _OTHER),
}
"""By an object's shape, the controls that can hold it, the best one first."""
_AS_IT_IS = {
    (BOX, _RECTANGLE),
    (ROTATED, _RECTANGLE),
    (POLYGON, _POLYGON),
    (MASK, _BRUSH),
    (ELLIPSE, _ELLIPSE),
    (POINTS, _KEY_POINT),
}
_BECOMES = {
    _RECTANGLE: "the boxes around them",
    _POLYGON: "polygons",
    _BRUSH: "masks",
    _ELLIPSE: "the ellipses in the boxes around them",
    _OTHER: "what the control makes of the boxes around them",
}
_PLURAL = {
    BOX: "boxes",
    ROTATED: "rotated boxes",
    POLYGON: "polygons",
    MASK: "masks",
    ELLIPSE: "ellipses",
    POINTS: "objects with key points",
    WHOLE: "answers about the whole image",
}
_CONTROL_OF = {
    BOX: "RectangleLabels",
    ROTATED: "RectangleLabels",
    POLYGON: "PolygonLabels",
    MASK: "BrushLabels",
    ELLIPSE: "EllipseLabels",
    POINTS: "KeyPointLabels",
}
_NO_LABEL_OF_POINT = "key points are left out: no label of the project is for them (model_index, predicted_values)"
_NO_BOX_OF_POINTS = (
    "boxes of objects with key points are left out: the project has no RectangleLabels with their labels"
)
_POINT_OFF = "key points are left out: they are off their images"


@dataclass(frozen=True)
class Route:
    """An object as its control takes it; `told` says what it becomes, for objects of its kind together, and `lost` how
    many parts of it the control has no place for, and why. So many of its key `points` become regions, if they are on
    the image.
    """

    thing: FileObject
    control: Control
    told: str | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    points: int = 0


class Routes:
    """The ways from the classes of a file of labels to the labels of a project's controls."""

    def __init__(self, controls: Sequence[Control], things: Sequence[FileObject], classes: Iterable[str]) -> None:
        self.controls = [control for control in controls if not kind_of(control).is_of_whole_image]
        # A class that no object has may still have the name of a label: then that label takes no class that is like it.
        names = [*classes, *(thing.label for thing in things)]
        names += [name for thing in things for name in thing.point_names]
        self.class_ids = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self._class_names = {number: name for name, number in self.class_ids.items()}
        most = max((len(thing.points) for thing in things), default=0)
        self._maps = {control: self._map(control, most) for control in self.controls}
        self._named = {control: self._map_named(control) for control in self._of(_KEY_POINT)}
        for thing in things:
            is_labelled = thing.shape != WHOLE and thing.label
            if self.controls and is_labelled and not self._knows_any(thing.label) and not self._are_points_named(thing):
                self._raise_unknown(thing)

    def map_of(self, control: Control, thing: FileObject) -> LabelMap:
        """The label of every class, whatever its threshold, because a file's objects are all wanted."""
        return self._named[control] if self._is_named(control, thing) else self._maps[control]

    def ways(self, thing: FileObject) -> list[Route]:
        """What the object becomes; several for one in several parts, none where nothing can hold it."""
        if self._are_points_named(thing):
            return self._ways_of_named_points(thing)
        drawn = _drawn_beside(thing)
        thing = replace(thing, outlines=(), mask=None) if drawn else thing
        shape = thing.shape
        if (
            shape == ROTATED
            and not is_rectangle(thing)
            and any(self._knows(control, thing.label) for control in self._of(_POLYGON))
        ):
            shape = POLYGON  # four points of a polygon look like the corners of a rotated box
        holders = (_KEY_POINT, *_HOLDERS[drawn.shape]) if drawn else _HOLDERS.get(shape, ())
        found = [
            (holders.index(place), control)
            for control in self.controls
            if (self._knows(control, thing.label) or self._is_named(control, thing))
            and (place := place_of(control)) in holders
        ]
        if not found:
            return []
        _, control = min(found, key=lambda each: each[0])
        place = place_of(control)
        if drawn and place != _KEY_POINT and (place in {_POLYGON, _BRUSH} or not thing.has_box):
            parts = _parts(drawn) if place == _POLYGON and drawn.shape == POLYGON else [drawn]
            return [Route(part, control, _what_is_lost(thing, shape, place)) for part in parts]
        if thing.shape == POINTS and place != _KEY_POINT and not thing.has_box:
            return []
        if place == _KEY_POINT:
            return self._ways_of_points(thing, control)
        if thing.shape == POLYGON and place == _POLYGON and len(thing.outlines) > 1:
            told = "polygons in several parts became a polygon for each part"
            return [Route(part, control, told) for part in _parts(thing)]
        return [Route(thing, control, _what_is_lost(thing, shape, place))]

    def _ways_of_points(self, thing: FileObject, control: Control) -> list[Route]:
        """Key points, and their box: perhaps to another control, because that of the points may have none for boxes."""
        label_map, class_id = self.map_of(control, thing), self.class_ids[thing.label]
        there = [number for number, point in enumerate(thing.points) if _is_there(point)]
        labelled = sum((class_id, number) in label_map.label_of_point for number in there)
        lost = Counter({_NO_LABEL_OF_POINT: len(there) - labelled})
        boxed: list[Route] = []
        if thing.has_box and getattr(control, "box_name", None) is None:
            bare = FileObject(thing.label, thing.box_xyxy, thing.score, thing.where)
            boxed = [Route(bare, other) for other in self._of(_RECTANGLE) if self._knows(other, thing.label)]
        if thing.has_box and not boxed and not label_map.label_of_class.get(class_id):
            lost[_NO_BOX_OF_POINTS] = 1
        return [Route(thing, control, lost=+lost, points=labelled), *boxed[:1]]

    def _ways_of_named_points(self, thing: FileObject) -> list[Route]:
        """Key points by their own names. Their box has no label here, and may be the exporter's."""
        ways: list[Route] = []
        unnamed = sum(map(_is_there, thing.points[len(thing.point_names) :]))
        for point in _single_points(thing):
            if self._knows_any(point.label):
                ways += self.ways(point)
            else:
                unnamed += 1
        if ways and unnamed:
            ways[0] = replace(ways[0], lost=Counter(ways[0].lost) + Counter({_NO_LABEL_OF_POINT: unnamed}))
        return ways

    def _of(self, place: str) -> list[Control]:
        return [control for control in self.controls if place_of(control) == place]

    def _map(self, control: Control, points: int) -> LabelMap:
        """The control's own way from classes to labels, as if weights had these classes, and so many key points."""
        kind = "pose" if points else "detect"
        weights = WeightsInfo("", kind, self._class_names, "", (0, 0), points=points)
        label_map = kind_of(control).map_labels(control, weights, BELOW_ANY_SCORE)
        return replace(
            label_map,
            threshold_of_class=dict.fromkeys(label_map.label_of_class, BELOW_ANY_SCORE),
            label_of_point={
                point: replace(label, threshold=BELOW_ANY_SCORE, point_threshold=0.0)
                for point, label in label_map.label_of_point.items()
            },
        )

    def _map_named(self, control: Control) -> LabelMap:
        """The labels of single key points, each of which has its label's name."""
        found = map_labels(by_name(control), self._class_names, BELOW_ANY_SCORE).label_of_class
        return LabelMap(
            label_of_class=dict.fromkeys(found, ""),  # no box
            threshold_of_class=dict.fromkeys(found, BELOW_ANY_SCORE),
            label_of_point={(number, 0): PointLabel(label, BELOW_ANY_SCORE, 0.0) for number, label in found.items()},
        )

    def _is_named(self, control: Control, thing: FileObject) -> bool:
        """Returns True for a single key point that has the name of one of the control's labels."""
        named = self._named.get(control)
        is_single = thing.shape == POINTS and len(thing.points) == 1 and not thing.has_box
        return bool(named and is_single and self.class_ids.get(thing.label) in named.label_of_class)

    def _knows(self, control: Control, label: str) -> bool:
        return self.class_ids.get(label) in self._maps[control].label_of_class

    def _knows_any(self, label: str) -> bool:
        return any(self._knows(control, label) for control in self.controls) or any(
            self.class_ids[label] in named.label_of_class for named in self._named.values()
        )

    def _are_points_named(self, thing: FileObject) -> bool:
        """Returns True if an object has no label of its own here, but its key points have."""
        if thing.shape != POINTS or self._knows_any(thing.label):
            return False
        ids = {self.class_ids[name] for name in thing.point_names}
        return any(ids & named.label_of_class.keys() for named in self._named.values())

    def _raise_unknown(self, thing: FileObject) -> None:
        control = self.controls[0]
        known = ", ".join(label.value for label in control.labels)
        others = "".join(f' or "{other.from_name}"' for other in self.controls[1:])
        raise LabelFileError(
            f'{thing.where}: "{thing.label}" is no label of "{control.from_name}"{others}, which has {known}'
        )


class OwnRegions:
    """Label Studio's own regions, where the project's labeling config takes them as they are."""

    def __init__(self, label_config: str) -> None:
        self._label_config = label_config
        self._interface: Any = None

    def take(self, thing: FileObject) -> list[Region] | None:
        """The regions of an object from Label Studio's export; None where they are none, or don't fit."""
        if not thing.regions or not self._label_config:
            return None
        if self._interface is None:
            from label_studio_sdk.label_interface import LabelInterface  # brings faker and jsonschema

            self._interface = LabelInterface(self._label_config)
        if self._are_valid(thing.regions):
            return [dict(region) for region in thing.regions]  # type: ignore[misc]
        if thing.shape == WHOLE:
            renamed = [self._renamed(region) for region in thing.regions]
            if self._are_valid(renamed):
                return renamed  # type: ignore[return-value]
        return None

    def _are_valid(self, regions: Sequence[Mapping[str, Any]]) -> bool:
        return not any(self._interface.validate_region(dict(region), return_errors=True) for region in regions)

    def _renamed(self, region: Mapping[str, Any]) -> dict[str, Any]:
        """The region as one of the only control of its type."""
        controls = [control for control in self._interface.controls if control.tag.lower() == region.get("type")]
        if len(controls) != 1:
            return dict(region)
        return {**region, "from_name": controls[0].name, "to_name": controls[0].to_name[0]}


def place_of(control: Control) -> str:
    """What a control draws: a rectangle, a polygon and so on; "" for a kind that isn't known here.

    Labels with a shape beside them are read as a control of that shape.
    """
    tag: str = getattr(type(control), "tag", control.tag)
    place = tag.removesuffix("labels")
    return place if place in _BECOMES or place == _KEY_POINT else _OTHER


def lost_on_the_way(way: Route, regions: Sequence[Region]) -> Counter[str]:
    """How many parts of an object didn't become regions, if these are what was made of it, and why."""
    made = sum(region["type"] == "keypointlabels" for region in regions)
    return +Counter({**way.lost, _POINT_OFF: way.points - made})


def left_out(thing: FileObject) -> str:
    """Why an object has no region, for objects of its kind together."""
    wanted = _CONTROL_OF.get(thing.shape)
    lacks = f"no {wanted} with their labels" if wanted else "no control of that name and type for them"
    return f"{_PLURAL[thing.shape]} are left out: the project has {lacks}"


def _what_is_lost(thing: FileObject, shape: str, place: str) -> str | None:
    if (shape, place) in _AS_IT_IS:
        if shape == ROTATED and not is_rectangle(thing):
            return "rotated boxes whose corners are no rectangle became the smallest rectangles around them"
        return None
    becomes = "their boxes" if shape == POINTS and place == _RECTANGLE else _BECOMES[place]
    if shape == ELLIPSE and place == _RECTANGLE and thing.box_xywhr and thing.box_xywhr[4]:
        becomes = "the rotated boxes around them"
    return f"{_PLURAL[shape]} became {becomes}: the project has no {_CONTROL_OF[shape]} with their labels"


def _parts(thing: FileObject) -> list[FileObject]:
    return [polygon(thing.label, [part], thing.score, thing.where) for part in thing.outlines]


def _drawn_beside(thing: FileObject) -> FileObject | None:
    """What was drawn of an object with key points beside them: a mask or a polygon."""
    if thing.shape != POINTS:
        return None
    if thing.mask is not None:
        return masked(thing.label, thing.mask, thing.score, thing.where)
    return polygon(thing.label, thing.outlines, thing.score, thing.where) if thing.outlines else None


def _single_points(thing: FileObject) -> list[FileObject]:
    """Its key points that are there, each an object of its own with the point's name."""
    there = [(name, point) for name, point in zip(thing.point_names, thing.points, strict=False) if _is_there(point)]
    return [key_points(name, [point], thing.score, thing.where) for name, point in there]


def _is_there(point: KeyPoint) -> bool:
    return not math.isnan(point[2])
