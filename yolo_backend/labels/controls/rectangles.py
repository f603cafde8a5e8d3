"""`<RectangleLabels>` on an `<Image>`: each box is a rectangle with a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yolo_backend.detection.detections import WeightsInfo
from yolo_backend.labels.controls.kind import Found, Point, value_of
from yolo_backend.labels.controls.shapes import Shape, ShapeControl, ShapeLabels
from yolo_backend.labels.errors import LabelingConfigError
from yolo_backend.labels.places import corners_of, is_place, places_of
from yolo_backend.labels.tags import Tag, is_true


@dataclass(frozen=True)
class RectangleControl(ShapeControl):
    """With `needs_obb` its boxes have to be rotated ones."""

    needs_obb: bool = False
    tag: str = field(kw_only=True, default="rectanglelabels")


class RectangleLabels(ShapeLabels[RectangleControl]):
    """Reads `<RectangleLabels>`."""

    tags = frozenset({"rectanglelabels"})
    region_types = frozenset({"rectanglelabels"})
    shape = "rectangle"
    control_type = RectangleControl

    def read_options(self, tag: Tag, attributes: Mapping[str, str]) -> dict[str, Any]:
        """`model_obb` wants rotated boxes."""
        return {"needs_obb": is_true(attributes, "model_obb")}

    def trained_with(self, control: RectangleControl) -> frozenset[str]:
        """Upright and rotated boxes."""
        return frozenset({"detect", "obb"})

    def check_weights(self, control: RectangleControl, weights: WeightsInfo, name: str) -> None:
        """`model_obb` wants rotated boxes."""
        super().check_weights(control, weights, name)
        if control.needs_obb and weights.kind != "obb":
            raise LabelingConfigError(
                f'model_obb="true" wants OBB weights, and {name} are {weights.kind} weights: leave it out, or name '
                "others in model_path"
            )

    def shapes(self, control: RectangleControl, found: Found) -> list[list[Shape]]:
        """A rectangle for each box."""
        places = places_of(found.detections, found.indices, found.size_wh)
        return [[Shape(place)] if place else [] for place in places]

    def outlines(self, region: Mapping[str, Any], size_wh: tuple[int, int]) -> list[list[Point]]:
        """The rectangle, turned as Label Studio turns it."""
        value = value_of(region)
        return [corners_of(value, size_wh)] if is_place(value, "x", "y", "width", "height") else []

    def ingredients(self, control: RectangleControl) -> dict[str, Any]:
        """None: it was the only kind when versions were first made."""
        return {}
