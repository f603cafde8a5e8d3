"""Things that are drawn in a shape from which a kind of weights doesn't learn: are they drawn in another one, too?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolo_backend.labels.control import Control
from yolo_backend.labels.controls.shapes import ShapeControl
from yolo_backend.labels.controls.table import kind_of_region
from yolo_backend.labels.polygons import iou_matrix
from yolo_backend.labels.regions import region_labels
from yolo_backend.training.annotations import ImageKey, Region, image_of, is_rectangle, labels_of, place_of
from yolo_backend.training.drawn_outlines import UnreadableMaskError, hull_of, is_outlined, outlines_of_region
from yolo_backend.training.labelled import LabelledBox

# Why a region isn't trained on; `boxes` stands before it.
OTHER_SHAPE = "drawn in a shape from which {} weights don't learn, around what is also drawn in one from which they do"

# Why an image isn't. Without what was drawn in another shape it would be one of which people say that it isn't there.
ONLY_OTHER_SHAPE = (
    "a labelled thing is drawn there only in a shape from which {} weights don't learn: draw it with {}, too, or "
    "begin with weights of another kind (--base)"
)

_SAME_IOU = 0.5  # of the boxes around: what is found counts as what was drawn from there on, too
_MIN_PX = 1.0  # on each side; less is a slip of the hand
_SHAPES = ({"width", "height"}, {"points"}, {"rle"}, {"radiusX"})  # a key point has a width only

_BoxXYXY = tuple[float, float, float, float]


@dataclass(frozen=True)
class OtherThing:
    """A thing with a trained label: its regions, of which there are several where a mask was predicted in parts."""

    label: str
    regions: tuple[Region, ...]

    def is_among(self, boxes: Sequence[LabelledBox], size_wh: tuple[int, int]) -> bool:
        """Returns True if one of the boxes that are learnt is around it, so that no model learns that it isn't there.

        Also if it is smaller than a pixel on the image of this size, in pixels.
        """
        try:
            hulls = [hull for region in self.regions if (hull := _hull_of(region, size_wh))]
        except UnreadableMaskError:
            return False
        if not hulls:
            return True
        left, top, right, bottom = hull_of([((hull[0], hull[1]), (hull[2], hull[3])) for hull in hulls])
        if min(right - left, bottom - top) < _MIN_PX:
            return True
        around = np.array([(left, top, right, bottom)])
        drawn = [box.box_xyxy for box in boxes if box.label == self.label]
        return bool(drawn) and bool(iou_matrix(around, np.array(drawn)).max() >= _SAME_IOU)


def things_in_other_shapes(
    annotation: Mapping[str, Any], controls: Sequence[Control], kind: str, data: Any
) -> dict[ImageKey, list[OtherThing]]:
    """What has a label of the controls and a shape from which weights of this kind don't learn, by image.

    A control that isn't trained may have the same labels, and `<Labels>` stand with several shapes.
    """
    trained = {
        (control.to_name, label)
        for control in controls
        if isinstance(control, ShapeControl)
        for label in labels_of(control, data)
    }
    parts: dict[tuple[ImageKey, str, Any], list[Region]] = {}
    for number, region in enumerate(annotation["result"] or []):  # null, if a script stored it so
        for label in _labels_of_other(region, kind):
            if (region.get("to_name"), label) in trained:
                thing = str(region.get("parentID") or region.get("id") or number)
                parts.setdefault((image_of(region), label, thing), []).append(region)
    found: dict[ImageKey, list[OtherThing]] = {}
    for (image, label, _), regions in parts.items():
        found.setdefault(image, []).append(OtherThing(label, tuple(regions)))
    return found


def _labels_of_other(region: Region, kind: str) -> Iterator[str]:
    value = region.get("value")
    is_shape = isinstance(value, Mapping) and any(keys <= value.keys() for keys in _SHAPES)
    is_read = is_outlined if kind == "segment" else is_rectangle
    if is_shape and not is_read(region):
        yield from region_labels(region)


def _hull_of(region: Region, size_wh: tuple[int, int]) -> _BoxXYXY | None:
    """The box around what of a region is on the image; None where nothing is. Raises UnreadableMaskError."""
    if is_outlined(region):
        lines = outlines_of_region(region, size_wh)
        return hull_of(lines) if lines else None
    if is_rectangle(region):
        place = place_of(region, size_wh)
        return None if isinstance(place, str) else place[0]
    kind = kind_of_region(region.get("type"))
    outlines = kind.outlines(region, size_wh) if kind else []
    if not outlines:
        return None
    left, top, right, bottom = np.clip(hull_of([tuple(line) for line in outlines]), 0, [*size_wh, *size_wh]).tolist()
    return left, top, right, bottom
