"""`<EllipseLabels>` on an `<Image>`: in each box the ellipse that touches all four sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolo_backend.labels.controls.kind import Found, Point, value_of
from yolo_backend.labels.controls.shapes import Shape, ShapeControl, ShapeLabels
from yolo_backend.labels.places import Place, is_place, places_of

_LARGEST_RADIUS = 50  # percent: Label Studio refuses larger ones
_LINE_POINTS = 48


@dataclass(frozen=True)
class EllipseControl(ShapeControl):
    """A control of ellipses."""

    tag: str = field(kw_only=True, default="ellipselabels")


class EllipseLabels(ShapeLabels[EllipseControl]):
    """Reads `<EllipseLabels>`."""

    tags = frozenset({"ellipselabels"})
    region_types = frozenset({"ellipselabels"})
    shape = "ellipse"
    control_type = EllipseControl

    def shapes(self, control: EllipseControl, found: Found) -> list[list[Shape]]:
        """An ellipse for each box; in a rotated one it is turned, too, if Label Studio takes it."""
        detections, size_wh = found.detections, found.size_wh
        turned: list[Place | None] = [None] * len(found.indices)
        if detections.rotated:
            turned = [_turned_ellipse(box, size_wh) for box in detections.boxes[found.indices].tolist()]
            detections = replace(detections, boxes=_hulls_of(detections.boxes), rotated=False)
        upright = [_ellipse_in(place) if place else None for place in places_of(detections, found.indices, size_wh)]
        return [
            [Shape(ellipse)] if (ellipse := one or other) else [] for one, other in zip(turned, upright, strict=True)
        ]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """The ellipse, turned clockwise around its middle."""
        value = value_of(region)
        if not is_place(value, "x", "y", "radiusX", "radiusY"):
            return []
        width, height = size_wh
        x, y = value["x"] / 100 * width, value["y"] / 100 * height
        across, down = value["radiusX"] / 100 * width, value["radiusY"] / 100 * height
        radians = math.radians(value.get("rotation") or 0)
        cos, sin = math.cos(radians), math.sin(radians)
        points = []
        for number in range(_LINE_POINTS):
            turn = 2 * math.pi * number / _LINE_POINTS
            along, beside = across * math.cos(turn), down * math.sin(turn)
            points.append((x + along * cos - beside * sin, y + along * sin + beside * cos))
        return [points]


def _ellipse_in(place: Place) -> Place:
    radius_x, radius_y = place["width"] / 2, place["height"] / 2
    x, y = place["x"] + radius_x, place["y"] + radius_y
    return {"x": x, "y": y, "radiusX": radius_x, "radiusY": radius_y, "rotation": 0}


def _turned_ellipse(box_xywhr: Sequence[float], size_wh: tuple[int, int]) -> Place | None:
    """Label Studio turns an ellipse clockwise around its middle. None if it would refuse it.

    An ellipse has two readings: a quarter turn on, with its radii exchanged, it is the same one.
    """
    if not all(map(math.isfinite, box_xywhr)):
        return None
    center_x, center_y, box_width, box_height, radians = box_xywhr
    width, height = size_wh
    for side_x, side_y, angle in ((box_width, box_height, radians), (box_height, box_width, radians + math.pi / 2)):
        place = {
            "x": center_x / width * 100,
            "y": center_y / height * 100,
            "radiusX": side_x / width * 50,
            "radiusY": side_y / height * 50,
            "rotation": math.degrees(angle) % 180,
        }
        radii = (place["radiusX"], place["radiusY"])
        if all(0 <= place[key] <= 100 for key in ("x", "y")) and all(0 < radius <= _LARGEST_RADIUS for radius in radii):
            return place
    return None


def _hulls_of(boxes_xywhr: NDArray[np.float32]) -> NDArray[np.float32]:
    """The upright boxes around these, xyxy."""
    center_x, center_y, width, height, radians = boxes_xywhr.T
    cos, sin = np.abs(np.cos(radians)), np.abs(np.sin(radians))
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    hulls: NDArray[np.float32] = np.stack(
        [center_x - across, center_y - down, center_x + across, center_y + down], axis=1
    )
    return hulls
