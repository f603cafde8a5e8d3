"""Which annotation of a task counts, and which boxes and outlines it has on each of the task's images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.keypoints import KeyPointControl
from yolo_backend.labels.controls.shapes import ShapeControl
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.places import Box, box_of_place, clip_to_image, corners_of_box
from yolo_backend.labels.polygons import area_within
from yolo_backend.labels.regions import region_labels
from yolo_backend.labels.tags import labels_of_task
from yolo_backend.messages import shortened
from yolo_backend.protocol import Task
from yolo_backend.training.drawn_outlines import (
    Line,
    UnreadableMaskError,
    area_around,
    hull_of,
    is_outlined,
    outlines_of_region,
    with_parts,
)
from yolo_backend.training.labelled import LabelledBox, Origin

# Why a region isn't trained on; `boxes` stands before it.
OUTSIDE = "outside their image"
NO_PLACE = "without an area"
TOO_SMALL = "smaller than a pixel"
NO_LABEL = "without a label"
UNKNOWN_LABEL = 'with the label "{}", which the labeling config doesn\'t have'
NO_MASK = "whose mask can't be read: {}"
NO_IMAGE = "on an image that their task doesn't have"
TWICE = "drawn a second time with the same label"

_MIN_PX = 1.0  # on each side, and in all
_NO_AREA_PX = 1e-6  # where it only touches the edge, except for rounding
_SAME_ASPECT = 0.02  # what rounding, and the sizes of thumbnails, make of one
_ORIGINS: Mapping[Any, Origin] = {"prediction": "prediction", "prediction-changed": "prediction-changed"}

Region = Mapping[str, Any]

ImageKey = tuple[str, int]
"""The name of the `<Image>`, and the page of its `valueList`; 0 without one."""
_Place = tuple[tuple[float, float, float, float], Box, tuple[Line, ...]]


@dataclass(frozen=True)
class Drawn:
    """What was drawn on one image: boxes, and why each of the other regions is none, or none of their points.

    `is_turned` says that the page showed the image turned when it was drawn, `is_of_another` that the image had other
    proportions then.
    """

    boxes: tuple[LabelledBox, ...]
    faults: tuple[str, ...] = field(default=())
    is_turned: bool = False
    is_of_another: bool = False
    point_faults: tuple[str, ...] = field(default=())


def counting_annotation(task: Task) -> Mapping[str, Any] | None:
    """Of the annotations that aren't cancelled a ground truth, else the one changed last; None where there is none."""
    submitted = [annotation for annotation in task["annotations"] if not annotation["was_cancelled"]]
    return max(
        submitted, key=lambda each: (bool(each["ground_truth"]), changed_at(each), int(each["id"])), default=None
    )


def changed_at(annotation: Mapping[str, Any]) -> datetime:
    """When an annotation was changed last."""
    return datetime.fromisoformat(annotation["updated_at"])


def regions_by_image(
    annotation: Mapping[str, Any], controls: Sequence[Control], kind: str = "detect"
) -> dict[ImageKey, list[tuple[Region, Control]]]:
    """The annotation's regions of these controls from which weights of this kind learn, by the image they are on."""
    found: dict[ImageKey, list[tuple[Region, Control]]] = {}
    for region in annotation["result"] or []:  # null, if a script stored it so
        control = _control_of(region, controls)
        if control is not None and _is_read(region, control, kind):
            found.setdefault(image_of(region), []).append((region, control))
    return found


def labels_of(control: Control, data: Any) -> list[str]:
    """The control's labels, also those that come with the task."""
    if control.labels_value is None:
        return [label.value for label in control.labels]
    try:
        return [label.value for label in labels_of_task(control, data)]
    except LabelingConfigError:
        return []


def read_drawn(regions: Sequence[tuple[Region, Control]], data: Any, size_wh: tuple[int, int]) -> Drawn:
    """What these regions of one image are in its pixels; `data` is the task's, `size_wh` the upright image's size."""
    boxes: list[LabelledBox] = []
    faults: list[str] = []
    for parts, control in with_parts(_with_labels(regions)):
        region = parts[0]
        place = _outlined(parts, size_wh) if is_outlined(region) else _boxed(region, size_wh)
        if isinstance(place, str):
            faults.append(place)
            continue
        known = labels_of(control, data)
        origin = origin_of_all({origin_of(part) for part in parts})
        for label in region_labels(region):
            if label not in known:
                faults.append(UNKNOWN_LABEL.format(shortened(label)))
            elif any((box.label, box.box_xywhr, box.outlines) == (label, *place[1:]) for box in boxes):
                faults.append(TWICE)
            else:
                box_xyxy, box_xywhr, outlines = place
                boxes.append(LabelledBox(label, box_xyxy, box_xywhr, origin, outlines=outlines))
        if not region_labels(region):
            faults.append(NO_LABEL)
    return seen_when_drawn(Drawn(tuple(boxes), tuple(faults)), regions, size_wh)


def seen_when_drawn(drawn: Drawn, regions: Sequence[tuple[Region, Any]], size_wh: tuple[int, int]) -> Drawn:
    """The same, with what the regions say of how the page showed the image."""
    return replace(
        drawn,
        is_turned=any(region.get("image_rotation") for region, _ in regions),
        is_of_another=any(_is_of_another(region, size_wh) for region, _ in regions),
    )


def origin_of(region: Region) -> Origin:
    """How the region came about."""
    return _ORIGINS.get(region.get("origin"), "manual")


def origin_of_all(origins: Set[Origin]) -> Origin:
    """How a thing came about whose parts came about so: it was kept as predicted, or drawn, only if all of it was."""
    return next(iter(origins)) if len(origins) == 1 else "prediction-changed"


def _with_labels(regions: Sequence[tuple[Region, Control]]) -> list[tuple[Region, Control]]:
    """All but those that are the place alone of a box whose label stands in another region of the same id."""
    labelled = {region.get("id") for region, _ in regions if region_labels(region)}
    return [
        (region, control) for region, control in regions if region_labels(region) or region.get("id") not in labelled
    ]


def _control_of(region: Region, controls: Sequence[Control]) -> Control | None:
    name, on = region.get("from_name"), region.get("to_name")
    for control in controls:
        other_name = control.shape_name if isinstance(control, ShapeControl) else None
        if isinstance(control, KeyPointControl):
            other_name = control.box_name
        if on == control.to_name and name in {control.from_name, other_name}:
            return control
    return None


def image_of(region: Region) -> ImageKey:
    """The image that the region is on."""
    page = region.get("item_index")
    return str(region.get("to_name")), page if isinstance(page, int) else 0


def _is_read(region: Region, control: Control, kind: str) -> bool:
    if kind == "segment":
        return is_outlined(region)
    if isinstance(control, KeyPointControl) and region.get("from_name") == control.from_name:
        return region.get("type") == "keypointlabels"
    return is_rectangle(region)


def is_rectangle(region: Region) -> bool:
    """Returns True if the region is a rectangle; `<Labels>` may name other shapes, too."""
    value = region.get("value")
    return region.get("type") in {"rectanglelabels", "rectangle"} or (
        region.get("type") == "labels" and isinstance(value, Mapping) and {"width", "height"} <= value.keys()
    )


def _outlined(regions: Sequence[Region], size_wh: tuple[int, int]) -> _Place | str:
    """The hull of what was drawn as polygons or as a mask, once more as a box, and its outlines; or what is wrong."""
    try:
        read = [outlines_of_region(region, size_wh) for region in regions]
    except UnreadableMaskError as error:
        return NO_MASK.format(error)
    lines = [line for each in read for line in each or ()]
    if not lines:
        return NO_PLACE if None in read else OUTSIDE
    left, top, right, bottom = hull_of(lines)
    if min(right - left, bottom - top, area_around(lines)) < _MIN_PX:
        return TOO_SMALL
    around = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.0)
    return (left, top, right, bottom), around, tuple(lines)


def _boxed(region: Region, size_wh: tuple[int, int]) -> _Place | str:
    """A rectangle, which has no outlines of its own."""
    place = place_of(region, size_wh)
    return place if isinstance(place, str) else (*place, ())


def place_of(region: Region, size_wh: tuple[int, int]) -> tuple[tuple[float, float, float, float], Box] | str:
    """The hull of a rectangle, within the image, and the rectangle itself; or what is wrong with it."""
    box = box_of_place(region.get("value") or {}, size_wh)
    if box is None:
        return NO_PLACE
    corners = corners_of_box(box)
    visible_px = area_within(clip_to_image(corners, size_wh))
    if visible_px < _NO_AREA_PX:
        return OUTSIDE
    xs, ys = zip(*corners, strict=True)
    left, right = max(0.0, min(xs)), min(float(size_wh[0]), max(xs))
    top, bottom = max(0.0, min(ys)), min(float(size_wh[1]), max(ys))
    if min(right - left, bottom - top, visible_px) < _MIN_PX:
        return TOO_SMALL
    return (left, top, right, bottom), box


def _is_of_another(region: Region, size_wh: tuple[int, int]) -> bool:
    width, height = region.get("original_width"), region.get("original_height")
    if not (isinstance(width, int | float) and isinstance(height, int | float) and width > 0 and height > 0):
        return False
    return abs(math.log(width / height * size_wh[1] / size_wh[0])) > _SAME_ASPECT
